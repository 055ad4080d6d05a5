"""Guards of the package as a whole: which way imports run, what an import costs, what is public, what is in the wheel."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "scmulan"
README = ROOT / "README.md"
MATERIAL = ("tokenizer", "prompts", "training", "serving", "embedded")

# Modules and subpackages in the order in which they may import each other: any of an earlier line, or of its own. A module that was
# split stands with its stem: cells_writing with cells.
STAGES = (
    "errors assets",
    "genes spelling",
    "ontology",
    "metadata",
    "counts fields doctor cells by_rows pairing comparing",
    "csentence",
    "tokenizer prompts requests questions",
    "automaton hazard",
    "corpus",
    "model",
    "training adapters",
    "decoding rates",
    "engines",
    "measures",
    "labels levels readout perturbations tasks finetune search",
    "pieces",
    "held_out evaluate plots _drawing report",
    "serving",
    "trials bench demo embedded_build cli __main__",
)
STAGE_OF = {name: number for number, line in enumerate(STAGES) for name in line.split()}
BARE = (
    "corpus.shards",
    "corpus.pack",
    "training",
    "model",
    "automaton",
    "hazard",
    "csentence",
    "csentence_thinning",
    "tokenizer",
    "prompts",
    "decoding rates",
    "engines",
)
"""What runs where no anndata is installed: it knows ids only."""


@dataclass(frozen=True)
class Import:
    """An import statement: the module it names, and when it takes place."""

    target: str
    is_lazy: bool
    is_for_types: bool
    line: int


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py")) if "_shipped" not in path.parts}


def imports_of(module: str) -> list[Import]:
    """Every import of a module, wherever it stands in the file."""
    found: list[Import] = []

    def visit(node: ast.AST, is_lazy: bool, is_for_types: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, is_lazy, is_for_types, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: a relative import; needed the full name"
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                found.append(Import(below if below in MODULES else str(node.module), is_lazy, is_for_types, node.lineno))
        is_type_block = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, is_lazy or is_function, is_for_types or is_type_block)

    visit(ast.parse(MODULES[module].read_text()), False, False)
    return found


IMPORTS = {module: imports_of(module) for module in MODULES}


def stage_of(module: str) -> int:
    name = module.split(".")[1]
    stage = STAGE_OF.get(name, STAGE_OF.get(name.split("_")[0]))
    assert stage is not None, f"give {name} a place in STAGES"
    return stage


def reached(module: str) -> dict[str, str]:
    """Every module and outside package that importing or using a module can import, with who imports it."""
    found: dict[str, str] = {}
    waiting = [(module, "")]
    while waiting:
        name, via = waiting.pop()
        if name in found:
            continue
        found[name] = via
        if name in MODULES:
            lazily = name != "scmulan"  # the package's own lazy names are no part of importing it
            waiting += [(each.target, name) for each in IMPORTS[name] if not each.is_for_types and (lazily or not each.is_lazy)]
            waiting += [(parent, name) for parent in (name.rpartition(".")[0],) if parent]
    return found


def python(code: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **{"cwd": ROOT, **options})


def test_every_module_has_a_place_in_the_order():
    stages = {stage_of(name) for name in MODULES if name.count(".")}
    assert len(stages) > 10


def test_imports_run_one_way():
    wrong = [
        f"{module}, line {each.line}: imports {each.target}, which comes later"
        for module, imports in IMPORTS.items()
        for each in imports
        if module.count(".") and each.target.startswith("scmulan.") and stage_of(each.target) > stage_of(module)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_by_way_of_others():
    edges = {module: {each.target for each in imports if not each.is_for_types} & set(MODULES) for module, imports in IMPORTS.items()}
    edges["scmulan"] = set()
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(edges[module]):
                walk(target, (*path, module))
            done.add(module)

    for module in MODULES:
        walk(module, ())


def bare_modules() -> list[str]:
    return [module for module in MODULES if any(module == f"scmulan.{name}" or module.startswith(f"scmulan.{name}.") for name in BARE)]


@pytest.mark.parametrize("module", bare_modules())
def test_what_knows_ids_only_reaches_no_anndata(module):
    found = reached(module)
    for package in ("anndata", "scanpy", "h5py", "scmulan.cells"):
        assert package not in found, f"{module} reaches {package} by {found[package]}"


def test_training_models_and_engines_import_where_anndata_is_not_installed():
    blocked = ("anndata", "scanpy", "h5py")
    result = python(
        "import sys, importlib\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        f"for name in {[name for name in bare_modules() if name != 'scmulan.engines.vllm_logits']!r}: importlib.import_module(name)\n"
    )
    assert result.returncode == 0, result.stderr


def importers(package: str) -> list[str]:
    return [
        module
        for module, imports in IMPORTS.items()
        if any(each.target.split(".")[0] == package and not each.is_for_types for each in imports)
    ]


def test_cells_alone_touches_anndata():
    assert importers("anndata")
    assert all(module.split(".")[1].startswith("cells") for module in importers("anndata")), importers("anndata")


def test_only_its_engine_and_its_logits_processor_import_vllm():
    assert importers("vllm") == ["scmulan.engines.vllm", "scmulan.engines.vllm_logits"]


@pytest.mark.parametrize("heavy", ["torch", "transformers", "anndata", "pandas", "pyarrow", "sklearn"])
def test_import_scmulan_loads_nothing_heavy(heavy):
    result = python(f"import sys, scmulan; sys.exit({heavy!r} in sys.modules)")
    assert result.returncode == 0, result.stderr or f"import scmulan loads {heavy}"


@pytest.mark.parametrize("module", MODULES)
def test_all_is_true(module):
    """Every name in __all__ exists and stands there once; a lazy name is fetched."""
    if "__all__" not in MODULES[module].read_text():
        return
    opened = importlib.import_module(module)
    assert len(set(opened.__all__)) == len(opened.__all__)
    for name in opened.__all__:
        assert getattr(opened, name, None) is not None, f"{module}.{name}"
        assert name in dir(opened)


def test_no_module_is_a_drawer_for_odds_and_ends():
    drawers = re.compile(r"(^|_)(utils?|common|helpers?|misc|tools)(_|$)")
    assert not [module for module in MODULES if drawers.search(module.rpartition(".")[2])]


def test_the_material_folders_hold_no_code_and_say_where_their_code_is():
    for folder in MATERIAL:
        assert not [path for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts], folder
        text = (ROOT / folder / "README.md").read_text()
        named = re.findall(r"`(scmulan/[\w/]+(?:\.py)?)`", text)
        assert len(text.splitlines()) <= 16, folder
        assert named or "later" in text, folder
        assert all((ROOT / name).exists() for name in named), f"{folder}/README.md names {named}"


def test_code_from_models_is_never_trusted():
    for module, path in MODULES.items():
        assert "trust_remote_code" not in path.read_text(), module


def command_tree():
    """The command line as click sees it."""
    import typer

    cli = importlib.import_module("scmulan.cli")
    apps = [value for value in vars(cli).values() if isinstance(value, typer.Typer)]
    return typer.main.get_command(next(app for app in apps if app.registered_groups or len(apps) == 1))


def leaves(command, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Every command that does something, by the words that call it."""
    below = getattr(command, "commands", None)
    return {path: command} if below is None else {k: v for name, sub in below.items() for k, v in leaves(sub, (*path, name)).items()}


def test_the_commands_are_those_that_were_agreed():
    agreed = "check|annotate|embed|locate|describe|generate|complete|pretrain|tokenizer build|corpus build|corpus inspect|evaluate|demo"
    missing = {tuple(name.split()) for name in agreed.split("|")} - set(leaves(command_tree()))
    assert not missing


def test_every_command_and_option_says_what_it_is_for():
    for path, command in leaves(command_tree()).items():
        assert command.help, path
        assert not [param.name for param in command.params if not getattr(param, "help", None)], path


def shell_lines(text: str) -> list[str]:
    """Lines of a page's code blocks, joined where they end in a backslash, prompts and comments left out."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in fenced if language in ("", "bash", "sh", "console", "shell")]
    blocks += re.findall(r"^ {4}((?:make|scmulan) .*)$", text, flags=re.MULTILINE)  # an indented block is code too
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip().removeprefix("$ ").split(" #")[0] for line in lines]


def test_commands_in_the_readme_exist_with_their_options():
    if not README.exists():
        pytest.skip("no README yet")
    known, checked = leaves(command_tree()), 0
    for line in shell_lines(README.read_text()):
        words = shlex.split(line) if line.startswith("scmulan ") else []
        if not words:
            continue
        path = next((path for path in known if tuple(words[1 : 1 + len(path)]) == path), None)
        assert path is not None, f"README: {line!r}: no such command"
        options = {option for param in known[path].params for option in param.opts + param.secondary_opts} | {"--help"}
        used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= options, f"README: {line!r}: {sorted(used - options)} not among {sorted(options)}"
        checked += 1
    assert checked


def test_make_targets_in_the_readme_exist():
    if not README.exists():
        pytest.skip("no README yet")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    used = {word for line in shell_lines(README.read_text()) if line.startswith("make ") for word in line.split()[1:] if "=" not in word}
    assert {"demo", "test"} <= used <= targets


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of this tree in which ignored files lie about."""
    if not README.exists():
        pytest.skip("no README yet, which the build needs")
    tree = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    for name in ("scmulan/__pycache__/errors.cpython-311.pyc", "prompts/notes.log", "tokenizer/__pycache__/x.pyc", "training/.venv/x.py"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("left behind")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tree / "out"), str(tree)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (tree / "out").glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_its_material_and_nothing_that_git_ignores(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert all(name.startswith("scmulan/") for name in names)
    assert not [name for name in names if re.search(r"__pycache__|\.pyc|\.log|\.venv|\.partial", name)]
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "scmulan", *MATERIAL], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    listed = [name for name in listed if not name.startswith("serving/web/") or name.startswith("serving/web/dist/")]  # not its sources
    expected = {name if name.startswith("scmulan/") else f"scmulan/_shipped/{name}" for name in listed if (ROOT / name).is_file()}
    assert set(names) == expected
    for folder in MATERIAL:
        assert f"scmulan/_shipped/{folder}/README.md" in names
    assert "scmulan/py.typed" in names


@pytest.mark.slow
def test_the_wheel_works_unpacked_outside_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import scmulan, scmulan.assets as assets\n"
        f"assert scmulan.__file__.startswith({str(tmp_path)!r}), scmulan.__file__\n"
        f"found = [assets.path(folder) for folder in {MATERIAL!r}]\n"
        "assert all('_shipped' in path.parts for path in found), found\n"
        "from scmulan.prompts import load_prompts\n"
        "from scmulan.genes import GeneTable\n"
        "print(len(load_prompts().tasks), len(GeneTable.load().symbols), scmulan.__version__)\n"
    )
    result = python(code, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"})
    assert result.returncode == 0, result.stderr
    assert wheel.name.startswith(f"scmulan-{result.stdout.split()[-1]}-")

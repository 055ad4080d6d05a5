"""The ontologies: any spelling is one term, old ids are today's, and steps, roll-up and shared ancestors agree with each other."""

from __future__ import annotations

import doctest
import gzip
import importlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmulan import assets, ontology_build
from scmulan.errors import EngineError, VocabularyError
from scmulan.ontology import NAMES, Ontology, Term, find
from scmulan.ontology_build import former_numbers, kept_terms, parents_of, spellings_of, write_table
from scmulan.spelling import keys

CL = Ontology.load("CL")
cell_types = st.sampled_from(CL.ids())
SMALL = {
    "CL:0000000": {"label": "cell", "ancestors": {}, "deprecated": False, "synonyms": ["thing"]},
    "CL:0000001": {"label": "blood cell", "ancestors": {"CL:0000000": 1}, "deprecated": False, "synonyms": ["haemocyte", "thing"]},
    "CL:0000002": {"label": "red cell", "ancestors": {"CL:0000001": 1, "CL:0000000": 1}, "deprecated": False, "synonyms": ["RC"]},
    "CL:0000003": {"label": "rare cell", "ancestors": {"CL:0000000": 1}, "deprecated": False, "synonyms": ["RC", "red cell"]},
    "CL:0000004": {"label": "old cell", "ancestors": {}, "deprecated": True, "replaced_by": "CL:0000005"},
    "CL:0000005": {"label": "older cell", "ancestors": {}, "deprecated": True, "replaced_by": "CL:0000002"},
    "CL:0000006": {"label": "lost cell", "ancestors": {}, "deprecated": True},
}


@pytest.mark.parametrize("module", ["ontology", "spelling", "metadata", "fields"])
def test_examples_of_the_documentation_hold(module):
    assert doctest.testmod(importlib.import_module(f"scmulan.{module}")).failed == 0


@pytest.mark.parametrize("spelling", ["B cell", "b CELL", "B lymphocyte", "B-lymphocyte", "CL:0000236", "CL_0000236", "cl:0000236"])
def test_any_spelling_or_id_is_one_term(spelling):
    assert find("cell_type", keys("cell_type", spelling)) == Term("CL:0000236", "B cell")


def test_what_is_no_term_is_none_and_an_unknown_id_is_an_error():
    assert CL.find("cell of Mars") is None
    assert "CL:9999999" not in CL
    with pytest.raises(VocabularyError, match=r"term 'UBERON:0000955' is not in CL v20\d\d-"):
        CL.ancestors("UBERON:0000955")
    with pytest.raises(VocabularyError, match="ontology 'GO': needed one of CL, UBERON"):
        Ontology.load("GO")


def test_a_replaced_id_is_its_successor():
    assert CL.term("CL:0000003") == CL.term("CL:0000000") == Term("CL:0000000", "cell")
    assert find("cell_type", ["cl:0000003"]) == Term("CL:0000000", "cell")


@pytest.mark.parametrize("name", NAMES)
def test_every_label_and_every_id_is_found_and_ancestors_end_at_few_roots(name):
    ontology = Ontology.load(name)
    found = [ontology.find(label) for label in ontology.labels()]
    assert sum(term is None or term.id != term_id for term, term_id in zip(found, ontology.ids(), strict=True)) <= 1  # EFO's two nuc-seq
    assert all(term_id in ontology for term_id in ontology.ids())
    assert ontology.version[0] == "v"
    for term_id in ontology.ids()[:: len(ontology) // 50]:
        roots = [above for above in ontology.ancestors(term_id) if not ontology.parents(above)]
        assert 1 <= len(roots) <= 3


@given(cell_types, cell_types, cell_types)
def test_distance_is_a_distance_and_steps_agree_with_the_shared_ancestor(a, b, c):
    assert CL.distance(a, a) == 0
    assert CL.distance(a, b) == CL.distance(b, a)
    assert (CL.distance(a, b) == 0) == (a == b)
    if CL.is_a(a, b):
        assert CL.distance(a, b) <= CL.ancestors(a)[b]
        assert CL.common_ancestor(a, b) == b
    if CL.is_a(a, b) and CL.is_a(b, c):
        assert CL.is_a(a, c)


@given(cell_types, cell_types)
def test_the_shared_ancestor_is_above_both_and_nothing_shared_is_below_it(a, b):
    shared = CL.common_ancestor(a, b)
    assert shared is not None
    both = CL.ancestors(a).keys() & CL.ancestors(b).keys()
    assert shared in both
    assert not any(other != shared and CL.is_a(other, shared) for other in both)
    assert CL.distance(a, b) <= CL.ancestors(a)[shared] + CL.ancestors(b)[shared]


@given(cell_types, st.lists(cell_types, max_size=6))
def test_roll_up_gives_one_of_the_terms_above_and_none_lower_exists(term, coarser):
    found = CL.roll_up(term, coarser)
    above = [each for each in coarser if CL.is_a(term, each)]
    assert (found is None) == (not above)
    assert found is None or (found in above and not any(each != found and CL.is_a(each, found) for each in above))


@given(cell_types)
def test_no_parent_stands_above_another(term):
    parents = CL.parents(term)
    assert not any(one != other and CL.is_a(one, other) for one in parents for other in parents)


@given(st.text(max_size=30))
def test_any_text_can_be_looked_up(text):
    term = CL.find(text)
    assert term is None or term.id in CL


def test_a_shared_spelling_is_the_terms_above_all_others_or_nobodys():
    kept = kept_terms("CL", SMALL)
    found, shared = spellings_of(kept)
    assert shared == 1  # RC
    assert found == {"CL:0000000": ["thing"], "CL:0000001": ["hemocyte"], "CL:0000002": [], "CL:0000003": []}


def test_parents_are_ancestors_that_no_other_ancestor_implies():
    assert parents_of(kept_terms("CL", SMALL))["CL:0000002"] == ["CL:0000001"]
    circle = {"CL:1": {"ancestors": {"CL:2": 1}}, "CL:2": {"ancestors": {"CL:1": 1}}}
    with pytest.raises(VocabularyError, match="stand above themselves"):
        parents_of(circle)


def test_old_ids_follow_their_successors_to_the_end_and_lost_ones_are_left_out():
    kept = kept_terms("CL", SMALL)
    assert former_numbers("CL", SMALL, kept)["CL:0000002"] == ["0000004", "0000005"]
    assert "CL:0000006" not in kept


def test_a_table_is_the_same_bytes_twice_and_reads_back(tmp_path):
    for name in ("one", "two"):
        write_table("CL", SMALL, "v1 (test)", tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    read = Ontology(gzip.decompress((tmp_path / "one").read_bytes()).decode())
    assert (read.name, read.version, len(read)) == ("CL", "v1", 4)
    assert read.find("Haemocyte") == Term("CL:0000001", "blood cell")
    assert read.term("CL:0000004").label == "red cell"


def test_a_damaged_table_says_how_to_build_it():
    with pytest.raises(VocabularyError, match=r"needed \['number', 'label', .*build it with scmulan.ontology_build"):
        Ontology("# CL v1\nnumber\tlabel\n")


def test_the_shipped_tables_are_those_of_the_guide(tmp_path):
    pytest.importorskip("cellxgene_ontology_guide.ontology_parser", reason="the extra 'ontology' is not installed")
    terms, source = ontology_build.read_terms("CL")
    shipped = assets.path("tokenizer", "ontologies", "CL.tsv.gz").read_bytes()
    if source.split()[0] != CL.version:
        pytest.skip(f"the guide has {source}, the table {CL.version}")
    write_table("CL", terms, gzip.decompress(shipped).decode().partition("\n")[0].removeprefix("# CL "), tmp_path / "CL.tsv.gz")
    assert gzip.decompress((tmp_path / "CL.tsv.gz").read_bytes()) == gzip.decompress(shipped)


def test_building_without_the_guide_names_the_line_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cellxgene_ontology_guide.supported_versions", None)
    with pytest.raises(EngineError, match=r"pip install 'scmulan\[ontology\]'"):
        ontology_build.read_terms("CL")


def test_the_tables_are_small():
    sizes = [assets.path("tokenizer", "ontologies", f"{name}.tsv.gz").stat().st_size for name in NAMES]
    assert sum(sizes) < 1_500_000


def test_looking_up_a_label_of_the_table_reads_no_ontology():
    code = (
        "import scmulan.ontology as o; o._load = None\n"
        "from scmulan.metadata import canonical\n"
        "assert canonical('cell_type', 'CD19+ B').value == 'B cell'"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0

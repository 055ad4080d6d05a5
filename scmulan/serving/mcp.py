"""The same tasks as tools for any assistant, by the Model Context Protocol: typed arguments, and plain results beside a short text.

A tool is a function of a `Task` and its arguments that gives a result and its sentences; here it is put before the protocol. An error comes
as scmulan's own message, of which assistants can make something; what nobody foresaw goes to the log, and no trace to the client.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import anyio.to_thread
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field, ValidationError

from scmulan import __version__
from scmulan.errors import ScmulanError, nearest
from scmulan.serving import mcp_answering, mcp_changing, mcp_editing, mcp_writing
from scmulan.serving.mcp_arguments import Label
from scmulan.serving.mcp_asking import ask
from scmulan.serving.mcp_card import model_info, text_of_card, text_of_tasks
from scmulan.serving.mcp_files import Folder
from scmulan.serving.mcp_results import Result
from scmulan.serving.mcp_work import Done, Task, Workshop
from scmulan.tasks import Model

Work = Callable[..., tuple[Result, str]]
ABOUT_CELLS: tuple[Work, ...] = (
    mcp_answering.check, mcp_answering.annotate, mcp_answering.locate, mcp_answering.describe, mcp_answering.embed,
)  # fmt: skip
WRITING: tuple[Work, ...] = (mcp_writing.generate, mcp_writing.complete, ask)
CHANGING: tuple[Work, ...] = (
    mcp_changing.perturb, mcp_changing.explain_shift, mcp_changing.next_state, mcp_changing.fate, mcp_changing.enhance,
)  # fmt: skip
EDITING: tuple[Work, ...] = (mcp_editing.edit, mcp_editing.screen)
MAPPING: tuple[Work, ...] = (mcp_answering.search, mcp_answering.transfer)
"""Offered where the server has an index."""
WITHOUT_MODEL: tuple[Work, ...] = (mcp_answering.check,)
Adapter = Annotated[Label | None, Field(description="Answer with this adapter (model_info), instead of the model as it is.")]
INSTRUCTIONS = (
    "scmulan is a generative language model of single cells (scRNA-seq). Its tools answer about .h5ad files in the server's folder and "
    "write cells into new ones. Begin with model_info (what the model has learnt, which files there are) and check (one file). A tool "
    "returns a summary; name an `output` file for the whole. Only labels that the model has learnt can be asked for; an error names the "
    "nearest. Tasks run one at a time. edit and screen are readings of the model, not interventions; perturb is what was learnt of "
    "interventions. Nothing here is for clinical use."
)
log = logging.getLogger("scmulan.serving.mcp")


class Server(MCPServer[Any]):
    """The server of the SDK, with scmulan's words for arguments that don't fit."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None) -> Any:
        """As the SDK does; unknown arguments, which it would drop in silence, and wrong ones are told."""
        tools = {tool.name: tool for tool in await self.list_tools()}
        if name not in tools:
            return refused(f"tool {name!r}: there is none{nearest(name, list(tools))}; there are {', '.join(tools)}")
        known = list(tools[name].input_schema["properties"])
        for given in arguments:
            if given not in known:
                return refused(f"{name}: {given!r} is not an argument{nearest(given, known)}; it takes {', '.join(known)}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            wrong = [f"{'.'.join(map(str, each['loc']))}: {_found(each)}" for each in error.__cause__.errors(include_url=False)]
            return refused(f"{name}: " + "\n  and: ".join(wrong[:3]) + (f"\n  and {len(wrong) - 3} more" if len(wrong) > 3 else ""))


def _found(each: Mapping[str, Any]) -> str:
    """What was found for an argument, and what was needed."""
    if each["type"] == "missing":
        return "not given; it is needed"
    return f"found {str(each['input'])[:80]!r}; {each['msg'][:1].lower()}{each['msg'][1:]}"


def mcp_server(model: Model, files: Folder, indexes: Mapping[str, Path] | None = None, **options: Any) -> Server:
    """A server that offers a model's tasks.

    Parameters
    ----------
    files : the only files that it reads and writes
    indexes : folders of indexes of reference cells, by name
    options : of the SDK's server, as those of its authentication
    """
    workshop = Workshop(model, files, indexes)
    works = [*ABOUT_CELLS, *WRITING, *CHANGING, *EDITING, *(MAPPING if indexes else ())]
    tools = [info_tool(workshop), *(tool_of(workshop, work) for work in works)]
    server = Server(
        "scmulan", title="scmulan", version=__version__, description="A generative language model of single cells.",
        instructions=INSTRUCTIONS, tools=tools, log_level="WARNING", **options,
    )  # fmt: skip

    @server.resource("scmulan://model/card", name="model card", mime_type="text/markdown")
    def card() -> str:
        """What the model is, what it has seen, how it does on held-out cells, its limits."""
        return text_of_card(model)

    @server.resource("scmulan://tasks", name="tasks", mime_type="text/markdown")
    def tasks() -> str:
        """The tools, the fields of a cell, and the requests that `ask` takes."""
        return text_of_tasks(model, [(tool.name, tool.description) for tool in tools])

    return server


def tool_of(workshop: Workshop, work: Work) -> Tool:
    """A tool that does a piece of work in the workshop."""
    name, takes_adapter = work.__name__, work not in WITHOUT_MODEL and bool(workshop.model.adapters)

    async def call(context: Context[Any, Any], **given: Any) -> CallToolResult:
        adapter = given.pop("adapter", None)
        done = await workshop.do(name, lambda task: work(task, **given), context.report_progress, adapter=adapter)
        return told(name, done)

    return _bound(call, work, {"adapter": Adapter} if takes_adapter else {})


def info_tool(workshop: Workshop) -> Tool:
    """The tool that tells of the model; it waits for no task."""

    async def call(context: Context[Any, Any], **given: Any) -> CallToolResult:
        task = Task(model=workshop.model, files=workshop.files, indexes=workshop.indexes)
        try:
            value = await anyio.to_thread.run_sync(lambda: model_info(task, **given))
        except ScmulanError as error:
            return refused(str(error))
        return told("model_info", Done(value))

    return _bound(call, model_info, {})


def _bound(call: Callable[..., Any], work: Work, more: Mapping[str, Any]) -> Tool:
    """A function of a context before the protocol, with the arguments, result and description of a piece of work."""
    signature = inspect.signature(work, eval_str=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    asked = [each.replace(kind=kind) for each in list(signature.parameters.values())[1:]]
    added = [inspect.Parameter(name, kind, default=None, annotation=type_of) for name, type_of in more.items()]
    context = inspect.Parameter("context", kind, annotation=Context)
    result = get_args(signature.return_annotation)[0]
    call.__name__, call.__annotations__ = work.__name__, {"context": Context}
    call.__signature__ = inspect.Signature([context, *asked, *added], return_annotation=Annotated[CallToolResult, result])  # type: ignore[attr-defined]
    writes = "overwrite" in signature.parameters
    hints = ToolAnnotations(read_only_hint=not writes, destructive_hint=writes, idempotent_hint=True, open_world_hint=False)
    tool = Tool.from_function(call, description=inspect.cleandoc(work.__doc__ or ""), annotations=hints)
    tool.parameters = {**short(tool.parameters), "additionalProperties": False}
    tool.fn_metadata.output_schema = short(tool.fn_metadata.output_schema)
    return tool


def short(schema: Any) -> Any:
    """A JSON schema without what says nothing, for an assistant's context is short: titles that pydantic makes of names, and null as
    another type of what may be left out."""
    if isinstance(schema, list):
        return [short(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: short(each) for key, each in schema.items() if key != "title" or not isinstance(each, str)}
    types = [each for each in kept.get("anyOf", []) if each != {"type": "null"}]
    if len(types) < len(kept.get("anyOf", [])) and "default" in kept and kept["default"] is None:
        rest = {key: each for key, each in kept.items() if key not in ("anyOf", "default")}
        return {**(types[0] if len(types) == 1 else {"anyOf": types}), **rest}
    return kept


def told(name: str, done: Done) -> CallToolResult:
    """A result as plain data beside its text; what could not be done as an error with its message."""
    if done.crash is not None:
        log.error("%s crashed", name, exc_info=done.crash)
        return refused(f"{name}: an error inside scmulan ({type(done.crash).__name__}); the server's log says more")
    warned = [f"Warning: {each}" for each in done.warnings]
    if done.refused is not None:
        return refused("\n".join([done.refused, *warned]))
    result, text = done.value
    result.warnings = list(done.warnings)
    written = [f"Written to {result.output}."] if result.output else []
    content = TextContent(type="text", text="\n".join([text, *written, *warned]))
    return CallToolResult(content=[content], structured_content=result.model_dump(mode="json", exclude_none=True))


def refused(message: str) -> CallToolResult:
    """An error of a tool."""
    return CallToolResult(content=[TextContent(type="text", text=message)], is_error=True)

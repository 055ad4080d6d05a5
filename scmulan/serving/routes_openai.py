"""Models, chat and completions, in the form of OpenAI's, so that their clients work; what scmulan adds stands under ``scmulan``."""

from __future__ import annotations

import functools
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from scmulan.cells import AnnData
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import CellRequest
from scmulan.errors import PromptError, some
from scmulan.serving import answers, chat, reproduced
from scmulan.serving.answers import errors
from scmulan.serving.asked import IS_NUMBER, FileId, Genes, Label, Rows, Seed, Temperature, TopP
from scmulan.serving.routes_cells import check_rows
from scmulan.tasks import Model

router = APIRouter(prefix="/v1", tags=["openai"])
MOST_TOKENS = 20_000
"""Characters of a c-sentence: 1,024 tokens of the longest kind, and more."""


class Head(TypedDict):
    """What every part of an answer begins with."""

    id: str
    created: int
    model: str


Value = Label | Annotated[int, Field(ge=-(2**63), lt=2**63)] | None
OneRequest = Annotated[
    dict[Label, Value | Annotated[list[Label], Field(max_length=500)] | Annotated[dict[Label, Value], Field(max_length=2000)]],
    Field(max_length=40),
]


class Lenient(BaseModel):
    """Fields of OpenAI's that say nothing here are passed over."""

    model_config = ConfigDict(extra="ignore")


class FilePart(Lenient):
    file_id: FileId


class Part(Lenient):
    """A part of a message: text, or a file of cells."""

    type: Literal["text", "file"]
    text: Annotated[str, Field(max_length=20_000)] = ""
    file: FilePart | None = None


class Message(Lenient):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, Field(max_length=200_000)] | Annotated[list[Part], Field(max_length=32)] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return " ".join(part.text for part in self.content if part.type == "text").strip()
        return (self.content or "").strip()

    @property
    def files(self) -> list[str]:
        return [part.file.file_id for part in self.content if part.file is not None] if isinstance(self.content, list) else []


class Extra(BaseModel):
    """What scmulan takes beside OpenAI's fields: the cells that are asked about, and a request in place of the last question's reading."""

    model_config = ConfigDict(extra="forbid")
    file_id: FileId | None = None
    rows: Rows | None = None
    genes: Annotated[Genes | None, Field(description="One cell, by genes with counts.")] = None
    fields: Annotated[dict[Label, Label], Field(max_length=20, description="What is known of that cell, as organism.")] = {}
    sentence: Annotated[str | None, Field(max_length=MOST_TOKENS, description="One cell, as a c-sentence.")] = None
    request: Annotated[
        Annotated[list[OneRequest], Field(max_length=chat.MOST_REQUESTS)] | OneRequest | None,
        Field(description="What to do, corrected; as `scmulan.request` of an answer."),
    ] = None


class ChatAsked(Lenient):
    model: Annotated[str | None, Field(max_length=200)] = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=200)]
    stream: bool = False
    n: Literal[1] | None = None
    seed: Seed | None = None
    scmulan: Extra = Extra()


class CompletionAsked(Lenient):
    model: Annotated[str | None, Field(max_length=200)] = None
    prompt: (
        Annotated[str, Field(max_length=MOST_TOKENS)] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=8192)]
    )
    n: Annotated[int, Field(ge=1, le=64), IS_NUMBER] = 1
    temperature: Temperature = 1.0
    top_p: TopP = 1.0
    seed: Seed | None = None
    stream: Literal[False] | None = None


@router.get("/models", summary="The base and its adapters")
async def models(request: Request) -> answers.Models:
    server = request.app.state.server
    return {"object": "list", "data": [model_told(server, name) for name in server.models]}


@router.get("/models/{name}", summary="One model", responses=errors(422))
async def model(request: Request, name: str) -> answers.Model:
    request.app.state.server.models.check(name)
    return model_told(request.app.state.server, name)


def model_told(server: Any, name: str) -> answers.Model:
    said: answers.Model = {"id": name, "object": "model", "created": int(server.started), "owned_by": "scmulan"}
    return said if name == server.models.name else {**said, "root": server.models.name}


@router.post(
    "/chat/completions", summary="A question about cells, answered", response_model=answers.ChatCompletion,
    responses={200: {"content": answers.EVENTS}, **errors(400, 404, 422, 503, 507)},
)  # fmt: skip
async def chat_completions(request: Request, asked: ChatAsked) -> answers.ChatCompletion | StreamingResponse:
    """The last message of the user is read as requests, or leans on the one before ("and the T cells only?"); they are shown under
    `scmulan.request`, and can be corrected and sent back as `scmulan.request`. Cells: a file's id in a part of a message or under
    `scmulan.file_id`, genes with counts, or a c-sentence. With `stream` the answer comes as events, sentence by sentence."""
    server, owner = request.app.state.server, request.scope["owner"]
    server.models.check(asked.model)
    questions = [message.text for message in asked.messages if message.role == "user" and message.text]
    if not questions and asked.scmulan.request is None:
        raise PromptError("no message of the user has text; needed a question")
    longest = max((len(question) for question in questions), default=0)
    if longest > server.settings.most_question:
        raise PromptError(f"a question of {longest:,} characters; needed at most {server.settings.most_question:,}")
    files = [name for message in asked.messages for name in message.files]
    file_id = asked.scmulan.file_id or (files[-1] if files else None)
    rows = asked.scmulan.rows
    if file_id is not None:
        check_rows(rows, server.files(owner).get(file_id).cells)
    elif rows is not None:
        raise PromptError("rows without a file; needed scmulan.file_id")
    server.check_room(owner)

    setting = server.setting(asked.model, owner, file_id)
    is_written_out = asked.scmulan.genes is not None or asked.scmulan.sentence is not None

    def work() -> tuple[Any, str, Any]:
        opened = server.models.use(asked.model)
        cells = _cells(opened, asked.scmulan, server.files(owner).cells(file_id) if file_id else None)
        given = asked.scmulan.request
        requests = [] if given is None else (given if isinstance(given, list) else [given])
        if cells is not None and rows is not None:
            cells = cells[np.array(rows)].copy()
        found = server.chat.answer(opened, chat.Asked(questions=questions or [""], requests=requests, cells=cells, seed=asked.seed or 0))
        used = rows if found.rows is None else (found.rows if rows is None else [rows[place] for place in found.rows])
        told = None if is_written_out else reproduced.of_chat(found.to_dict()["request"], used, asked.seed or 0, setting)
        kept = server.jobs.keep("chat", {"shown": found.shown}, owner, functools.partial(found.write, reproduce=told))
        return found, kept.id, told

    found, kept, told = await server.soon(work)
    server.metrics.cells.labels("chat").inc()
    said = {**found.to_dict(), "result": f"/v1/jobs/{kept}/result.json", "reproduce": told}
    head: Head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": asked.model or server.models.name}
    if asked.stream:
        return StreamingResponse(_streamed(head, found.text, said), media_type="text/event-stream")
    message: answers.ChatMessage = {"role": "assistant", "content": found.text, "refusal": None}
    choice: answers.ChatChoice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(questions, found.text), "scmulan": said}


def _cells(opened: Model, extra: Extra, of_file: AnnData | None) -> AnnData | None:
    if extra.genes is not None:
        return chat.cells_of_genes(opened, extra.genes, dict(extra.fields))
    return chat.cells_of_sentence(opened, extra.sentence) if extra.sentence is not None else of_file


def _usage(questions: list[str], text: str) -> answers.Usage:
    """Words; an answer's sentences are templates, no tokens of the model."""
    read, written = sum(len(question.split()) for question in questions), len(text.split())
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def _streamed(head: Head, text: str, said: dict[str, Any]) -> AsyncIterator[str]:
    def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': [choice], **more})}\n\n"

    yield event({"role": "assistant", "content": ""}, scmulan={"request": said["request"], "shown": said["shown"]})
    for part in _sentences(text):
        yield event({"content": part})
    yield event({}, "stop", scmulan=said)
    yield "data: [DONE]\n\n"


def _sentences(text: str) -> list[str]:
    parts = text.split(". ")
    return [part + ". " for part in parts[:-1]] + parts[-1:]


@router.post("/completions", summary="Cells that go on from a c-sentence", responses=errors(400, 422, 503))
async def completions(request: Request, asked: CompletionAsked) -> answers.Completion:
    """`prompt` is a c-sentence up to the task that writes a cell, `<organ> blood … <task:generate>`, as text or as ids."""
    server = request.app.state.server
    server.models.check(asked.model)

    def work() -> tuple[list[str], int, int]:
        opened = server.models.use(asked.model)
        prompt = _prompt(opened, asked.prompt)
        seed = asked.seed if asked.seed is not None else int(np.random.SeedSequence().generate_state(1)[0])
        sampling = Sampling(temperature=asked.temperature, top_p=asked.top_p, seed=seed)
        written = opened.engine.generate([CellRequest(prompt=prompt, row=row) for row in range(asked.n)], sampling)
        tokenizer = opened.opened.checkpoint.tokenizer
        return [" ".join(tokenizer.convert_ids_to_tokens(ids.tolist())) for ids in written], len(prompt), sum(map(len, written))

    texts, n_read, n_written = await server.soon(work)
    server.metrics.cells.labels("completions").inc(len(texts))
    choices: list[answers.Choice] = [
        {"index": place, "text": text, "finish_reason": "stop", "logprobs": None} for place, text in enumerate(texts)
    ]
    usage: answers.Usage = {"prompt_tokens": n_read, "completion_tokens": n_written, "total_tokens": n_read + n_written}
    name = asked.model or server.models.name
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": name,
        "choices": choices,
        "usage": usage,
    }


def _prompt(opened: Model, said: str | list[int]) -> Any:
    """Ids of a prompt that ends where a cell is to be written; PromptError where it does not."""
    v, tokenizer = opened.vocabulary, opened.opened.checkpoint.tokenizer
    if isinstance(said, str):
        ids = np.array(tokenizer(said, add_special_tokens=False)["input_ids"], dtype=np.int64)
    else:
        ids = np.array(said, dtype=np.int64)
        if ids.max() >= v.size:
            raise PromptError(f"id {ids.max()}: the vocabulary has {v.size:,}")
    writing = [opened.writer.control_id(f"<task:{name}>") for name in ("generate", "complete") if name in opened.prompts.tasks]
    if not len(ids) or (int(ids[-1]) not in writing and v.cell not in ids):
        last = some(tokenizer.convert_ids_to_tokens(ids[-1:].tolist())) if len(ids) else "nothing"
        raise PromptError(f"the prompt ends with {last}; needed one up to the task that writes a cell, as <task:generate>")
    ids = np.concatenate([[v.bos], ids]) if ids[0] != v.bos else ids
    context = opened.opened.checkpoint.context
    if len(ids) >= context:
        raise PromptError(f"a prompt of {len(ids):,} tokens; needed fewer than the model's context of {context:,}")
    return ids

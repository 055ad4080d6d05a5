"""What the server answers: one TypedDict an object, each of them a schema of the OpenAPI document, and the errors with what they say.

Objects that OpenAI's clients know have the form of OpenAI's; what scmulan adds stands beside it.
"""

from __future__ import annotations

from typing import (
    Any,
    Literal,
    NotRequired,  # pydantic takes no other before Python 3.12
)

from typing_extensions import TypedDict

Content = dict[str, dict[str, Any]]
Responses = dict[int | str, dict[str, Any]]
TEXT = {"type": "string"}
EVENT = {"type": "object", "properties": {"event": TEXT, "data": {**TEXT, "description": "JSON"}}, "required": ["data"]}
EVENTS: Content = {"text/event-stream": {"itemSchema": EVENT}}
FILES: Content = {
    "application/x-hdf5": {"schema": {"type": "string", "format": "binary"}},
    "text/csv": {"schema": TEXT},
    "application/json": {"schema": {"type": "object"}},
}
FIGURES: Content = {"text/plain": {"schema": TEXT}}


class ErrorSaid(TypedDict):
    """What was found and what was needed; `type` and `code` name the kind."""

    message: str
    type: str
    param: str | None
    code: str


class Error(TypedDict):
    """An error, as OpenAI's clients read it."""

    error: ErrorSaid


class _Rooted(TypedDict, total=False):
    root: str


class Model(_Rooted):
    """A base, or an adapter with its base as `root`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(TypedDict):
    object: Literal["list"]
    data: list[Model]


class File(TypedDict):
    """An uploaded file; `verdict` is what `scmulan check` says of it, `obs` its columns with their first values."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str
    cells: int
    genes: int
    sha256: str
    verdict: dict[str, Any]
    obs: dict[str, list[Any]]


class Files(TypedDict):
    object: Literal["list"]
    data: list[File]


class Deleted(TypedDict):
    id: str
    object: Literal["file", "job"]
    deleted: bool


class Job(TypedDict):
    """A job as it stands: `done` of `total` pieces, `results` where it is done; `created` and `ended` in seconds since 1970."""

    id: str
    object: Literal["job"]
    task: str
    asked: dict[str, Any]
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    done: int
    total: int
    cells: int
    message: str
    warnings: list[str]
    summary: dict[str, Any]
    created: float
    ended: float
    results: dict[str, str]


class Jobs(TypedDict):
    object: Literal["list"]
    data: list[Job]


class Changed(TypedDict):
    """A gene and how it changes: log2 of the ratio of (mean CP10k + 1), its 95 % interval and q value where they are known."""

    gene: str
    log2: float
    low: NotRequired[float]
    high: NotRequired[float]
    q: NotRequired[float]


class Changes(TypedDict):
    """The most changed genes first."""

    genes: list[Changed]


class Way(TypedDict):
    name: str
    about: str
    genes: list[Changed]


class Baselines(TypedDict):
    """Simple answers; `why` says why there are none, or fewer."""

    ways: list[Way]
    why: str


class Reproduced(TypedDict):
    """`python` runs as it stands where the file lies; `command` does the same in a shell."""

    python: str
    command: str


class ExampleTold(TypedDict):
    """Embedded data, with three questions to try."""

    name: str
    title: str
    about: str
    cells: int
    questions: list[str]


class Limits(TypedDict):
    file_bytes: int
    file_cells: int
    written: int
    question_characters: int
    chat_cells: int
    rows: int


class About(TypedDict):
    """What there is to be asked: models, embedded data, the labels that the model saw by field, the perturbations that it learnt."""

    version: str
    models: list[Model]
    examples: list[ExampleTold]
    fields: dict[str, list[str]]
    perturbations: list[str]
    limits: Limits


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessage(TypedDict):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(TypedDict):
    index: int
    message: ChatMessage
    finish_reason: Literal["stop"]
    logprobs: None


class ChatCompletion(TypedDict):
    """An answer; under `scmulan` the request it was read as, the facts of every number, plots as data and where the result is kept."""

    id: str
    created: int
    model: str
    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage
    scmulan: dict[str, Any]


class Choice(TypedDict):
    index: int
    text: str
    finish_reason: Literal["stop"]
    logprobs: None


class Completion(TypedDict):
    """Cells as c-sentences."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Health(TypedDict):
    status: Literal["ok"]
    version: str
    seconds: float


class Ready(TypedDict):
    ready: bool
    models: list[str]


ERRORS = {
    400: "A body that is no JSON or no form, or not UTF-8",
    401: "No API key of this server",
    404: "Nothing of yours has this id",
    408: "The body came too slowly",
    413: "Too large: the body, or the file in it",
    421: "Called by a name that this server does not have",
    422: "Understood, but it can't be done: what was found, and what was needed",
    429: "Too many requests, or too many jobs that wait",
    500: "A fault of the server; it is in its log",
    503: "Busy, or what it runs on can't answer now",
    507: "No room for it: remove files or jobs first",
}
AGAIN = {"Retry-After": {"description": "Seconds after which to ask again", "schema": {"type": "integer", "minimum": 1}}}


def errors(*codes: int) -> Responses:
    """Answers with an error, as FastAPI documents them."""
    return {code: {"model": Error, "description": ERRORS[code], **({"headers": AGAIN} if code in (429, 503) else {})} for code in codes}

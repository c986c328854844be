"""The HTTP service: what `acidburn serve` offers, and the search page in front of it.

Routes, what they take and give, and what an error looks like. Who may call and how often is
`guard`, how many questions are worked on at once is `desk`, which pools there are and how they are
followed is `following`, what the page looks like is `adapters.search_page`.

An error is `{"error": …, "mend": …}`. What a caller did wrong is told in full; of what fails on our
side a caller is told no more than its kind, and the log says the rest.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from acidburn_assets import __version__
from acidburn_assets.adapters import search_page
from acidburn_assets.core.answers import Answer, Passage, Trail
from acidburn_assets.core.errors import (
    AcidburnError,
    BudgetError,
    DatabaseUnavailable,
    ModelError,
    NotMaterialized,
    QuestionError,
    ServiceUnavailable,
    StoreUnavailable,
    TransientError,
)
from acidburn_assets.core.records import Record
from acidburn_assets.runtime.desk import CallerLeft, Desk, DeskClosed, DeskFull, TookTooLong
from acidburn_assets.runtime.following import Opened, Pools
from acidburn_assets.runtime.guard import UNEXPECTED, Guard, Refusal, Rules
from acidburn_assets.runtime.search import MAX_PASSAGES

RETRY_SECONDS = 5
"""After which a caller may try again where something was away or full. Chosen."""

log = logging.getLogger("acidburn.serve")

DESCRIPTION = """\
Questions to the pools of a corpus, answered by passages from it.

Every answer says how sure it is (`gate.verdict`): **accepted**, **ambiguous** or **not_found**, and
carries its trail: clusters considered and searched, rows scanned, seconds by stage, dollars; and of
each passage the span of its document, shard, content hash and run. Without a model's key `text` is
null, and the passages are the answer.

Where the service has a token, send it as `Authorization: Bearer TOKEN`. An error is
`{"error": …, "mend": …}`; after 429 and 503, `Retry-After` says in how many seconds to ask again.
"""


class Limits(NamedTuple):
    """What one question may ask for."""

    question_chars: int
    n_scanned: int
    n_at_once: int
    n_waiting: int
    timeout_seconds: float


class Problem(Record):
    """Why there is no answer."""

    error: str
    mend: str | None = None
    """What to do about it, where something can be done."""


class Asked(BaseModel):
    """A question."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"question": "How do I invert a matrix?"}]},
    )

    question: str
    """As a person writes it, in the corpus's language."""
    n_passages: int = Field(10, ge=1, le=MAX_PASSAGES)
    """How many passages are wanted."""
    n_scanned: int | None = Field(None, ge=1)
    """How many passages it is compared with at first; null: a tenth of the pool, 5,000 at most."""
    widens: bool = True
    """Whether up to eight times as many are looked at where those found are not sure to answer."""

    @field_validator("question")
    @classmethod
    def _is_text(cls, question: str) -> str:
        if not question.strip():
            raise ValueError("the question is empty; ask something")
        if "\0" in question:
            raise ValueError("the question has a null character; send text")
        if any("\ud800" <= letter <= "\udfff" for letter in question):
            raise ValueError("the question has half of a character; send text")
        return question


class Found(Record):
    """Passages for a question, nothing said of whether they answer it."""

    question: str
    pool: str
    model: str
    """Fingerprint of the encoder."""
    passages: tuple[Passage, ...]
    trail: Trail


class Terms(Record):
    """A dataset of a pool."""

    dataset: str
    licence: str


class PoolFacts(Record):
    """A pool that can be asked."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    tier: Literal["knowledge", "verification"]
    is_ready: bool
    """False: it cannot be asked at present; `error` says why."""
    error: str | None
    mend: str | None
    n_clusters: int
    n_chunks: int
    datasets: tuple[Terms, ...]


class Facts(Record):
    """What can be asked, and how much of it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    version: str
    """Of Acidburn."""
    pools: tuple[PoolFacts, ...]
    writer: str | None
    """The model that writes answers and is paid for them; null: none does."""
    question_chars: int
    """Of a question, at most."""
    n_passages: int
    """Of an answer, at most."""
    n_scanned: int
    """Passages that one question may be compared with at first, at most."""


class Health(Record):
    """Whether every pool can be asked."""

    status: Literal["ok", "degraded"]


class PointsOutline(BaseModel):
    """Points of the map, base64 of little-endian arrays; `n` of each."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    n: int
    x: str
    """uint16, from edge to edge of the map's square."""
    y: str
    """uint16, upwards."""
    cluster: str
    """uint32, position in `clusters`."""
    is_noise: str
    """uint8."""
    chunk: str
    """The first 6 bytes of each chunk's id."""


class ClusterOutline(BaseModel):
    """A cluster."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    cluster_id: int
    title: str
    summary: str
    keywords: list[str]
    n_chunks: int
    n_noise: int
    hue: int | None
    """Position in `hues`; null where none of its points is on the map."""
    place: tuple[float, float] | None
    """Where its name stands on the map, from (0, 0) lower left to (1, 1)."""


class Outline(BaseModel):
    """Clusters of a pool, and where its passages lie in two dimensions."""

    pool: str
    hues: list[str]
    clusters: list[ClusterOutline]
    points: PointsOutline


_Pool = Annotated[
    str | None,
    Query(alias="pool", description="Which pool; may be left out where one is served."),
]


def make_app(
    pools: Pools,
    *,
    limits: Limits,
    rules: Rules,
    look_seconds: float,
) -> Callable[..., Awaitable[None]]:
    """The ASGI application.

    It follows the pools while it runs, and closes them when it stops.

    Args:
        pools: looked at once, so that one is open at least.
        limits: of questions.
        rules: of requests; paths are added here.
        look_seconds: between two looks at the pools.
    """
    page = search_page.render()
    desk = Desk(
        n_at_once=limits.n_at_once,
        n_waiting=limits.n_waiting,
        timeout_seconds=limits.timeout_seconds,
    )

    @asynccontextmanager
    async def follow(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(_keep_following(pools, look_seconds))
        try:
            yield
        finally:
            following.cancel()
            desk.close()
            await asyncio.to_thread(pools.close)

    app = FastAPI(
        title="Acidburn",
        version=__version__,
        description=DESCRIPTION,
        lifespan=follow,
        docs_url=None,  # these pages ask a content network for their scripts
        redoc_url=None,
        redirect_slashes=False,
    )

    def chosen(request: Request, pool: _Pool = None) -> str:
        request.state.pool = _choose(pools, pool)  # errors name it
        return str(request.state.pool)

    def check(asked: Asked) -> None:
        if len(asked.question) > limits.question_chars:
            raise Refusal(
                422,
                f"the question has {len(asked.question):,} characters, "
                f"{limits.question_chars:,} are read",
                "shorten it",
            )
        if (asked.n_scanned or 0) > limits.n_scanned:
            raise Refusal(
                422, f"n_scanned may be {limits.n_scanned:,} here", "search less at a time"
            )

    async def work(request: Request, act: Callable[[], bytes]) -> Response:
        async def has_left() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        return Response(await desk.answer(act, has_left), media_type="application/json")

    @app.get("/", include_in_schema=False)
    async def search() -> Response:
        return Response(
            page.html,
            media_type="text/html",
            headers={"content-security-policy": page.policy},
        )

    @app.post(
        "/ask",
        tags=["questions"],
        summary="Ask a question",
        responses=_responses(Answer, "Passages, the verdict on them, and their trail.", 422, 504),
    )
    async def ask(
        request: Request, asked: Asked, pool: Annotated[str, Depends(chosen)]
    ) -> Response:
        """Searches the clusters that the question belongs to, wider while the passages found are
        not sure to answer it, and says how sure they are. With a model's key the answer is written
        from them, citing passages as `[1]`."""
        check(asked)

        def act() -> bytes:
            with pools.lease(pool) as opened:
                return _json(_ask(opened, asked))

        return await work(request, act)

    @app.post(
        "/search",
        tags=["questions"],
        summary="Find passages",
        responses=_responses(Found, "Passages, best first, and their trail.", 422, 504),
    )
    async def find(
        request: Request, asked: Asked, pool: Annotated[str, Depends(chosen)]
    ) -> Response:
        """The passages nearest to a question, nothing said of whether they answer it; no model
        is paid."""
        check(asked)

        def act() -> bytes:
            with pools.lease(pool) as opened:
                answer = _ask(opened, asked, advises=False)
                return _json(Found(**{name: getattr(answer, name) for name in Found.model_fields}))

        return await work(request, act)

    @app.get(
        "/clusters",
        tags=["pools"],
        summary="Clusters of a pool and its map",
        responses=_responses(Outline, "Every cluster, and where the pool's passages lie."),
    )
    async def clusters(pool: Annotated[str, Depends(chosen)]) -> Response:
        """Titles, summaries, keywords and sizes of all clusters, and the points of the pool's 2-d
        map, none where it was not made yet. No text of a passage."""
        with pools.lease(pool) as opened:
            return Response(opened.outline, media_type="application/json")

    @app.get(
        "/pools",
        tags=["pools"],
        summary="What can be asked",
        responses=_responses(
            Facts, "The pools that are served, and how much may be asked of them."
        ),
    )
    async def facts() -> Response:
        """Pools, their datasets and sizes, and the limits of a question."""
        opened = [state.opened for state in pools.states() if state.opened]
        writers = [one.answerer.writer for one in opened]
        told = Facts(
            version=__version__,
            pools=tuple(_pool_facts(pools)),
            writer=next(filter(None, writers), None),
            question_chars=limits.question_chars,
            n_passages=MAX_PASSAGES,
            n_scanned=limits.n_scanned,
        )
        return Response(_json(told), media_type="application/json")

    @app.get(
        "/health",
        tags=["pools"],
        summary="Whether all pools can be asked",
        responses={
            200: {"model": Health, "description": "All of them."},
            503: {"model": Health, "description": "One cannot; /pools says which, and why."},
        },
    )
    async def health() -> Response:
        """For whoever watches the service; needs no token, and tells no more than this. It is what
        was seen at the last look at the pools, a few seconds ago."""
        is_ok = all(state.opened and not state.trouble for state in pools.states())
        told = Health(status="ok" if is_ok else "degraded")
        return JSONResponse(told.model_dump(), status_code=200 if is_ok else 503)

    _add_errors(app)
    _describe(app, has_token=bool(rules.token.get_secret_value()))
    known = {route.path for route in app.routes if hasattr(route, "path")}
    return Guard(
        app,
        replace(
            rules,
            open_paths={"/", "/health"},
            counted_paths={"/ask", "/search"},
            known_paths=known,
        ),
    )


async def _keep_following(pools: Pools, look_seconds: float) -> None:
    while True:
        await asyncio.sleep(look_seconds)
        try:
            await asyncio.to_thread(pools.follow)
        except Exception:
            # a defect; said once a look, and questions go on being answered
            log.exception("the pools could not be looked at")


def _ask(opened: Opened, asked: Asked, *, advises: bool = True) -> Answer:
    return opened.answerer.ask(
        asked.question,
        n_scanned=asked.n_scanned,
        n_passages=asked.n_passages,
        widens=asked.widens,
        advises=advises,
    )


def _json(record: Record) -> bytes:
    # strict: a number that JSON does not have would be read as an error by every browser
    return json.dumps(record.model_dump(mode="json"), ensure_ascii=False, allow_nan=False).encode()


def _choose(pools: Pools, name: str | None) -> str:
    names = pools.names
    if name is None:
        if len(names) > 1:
            raise Refusal(422, f"several pools are served: {', '.join(names)}", "say ?pool=")
        return names[0]
    if name not in names:
        raise Refusal(404, f"no pool of that name is served; there are: {', '.join(names)}")
    return name


def _pool_facts(pools: Pools) -> list[PoolFacts]:
    told = []
    for state in pools.states():
        problem = _problem_of(state.trouble, state.name)[1] if state.trouble else None
        cluster_map = state.opened.answerer.cluster_map if state.opened else None
        told.append(
            PoolFacts(
                name=state.name,
                tier=state.tier,
                is_ready=state.opened is not None,
                error=problem.error if problem else None,
                mend=problem.mend if problem else None,
                n_clusters=len(cluster_map.cards) if cluster_map else 0,
                n_chunks=sum(card.size + card.n_noise for card in cluster_map.cards)
                if cluster_map
                else 0,
                datasets=tuple(
                    Terms(dataset=one.dataset, licence=one.licence)
                    for one in (cluster_map.datasets if cluster_map else ())
                ),
            )
        )
    return told


# ---- errors ----------------------------------------------------------------------------------

_KINDS: tuple[tuple[type[AcidburnError], int, str, str], ...] = (
    (DeskFull, 503, "too many questions wait already", "ask again in a moment"),
    (DeskClosed, 503, "the service is stopping", "ask again when it is back"),
    (TookTooLong, 504, "the answer took too long", "ask again, or search less of the pool"),
    (DatabaseUnavailable, 503, "the database does not answer", "ask again in a moment"),
    (StoreUnavailable, 503, "the object store does not answer", "ask again in a moment"),
    (ServiceUnavailable, 503, "a service that is needed does not answer", "ask again in a moment"),
    (TransientError, 503, "something that is needed is away", "ask again in a moment"),
    (BudgetError, 402, "the answer would cost more than was allowed", "ask for passages: /search"),
    (
        NotMaterialized,
        503,
        "the pool {pool} has not been made yet",
        "run: acidburn materialize {pool}",
    ),
    (
        ModelError,
        500,
        "questions are encoded by another model than the pool {pool}",
        "set ACIDBURN_MODEL to the pool's model, and start the service again",
    ),
    (AcidburnError, 500, "the pool {pool} cannot be read", "run: acidburn doctor"),
)
"""Status, what is said and what to do, by kind; the first that fits."""


def _problem_of(error: AcidburnError, pool: str) -> tuple[int, Problem]:
    """What a caller is told of an error: nothing of how the service is set up."""
    if isinstance(error, QuestionError):
        what, _, mend = str(error).rpartition("; ")
        return 422, Problem(error=what or mend, mend=mend if what else None)
    status, what, mend = next(told[1:] for told in _KINDS if isinstance(error, told[0]))
    return status, Problem(error=what.format(pool=pool), mend=mend.format(pool=pool))


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(AcidburnError)
    async def acidburn(request: Request, error: AcidburnError) -> Response:
        status, problem = _problem_of(error, request.state.pool)
        if not isinstance(error, (QuestionError, DeskFull, DeskClosed, TookTooLong)):
            log.warning("%s: %s", type(error).__name__, error)
        headers = {"retry-after": str(RETRY_SECONDS)} if status == 503 else {}
        return _problem(status, problem.error, problem.mend or "", headers)

    @app.exception_handler(Refusal)
    async def refusal(_: Request, error: Refusal) -> Response:
        return _problem(error.status, error.error, error.mend, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _problem(422, *_first(error))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        return _problem(500, *UNEXPECTED, {})  # and then the guard logs where it was

    @app.exception_handler(CallerLeft)
    async def left(_: Request, __: CallerLeft) -> Response:
        return Response(status_code=499)  # nobody reads it; as nginx writes it into its log

    for status, told in (
        (400, ("the request is not JSON", 'send a JSON object: {"question": …}')),
        (404, ("there is nothing at this address", "/openapi.json says what there is")),
        (405, ("this address does not take that method", "/openapi.json says what there is")),
    ):
        app.add_exception_handler(status, _saying(status, *told))


def _saying(status: int, error: str, mend: str) -> Callable[..., Awaitable[Response]]:
    async def say(_: Request, __: Exception) -> Response:
        return _problem(status, error, mend, {})

    return say


def _first(error: RequestValidationError) -> tuple[str, str, dict[str, str]]:
    """The first thing that is wrong with a request, without what was sent."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return "the request is not JSON", 'send a JSON object: {"question": …}', {}
    place = ".".join(str(one) for one in first["loc"][1:]) or "the request"
    said = str(first["msg"])
    if said.startswith("Value error, "):
        what, _, mend = said.removeprefix("Value error, ").partition("; ")
        return what, mend, {}
    return f"{place}: {said}", "/openapi.json says what a question looks like", {}


def _problem(status: int, error: str, mend: str, headers: dict[str, str]) -> Response:
    problem = Problem(error=error, mend=mend or None)
    return JSONResponse(problem.model_dump(exclude_none=True), status, headers)


# ---- documentation ---------------------------------------------------------------------------

_SAID = {
    401: "No token, or a wrong one.",
    404: "No such pool; names those there are.",
    422: "The question cannot be asked as it is.",
    429: "Too many questions of this client; `Retry-After` says when to ask again.",
    503: "Full, or something is away; `Retry-After` says when to ask again.",
    504: "It took too long.",
}


def _responses(model: type[BaseModel], said: str, *statuses: int) -> dict[int | str, Any]:
    told: dict[int | str, Any] = {200: {"model": model, "description": said}}
    always = (401, 404, 503) if 422 not in statuses else (401, 404, 413, 415, 429, 503)
    for status in sorted({*always, *statuses}):
        description = _SAID.get(status, "The request is too large, or is not JSON.")
        told[status] = {"model": Problem, "description": description}
    return told


def _describe(app: FastAPI, *, has_token: bool) -> None:
    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=[
                    {"name": "questions", "description": "What the corpus says."},
                    {"name": "pools", "description": "What there is to ask."},
                ],
            )
            if has_token:
                schema.setdefault("components", {})["securitySchemes"] = {
                    "token": {"type": "http", "scheme": "bearer"}
                }
                schema["security"] = [{"token": []}]
                schema["paths"]["/health"]["get"]["security"] = []
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]

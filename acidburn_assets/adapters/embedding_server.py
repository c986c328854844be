"""An encoder whose vectors a server makes: TEI, vLLM, infinity, whatever speaks `/v1/embeddings`.

The model's files still say what it is: card, tokens, prompts. They are here, the weights are used
once: before the encoder is handed out, the server's vectors of canary texts must be those of the
model in float32 on this machine's CPU. So a server may join a corpus that was begun without it.

Nothing is truncated. What is too long for the model is not sent, and TEI, which cuts what is longer
than it reads and says nothing, is found out: by the tokens that it counted, or where a server
counts none, by two long texts that differ near their end only.
Source: TEI 1.9.3, `--auto-truncate` is true by default; infinity cuts always, and counts characters
unless it is started with `--lengths-via-tokenize`; vLLM refuses with 400.
"""

import asyncio
import base64
import binascii
import logging
import math
import re
import threading
import time
from collections.abc import Coroutine, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

import numpy as np
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from acidburn_assets.adapters import encoder as encoders
from acidburn_assets.adapters import models
from acidburn_assets.adapters.ahead import look_ahead
from acidburn_assets.adapters.encoder import CANARIES, MIN_COSINE, readable_canaries
from acidburn_assets.adapters.openai_refusals import (
    holds_key,
    jitter,
    message_of,
    retry_after_seconds,
    without_key,
)
from acidburn_assets.adapters.tokenizer import ModelTokenizer, read_tokenizer
from acidburn_assets.core.embeddings import (
    Encoded,
    InputType,
    ModelCard,
    plan_windows,
    refuse_long,
)
from acidburn_assets.core.errors import ConfigError, ModelError, ServiceUnavailable

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

BATCH_TOKENS = 8192
"""Of one request, where ACIDBURN_BATCH_TOKENS does not say. The server makes batches of its own;
half of what TEI computes at once by default, 16,384. Chosen, not measured."""

BATCH_INPUTS = 32
"""Texts in one request. Source: TEI 1.9.3, `--max-client-batch-size` is 32 by default; vLLM and
infinity take more."""

REQUESTS = 8
"""At once: 8 times 32 texts are half of the 512 that TEI lets wait by default
(`--max-concurrent-requests` counts texts). Chosen, not measured."""

_CONNECT_SECONDS = 10.0
_GLANCE_SECONDS = 3.0
"""Patience of who only wants to know whether a server answers. Chosen, not measured."""

_MAX_PAUSE_SECONDS = 30.0
_WINDOWS_AHEAD = 1
"""Windows whose requests are under way beside the one that is waited for."""

_PROBED_SHARE = 0.25
"""Of a text of full length, at its end, in which two texts differ that must get two vectors."""

_INPUT_TYPES: tuple[InputType, ...] = ("document", "query")

_FILLER = ("A shard holds chunks of documents, in order. ", "Noch nie war der Winter so mild. ")
"""What texts of full length are made of, and how they end otherwise."""

_GREETING = CANARIES[1:2]
"""What a server is asked first: one text that any model reads."""

_UNKNOWN_MODEL = re.compile(r"invalid model|(model|engine).*(not found|does not exist|unknown)")
"""As vLLM (404) and infinity (400, with several models) say it, in lower case."""

Counted = Literal["tokens", "content", "nothing"]
"""What `usage.prompt_tokens` of a server counts: what the model read (TEI, vLLM), the same without
special tokens (infinity with `--lengths-via-tokenize`), or nothing that helps: infinity counts
characters, others send none."""

_Result = TypeVar("_Result")

_logger = logging.getLogger(__name__)


class Server(NamedTuple):
    """Where vectors are made, and how it is asked."""

    url: str  # up to and with /v1
    model: str  # as the server calls it
    key: SecretStr = SecretStr("")
    batch_inputs: int = BATCH_INPUTS
    n_requests: int = REQUESTS
    timeout_seconds: float = 300.0  # of one request: a CPU may need minutes. Chosen
    patience_seconds: float = 120.0  # a server that loads its model again. Chosen
    retry_seconds: float = 0.5  # of the first pause; each further one may be twice as long


class _Again(Exception):
    """A request failed in a way that may pass."""

    def __init__(self, reason: str, *, pause_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.pause_seconds = pause_seconds  # what the server asked for


class _TooMuch(Exception):
    """The server does not take so much at once, or this text."""


class _TextRefused(ModelError):
    """The server does not take this text, not even alone."""


class _Begun(NamedTuple):
    """A window whose requests are under way."""

    vectors: "Future[np.ndarray]"
    n_tokens: int
    at: float  # when


class ServerEncoder:
    """A model that runs on a server; it must be checked before it is used, see `load_encoder`.

    Attributes:
        card: what the model is, by its files here.
        device: that it is elsewhere.
        dtype: that it is the server's business.
        batch_tokens: most tokens of a request.
    """

    device = "server"
    dtype = "server's"

    def __init__(
        self, server: Server, tokenizer: ModelTokenizer, card: ModelCard, *, batch_tokens: int = 0
    ) -> None:
        """Asks nothing yet.

        Args:
            server: makes the vectors.
            tokenizer: the model's own.
            card: the model's.
            batch_tokens: most tokens of a request; 0 is `BATCH_TOKENS`.

        Raises:
            ConfigError: the URL is none.
        """
        _check_url(server.url)
        self.card = card
        self.batch_tokens = batch_tokens or BATCH_TOKENS
        self._server = server
        self._tokenizer = tokenizer
        self._prompts = {"document": card.document_prompt, "query": card.query_prompt}
        self._batch_inputs = server.batch_inputs  # fewer once the server refused so many
        self._counted: Counted | None = None  # not known before the first answer

    def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
        """Makes one unit vector per text, in the texts' order.

        Args:
            texts: without prompts.
            input_type: which of the model's prompts they get.

        Raises:
            ModelError: a document is blank or longer than the model reads, the server refuses one,
                or its answer is not what was asked for: another model, other vectors, texts cut.
            ConfigError: a query is longer than the model reads, or the server does not know the
                key or the model.
            ServiceUnavailable: the server is away, or too busy, for longer than our patience.
        """
        with closing(self.embed_iter([texts], input_type)) as made:
            return next(made)

    def embed_iter(
        self, windows: Iterable[Sequence[str]], input_type: InputType
    ) -> Generator[Encoded, None, None]:
        """Encodes window after window, each as `encode`; the next one's requests are under way.

        An error, or a caller who wants no more, ends all requests at once.

        Args:
            windows: drawn as they are needed.
            input_type: as in `encode`.

        Raises:
            ModelError, ConfigError, ServiceUnavailable: as `encode`, for the first window that
                fails; the vectors of those before it have been given.
        """
        latest = 0.0  # when the window before was ready: none counts another's seconds

        def finish(begun: _Begun) -> Encoded:
            nonlocal latest
            vectors = begun.vectors.result()
            ready = time.perf_counter()
            seconds, latest = ready - max(begun.at, latest), ready
            return Encoded(vectors, n_tokens=begun.n_tokens, n_truncated=0, seconds=seconds)

        with _requests(self._server) as requests:
            yield from look_ahead(
                windows,
                lambda texts: self._begin(requests, texts, input_type),
                finish,
                lambda begun: begun.vectors.cancel(),
                n_ahead=_WINDOWS_AHEAD,
            )

    def check(self, local: encoders.SentenceEncoder) -> None:
        """Compares the server's model with the same model here.

        Args:
            local: in float32.

        Raises:
            ModelError: the vectors are others, or the server cuts long texts.
            ConfigError, ServiceUnavailable: as `encode`.
        """
        canaries = readable_canaries(self.card, self._tokenizer)
        cosines = [
            float(
                (self.encode(canaries, kind).vectors * local.encode(canaries, kind).vectors)
                .sum(axis=1)
                .min()
            )
            for kind in _INPUT_TYPES
        ]
        if not min(cosines) >= MIN_COSINE:
            raise ModelError(
                f"{self._where} makes other vectors than {self.card.name!r} does here (cosine "
                f"{min(cosines):.4f} of the worst canary, {MIN_COSINE} is needed): it has other "
                "weights, another pooling, or puts a prompt of its own before texts. Start it with "
                "the model that ACIDBURN_MODEL names"
            )
        self._check_length()

    def _check_length(self) -> None:
        """Refuses a server that would cut what the model reads whole."""
        text, other = (_text_of(self._tokenizer, self.card.max_tokens, n) for n in (0, 1))
        try:
            # one by one: a refusal is about the length, not about how many
            first, again, second = (
                self.encode([one], "document").vectors[0] for one in (text, text, other)
            )
        except _TextRefused as refusal:
            _logger.warning("texts as long as %r reads are refused: %s", self.card.name, refusal)
            return
        # a device may not give one text the same vector twice, but nearly
        noise, difference = np.linalg.norm(again - first), np.linalg.norm(second - first)
        if self._counted == "nothing" and difference <= 2 * noise:
            raise ModelError(
                f"{self._where} gives two texts of {self.card.max_tokens} tokens one vector, "
                f"though their last {_PROBED_SHARE:.0%} differ: it cuts long texts. {_UNCUT}"
            )

    @property
    def _where(self) -> str:
        return f"the embedding server at {self._server.url}"

    def _begin(self, requests: "_Requests", texts: Sequence[str], input_type: InputType) -> _Begun:
        at = time.perf_counter()
        encoders.refuse_empty(texts, input_type)
        prompt = self._prompts[input_type]
        inputs = [prompt + text for text in texts]
        ids = self._tokenizer.input_ids(inputs)
        n_tokens = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))  # (n,)
        refuse_long(
            n_tokens, input_type, model=self.card.name, limit=self._tokenizer.max_input_tokens
        )
        vectors = requests.begin(self._encode(requests, inputs, n_tokens))
        return _Begun(vectors, int(n_tokens.sum()), at)

    # ---- in the event loop ----------------------------------------------------------------------

    async def _encode(
        self, requests: "_Requests", inputs: Sequence[str], n_tokens: np.ndarray
    ) -> np.ndarray:
        """Vectors of a window, (n, dim) float32; the first failure ends its other requests."""
        vectors = np.empty((len(inputs), self.card.dim), dtype=np.float32)
        # like lengths together, so that a server that pads has little to pad
        order = np.argsort(-n_tokens, kind="stable")
        windows = plan_windows(
            n_tokens[order], window_tokens=self.batch_tokens, window_rows=self._batch_inputs
        )

        async def fill(rows: np.ndarray) -> None:
            async with requests.gate:
                texts = [inputs[row] for row in rows]
                vectors[rows] = await self._embed(requests.client, texts, n_tokens[rows])

        try:
            async with asyncio.TaskGroup() as tasks:
                for window in windows:
                    tasks.create_task(fill(order[window.start : window.stop]))
        except ExceptionGroup as failures:
            first = failures.exceptions[0]
            raise first from first.__cause__
        return vectors

    async def _embed(
        self, client: "AsyncOpenAI", texts: Sequence[str], n_tokens: np.ndarray
    ) -> np.ndarray:
        """Vectors of a batch, in pieces where the server does not take so much at once."""
        n_rows = len(texts)
        if n_rows <= self._batch_inputs:
            try:
                return await self._ask(client, texts, n_tokens)
            except _TooMuch as refusal:
                if n_rows == 1:
                    raise _TextRefused(
                        f"{self._where} refuses a text of {n_tokens[0]} tokens: {refusal}"
                    ) from refusal.__cause__
                self._batch_inputs = min(self._batch_inputs, n_rows // 2)
                _logger.warning(
                    "%s does not take %d texts at once, from now on %d: %s",
                    self._where,
                    n_rows,
                    self._batch_inputs,
                    refusal,
                )
        pieces = []
        start = 0
        while start < n_rows:
            end = start + self._batch_inputs  # may become fewer on the way
            pieces.append(await self._embed(client, texts[start:end], n_tokens[start:end]))
            start = end
        return np.concatenate(pieces)

    async def _ask(
        self, client: "AsyncOpenAI", texts: Sequence[str], n_tokens: np.ndarray
    ) -> np.ndarray:
        """Sends a request until it is answered or patience ends."""
        clock = asyncio.get_running_loop().time
        end = math.inf
        for n_tries in count():
            try:
                return await self._send(client, texts, n_tokens)
            except _Again as failure:
                end = min(end, clock() + self._server.patience_seconds)
                backoff = min(_MAX_PAUSE_SECONDS, self._server.retry_seconds * 2 ** min(n_tries, 9))
                pause = (failure.pause_seconds or 0.0) + backoff * jitter()
                if clock() + pause > end:
                    raise ServiceUnavailable(
                        f"{self._where} does not answer: {failure}, after {n_tries + 1} tries; "
                        "check that it runs and ACIDBURN_EMBEDDINGS_URL, then try again"
                    ) from failure.__cause__
            await asyncio.sleep(pause)
        raise AssertionError("the loop returns or raises")

    async def _send(
        self, client: "AsyncOpenAI", texts: Sequence[str], n_tokens: np.ndarray
    ) -> np.ndarray:
        """One request.

        Raises:
            _Again: it may be repeated.
            _TooMuch: fewer texts may be taken.
            ConfigError, ModelError: no request can succeed.
        """
        from openai import APIConnectionError, APIStatusError

        try:
            async with asyncio.timeout(self._server.timeout_seconds):
                response = await client.embeddings.with_raw_response.create(
                    model=self._server.model, input=list(texts), encoding_format="base64"
                )
        except APIStatusError as error:
            meaning = await self._meaning(client, error)
            # the server may quote the key, and a cause is shown in tracebacks
            raise meaning from None if holds_key(str(error), self._server.key) else error
        except (APIConnectionError, TimeoutError) as error:
            cause = type(error.__cause__).__name__
            refused = cause in ("ConnectError", "ConnectTimeout")
            late = isinstance(error, TimeoutError) or cause.endswith("Timeout")
            what = f"no answer in {self._server.timeout_seconds:.0f} s" if late else "cut off"
            raise _Again("no connection" if refused else what) from error
        return self._read(response.text, texts, n_tokens)

    async def _meaning(self, client: "AsyncOpenAI", error: "APIStatusError") -> Exception:
        """What a refused request means."""
        status = error.status_code
        said = without_key(message_of(error), self._server.key) or "no reason given"
        if status in (401, 403):
            return ConfigError(
                f"{self._where} does not accept the key (HTTP {status}); set "
                "ACIDBURN_EMBEDDINGS_KEY to the one that it was started with"
            )
        if status == 404 or (status in (400, 422) and _UNKNOWN_MODEL.search(said.casefold())):
            return ConfigError(
                f"{self._where} has no model {self._server.model!r} (HTTP {status}: {said}); "
                f"{await self._list_models(client)}"
            )
        if status in (408, 409, 424, 425, 429) or status >= 500:  # 424: TEI's GPU failed
            pause = retry_after_seconds(error)
            if pause is not None and pause > self._server.patience_seconds:
                return ServiceUnavailable(
                    f"{self._where} asks to wait {pause:.0f} s (HTTP {status}); try again then"
                )
            return _Again(f"HTTP {status}: {said}", pause_seconds=pause)
        if status in (400, 413, 422):
            return _TooMuch(f"HTTP {status}: {said}")
        return ModelError(f"{self._where} refuses (HTTP {status}): {said}")

    async def _list_models(self, client: "AsyncOpenAI") -> str:
        """What to set instead, for an error that is raised anyway."""
        from openai import OpenAIError

        try:
            names = [model.id async for model in client.models.list()]
        except (OpenAIError, ValueError):  # TEI lists none, and has one model only
            return "check that ACIDBURN_EMBEDDINGS_URL ends where /embeddings follows, as in …/v1"
        return f"set ACIDBURN_EMBEDDINGS_MODEL to one that it has: {names}"

    def _read(self, content: str, texts: Sequence[str], n_tokens: np.ndarray) -> np.ndarray:
        """The vectors of an answer, in the texts' order and of unit length.

        Raises:
            ModelError: it is not what was asked for.
        """
        try:
            answer = _Answer.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ModelError(
                f"{self._where} answers with something else than embeddings: {place}: "
                f"{first['msg']}; check ACIDBURN_EMBEDDINGS_URL and what stands in between"
            ) from None  # its text quotes the answer
        if answer.model not in ("", self._server.model):
            raise ModelError(
                f"the model {self._server.model!r} was asked and {answer.model!r} answered at "
                f"{self._server.url}. If that is the model which ACIDBURN_MODEL names, set "
                f"ACIDBURN_EMBEDDINGS_MODEL to {answer.model!r}; otherwise start the server with it"
            )
        if sorted(item.index for item in answer.data) != list(range(len(texts))):
            raise ModelError(
                f"{self._where} answers {len(texts)} texts with {len(answer.data)} vectors, or "
                "numbers them twice"
            )
        self._check_usage(answer.usage, texts, n_tokens)
        vectors = np.empty((len(texts), self.card.dim), dtype=np.float32)
        for item in answer.data:
            vector = item.vector()
            if vector.shape != (self.card.dim,):
                raise ModelError(
                    f"{self._where} makes vectors of {len(vector)} values, {self.card.name!r} has "
                    f"{self.card.dim}: it is another model"
                )
            vectors[item.index] = vector
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)  # (n, 1)
        bad = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
        if len(bad):
            raise ModelError(
                f"{self._where} makes vectors that are zero or not finite, the first of a text of "
                f"{n_tokens[bad[0]]} tokens; start it with float32"
            )
        return np.asarray(vectors / lengths)

    def _check_usage(
        self, usage: "_Usage | None", texts: Sequence[str], n_tokens: np.ndarray
    ) -> None:
        """Refuses an answer for which fewer tokens were read than the texts have."""
        counted = usage.prompt_tokens if usage else None
        n_read = int(n_tokens.sum())
        n_content = n_read - self._tokenizer.n_special_tokens * len(texts)
        if self._counted is None:
            n_chars = sum(map(len, texts))
            exact: dict[int, Counted] = {n_chars: "nothing", n_content: "content", n_read: "tokens"}
            # more than there are is no count of tokens; what it is, the canaries will tell
            is_more = not counted or counted > n_read
            self._counted = exact.get(counted or 0, "nothing" if is_more else "tokens")
        if self._counted == "nothing":
            return
        expected = n_read if self._counted == "tokens" else n_content
        if counted is None or counted < expected:
            raise ModelError(
                f"{self._where} read {counted} tokens of texts that have {expected}: it cuts long "
                f"texts, or has another tokenizer. {_UNCUT}"
            )


_UNCUT = (
    "Start it so that it reads texts whole (TEI: --auto-truncate false, and --max-batch-tokens not "
    "below the model's length)"
)


def load_encoder(
    model: str,
    server: Server,
    *,
    revision: str = "",
    batch_tokens: int = 0,
    hf_token: str = "",
    hub_endpoint: str | None = None,
) -> ServerEncoder:
    """Connects to a server and checks that it has the model.

    The server is asked first: one that is away, or has another model, is told of before weights
    are fetched. Memory: the model in float32 while it is compared.

    Args:
        model: `minilm`, a folder, or `owner/name` on the hub, as for an encoder that runs here.
        server: makes the vectors.
        revision: of a hub's model; "" is its newest.
        batch_tokens: most tokens of a request; 0 is `BATCH_TOKENS`.
        hf_token: Hugging Face token; "" asks the hub as nobody.
        hub_endpoint: None is huggingface.co.

    Raises:
        ModelError: no such model, or the server's is another or reads it otherwise.
        ConfigError: the server does not know the key or the model, or its URL is wrong.
        ServiceUnavailable: the server or the hub did not answer.
    """
    encoder = _connect(model, server, revision, batch_tokens, hf_token, hub_endpoint)
    encoder.encode(_GREETING, "query")
    local = encoders.load_encoder(
        model,
        revision=revision,
        device="cpu",
        dtype="float32",
        hf_token=hf_token,
        hub_endpoint=hub_endpoint,
    )
    encoder.check(local)
    return encoder


def describe_server(model: str, server: Server, *, revision: str = "", hf_token: str = "") -> str:
    """What a server answers, for a person: `http://…/v1: BAAI/bge-m3 answers in 20 ms`.

    Whether its vectors are the model's is not checked: see `load_encoder`.

    Args:
        model: as in `load_encoder`.
        server: is asked for one vector.
        revision: of a hub's model; "" is its newest.
        hf_token: Hugging Face token; "" asks the hub as nobody.

    Raises:
        ModelError, ConfigError, ServiceUnavailable: as `load_encoder`.
    """
    quick = server._replace(timeout_seconds=_GLANCE_SECONDS, patience_seconds=_GLANCE_SECONDS)
    encoder = _connect(model, quick, revision, 0, hf_token, None)
    seconds = encoder.encode(_GREETING, "query").seconds
    return f"{server.url}: {server.model!r} answers in {seconds * 1000:.0f} ms"


def _connect(
    model: str,
    server: Server,
    revision: str,
    batch_tokens: int,
    hf_token: str,
    hub_endpoint: str | None,
) -> ServerEncoder:
    _check_url(server.url)
    card = encoders.describe_model(
        model, revision=revision, hf_token=hf_token, hub_endpoint=hub_endpoint
    )
    files = models.find(model, revision=revision, hf_token=hf_token, hub_endpoint=hub_endpoint)
    tokenizer = read_tokenizer(files, models.read_config(files))
    return ServerEncoder(server, tokenizer, card, batch_tokens=batch_tokens)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"ACIDBURN_EMBEDDINGS_URL is {url!r}; it must look like http://127.0.0.1:8080/v1"
        )


def _text_of(tokenizer: ModelTokenizer, n_tokens: int, ending: int) -> str:
    """A text of so many tokens, or few less; texts with other endings begin alike."""
    n_alike = int(n_tokens * (1 - _PROBED_SHARE)) if ending else n_tokens
    text = _cut(tokenizer, _FILLER[0] * n_alike, n_alike)
    if ending:
        text = _cut(tokenizer, text + _FILLER[ending] * (n_tokens - n_alike), n_tokens)
    while int(tokenizer.count([text])[0]) > n_tokens:  # what is cut may have more tokens
        text = text[:-1]
    return text


def _cut(tokenizer: ModelTokenizer, text: str, n_tokens: int) -> str:
    return text[: int(tokenizer.spans(text)[:n_tokens, 1].max())]


# ---- requests -----------------------------------------------------------------------------------


class _Requests:
    """What runs in the event loop of one `embed_iter`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Server) -> None:
        self._loop = loop
        self.client = _make_client(server)
        self.gate = asyncio.Semaphore(server.n_requests)  # within it one request is under way

    def begin(self, work: Coroutine[Any, Any, _Result]) -> "Future[_Result]":
        """Starts work; its result is waited for elsewhere."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def close(self) -> None:
        """Ends what is under way."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.client.close()


@contextmanager
def _requests(server: Server) -> Iterator[_Requests]:
    """A thread with an event loop, as long as it is needed: nothing outlives it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="embedding-server", daemon=True)
    thread.start()
    try:
        requests = _Requests(loop, server)
        try:
            yield requests
        finally:
            requests.begin(requests.close()).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _make_client(server: Server) -> "AsyncOpenAI":
    from openai import AsyncOpenAI, Timeout

    client = AsyncOpenAI(
        # the client wants one, and would take OPENAI_API_KEY, which is no matter of this server
        api_key=server.key.get_secret_value() or "none",
        base_url=server.url,
        timeout=Timeout(server.timeout_seconds, connect=_CONNECT_SECONDS),
        max_retries=0,  # see ServerEncoder._ask
    )
    # read from OPENAI_ORG_ID and OPENAI_PROJECT_ID
    client.organization = client.project = None
    return client


class _Lenient(BaseModel):
    """The part of an answer that is read; whatever else a server adds is passed over."""

    model_config = ConfigDict(extra="ignore")


class _Usage(_Lenient):
    prompt_tokens: int | None = None


class _Item(_Lenient):
    index: int
    embedding: str | list[float]  # base64 of float32, little-endian; numbers from older servers

    def vector(self) -> np.ndarray:
        """(dim,) float32; empty where it is no base64 of floats."""
        if not isinstance(self.embedding, str):
            return np.array(self.embedding, dtype=np.float32)
        try:
            return np.frombuffer(base64.b64decode(self.embedding, validate=True), dtype="<f4")
        except (binascii.Error, ValueError):
            return np.empty(0, dtype=np.float32)


class _Answer(_Lenient):
    data: list[_Item]
    model: str = ""
    usage: _Usage | None = None

"""Labels that a language model writes: Grok, or any service that speaks OpenAI's chat completions.

Keyless labels come first (`core.labels`); with a key, this replaces them one by one. It asks in
parallel within the service's rate limits, pays no answer twice (every answer is cached before it
is used), and never spends past its budget: the worst a call can cost is reserved before it is
sent, and settled from the bill after.

Passages are other people's text, so they are quoted as data: escaped, between markers, under the
instruction that nothing between the markers is an instruction.
"""

import asyncio
import hashlib
import html
import json
import random
import re
import time
import unicodedata
from collections import deque
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from acidburn_assets.core.cluster_map import MAX_TITLE_CHARS, Label
from acidburn_assets.core.errors import (
    AcidburnError,
    ConfigError,
    ModelError,
    ServiceUnavailable,
)

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI
    from openai.types.chat import ChatCompletion

PROMPT_VERSION = 1
"""Part of every cache key: raise it when the prompt or what is read of an answer changes."""

MAX_TITLE_WORDS = 8
MAX_SUMMARY_WORDS = 40
MAX_KEYWORDS = 6
_EXEMPLAR_CHARS = 400
"""Of each exemplar, so that ten of them and the rest stay near 1,200 tokens. Chosen."""

_ANSWER_TOKENS = 400
"""A label has 120 tokens at most; the rest is for other languages and odd spellings. Chosen."""
_REASONING_TOKENS = 1_600
"""Room for a model that cannot be told to leave reasoning out, on top. Chosen."""

_MAX_TRIES = 4
_MAX_WAIT_SECONDS = 120.0
_MAX_FAILURES_IN_A_ROW = 5
"""Then something is wrong with more than one cluster: nothing further is asked. Chosen."""

_TICKS_PER_USD = 10**10
"""xAI bills in ticks. Source: docs.x.ai, Cost Tracking, October 2026."""


class Price(NamedTuple):
    """USD per million tokens."""

    input: float
    cached_input: float
    output: float
    refusal: float = 0.0
    """USD for one request that the service refuses under its usage guidelines."""


PRICES: Mapping[str, Price] = {
    "grok-4.3*": Price(1.25, 0.20, 2.50, 0.05),
    "grok-4.20*": Price(1.25, 0.20, 2.50, 0.05),
    "grok-4.5*": Price(2.00, 0.50, 6.00, 0.05),
    "grok-4.6*": Price(2.00, 0.50, 6.00, 0.05),
    "grok-4.7*": Price(2.00, 0.50, 6.00, 0.05),
}
"""List prices by pattern of the model's name, for prompts under 200,000 tokens.

Source: docs.x.ai, Models and Pricing, October 2026; the usage guidelines violation fee, 2025.
"""

_EFFORTS: Mapping[str, Literal["none", "low"]] = {
    "grok-4.3*": "none",
    "grok-4.5*": "low",
    "grok-4.6*": "low",
    "grok-4.7*": "low",
}
"""The least reasoning a model can be asked for; others refuse the field.

A name needs no reasoning, and the tokens are billed as output: with the default effort of
grok-4.5 to 4.7, high, they cost more than everything else together.
Source: docs.x.ai, Models, October 2026; github.com/neavo/LinguaGacha issue 771.
"""


class LabelRequest(NamedTuple):
    """What a model is shown of a cluster."""

    cluster_id: int
    keywords: Sequence[str]
    central: Sequence[str]  # texts of members near the centroid
    diverse: Sequence[str]  # texts that together show its breadth
    edge: Sequence[str]  # texts from its border
    neighbours: Sequence[str]  # titles of the nearest clusters


class Call(NamedTuple):
    """One request to the service, for the ledger."""

    cluster_id: int
    outcome: str  # "answered", or why there is no answer
    usd: float
    is_billed: bool  # False: no bill came, `usd` is the worst case
    n_input_tokens: int
    n_cached_tokens: int  # of the input
    n_output_tokens: int  # reasoning included
    seconds: float


class LabelRun(NamedTuple):
    """What came of one `label`."""

    labels: dict[int, Label]
    failures: dict[int, str]  # clusters that were asked for in vain, and why
    usd: float  # spent by this run; calls without a bill count at their worst case
    n_cached: int  # labels that cost nothing this time
    n_failed: int
    n_calls: int
    status: Literal["complete", "capped"]
    stop_reason: str  # "" where complete
    calls: tuple[Call, ...]  # the ledger, in the order in which calls ended


class LabelCache(Protocol):
    """Where answers are kept, by content address. Called from several threads."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, content: bytes) -> None: ...


class Labeler:
    """Asks a model for labels within a budget."""

    def __init__(
        self,
        api_key: SecretStr,
        *,
        base_url: str,
        model: str,
        budget_usd: float,
        cache: LabelCache,
        prices: Mapping[str, Price] = PRICES,
        allow_model_substitution: bool = False,
        n_parallel: int = 16,
        requests_per_second: float = 16.0,
        tokens_per_minute: float = 4_000_000.0,
        timeout_seconds: float = 60.0,
        retry_seconds: float = 1.0,
    ) -> None:
        """Checks what can be checked without a call.

        Args:
            api_key: of the service.
            base_url: of the service, `https://api.x.ai/v1`.
            model: its name for the model.
            budget_usd: no call of one `label` is sent that could pass this.
            cache: of answers.
            prices: by pattern of the model's name.
            allow_model_substitution: take answers that another model gave.
            n_parallel: calls at a time.
            requests_per_second: at most; a 429 halves it for a while. The default is less than
                half of what xAI grants the lowest tier. Source: docs.x.ai, October 2026.
            tokens_per_minute: at most, input and output.
            timeout_seconds: of one call.
            retry_seconds: of the first pause before a call is repeated; each further one doubles.

        Raises:
            ConfigError: there is no key, or no price for the model.
        """
        if not api_key.get_secret_value():
            raise ConfigError("no API key for labels; set XAI_API_KEY, or label without a model")
        price = _by_pattern(prices, model)
        if price is None:
            raise ConfigError(
                f"no price is known for the model {model!r}, so its cost cannot be capped; "
                f"known are {sorted(prices)}. Pass its USD per million tokens as `prices`"
            )
        self.model = model
        self.budget_usd = budget_usd
        self.price: Price = price
        self.allow_model_substitution = allow_model_substitution
        self.n_parallel = n_parallel
        self.requests_per_second = requests_per_second
        self.tokens_per_minute = tokens_per_minute
        self.timeout_seconds = timeout_seconds
        self.retry_seconds = retry_seconds
        self._api_key = api_key
        self._base_url = base_url
        self._cache = cache

    def estimate(self, requests: Sequence[LabelRequest]) -> float:
        """USD that labelling should cost, nothing being cached. Spends nothing.

        Four bytes of input make a token, and an answer has 120. Source: computed for English;
        reasoning counted as 300 tokens where it cannot be left out, chosen.
        """
        effort = _by_pattern(_EFFORTS, self.model)
        n_output = 120 if effort == "none" or "non-reasoning" in self.model else 420
        n_input = sum(_n_bytes(_messages(request)) / 4 for request in requests)
        tokens_usd = n_input * self.price.input + len(requests) * n_output * self.price.output
        return tokens_usd / 10**6

    def label(self, requests: Sequence[LabelRequest]) -> LabelRun:
        """Labels clusters, in the order given: what matters most comes first.

        The first uncached request goes alone: it finds out whether the key, the model and its
        parameters are right before many are sent. A budget that is used up ends the run as
        `capped`; so do credits that are used up at the service. A request that fails leaves its
        cluster unlabelled, under `failures`.

        Raises:
            ConfigError: the service does not know the key or the model.
            ModelError: another model answered, or answers cannot be used.
            ServiceUnavailable: the service is away; what was answered is in the cache.
        """
        return asyncio.run(_Run(self).label(requests))

    def client(self) -> "AsyncOpenAI":
        """A client of the service that holds the key."""
        from openai import AsyncOpenAI

        client = AsyncOpenAI(
            api_key=self._api_key.get_secret_value(),
            base_url=self._base_url,
            timeout=self.timeout_seconds,
            max_retries=0,  # every repetition is reserved first, see _Run._call
        )
        # read from OPENAI_ORG_ID and OPENAI_PROJECT_ID, which are no matter of this service
        client.organization = client.project = None
        return client

    def read_cache(self, key: str) -> Label | None:
        """The label under a key, unless another model gave it."""
        content = self._cache.get(key)
        if content is None:
            return None
        label = Label.from_bytes(content, key=key)
        return label if self.accepts(label.model) else None

    def write_cache(self, label: Label) -> None:
        """Keeps a label under its own key."""
        self._cache.put(label.key, label.to_bytes())

    def accepts(self, answered: str) -> bool:
        """True where the model that answered is the one that was asked, or may stand in for it.

        A date behind the name is a snapshot of the same model.
        """
        return self.allow_model_substitution or bool(
            re.fullmatch(
                re.escape(self.model.removesuffix("-latest")) + r"(-\d{4,8})?(-latest)?", answered
            )
        )

    def without_key(self, text: str) -> str:
        """A message of the service, short and without the key that it may quote."""
        shown = text.replace(self._api_key.get_secret_value(), "***")
        return shown if len(shown) <= 300 else shown[:299] + "…"


_Entry = TypeVar("_Entry")


def _by_pattern(table: Mapping[str, _Entry], model: str) -> _Entry | None:
    return next((table[pattern] for pattern in table if fnmatchcase(model, pattern)), None)


# ---- one run --------------------------------------------------------------------------------


class _OutOfMoney(Exception):  # noqa: N818 - ends a run, which is no error
    """No further call fits into the budget, or the service has no credits left."""


class _NoAnswer(Exception):  # noqa: N818 - ends one request, which is counted
    """One request came to nothing; the message says why."""

    def __init__(self, reason: str, *, is_transient: bool = False, is_refusal: bool = False):
        super().__init__(reason)
        self.is_transient = is_transient
        self.is_refusal = is_refusal


class _Run:
    """The state of one `Labeler.label`; lives in one event loop."""

    def __init__(self, labeler: Labeler) -> None:
        self._labeler = labeler
        self._ledger = _Ledger(labeler.budget_usd)
        self._pace = _Pace(labeler.requests_per_second, labeler.tokens_per_minute)
        # what a model may turn out not to know; dropped for the rest of the run when it does
        self._optional: dict[str, Any] = {"temperature": 0.0}
        effort = _by_pattern(_EFFORTS, labeler.model)
        if effort is not None:
            self._optional["reasoning_effort"] = effort
        self._intended = dict(self._optional)
        self._pending: deque[LabelRequest] = deque()
        self._labels: dict[int, Label] = {}
        self._failures: dict[int, str] = {}
        self._calls: list[Call] = []
        self._n_failures_in_a_row = 0
        self._stop_reason = ""
        self._error: AcidburnError | None = None

    async def label(self, requests: Sequence[LabelRequest]) -> LabelRun:
        await self._take_cached(requests)
        n_cached = len(self._labels)
        self._pending.extend(
            request for request in requests if request.cluster_id not in self._labels
        )
        if self._pending:
            async with self._labeler.client() as client:
                await self._work(client, limit=1)
                n_workers = min(self._labeler.n_parallel, len(self._pending))
                await asyncio.gather(*(self._work(client) for _ in range(n_workers)))
        if self._error is not None:
            raise self._error
        return LabelRun(
            labels=dict(sorted(self._labels.items())),
            failures=dict(sorted(self._failures.items())),
            usd=self._ledger.spent_usd,
            n_cached=n_cached,
            n_failed=len(self._failures),
            n_calls=len(self._calls),
            status="capped" if self._stop_reason else "complete",
            stop_reason=self._stop_reason,
            calls=tuple(self._calls),
        )

    async def _take_cached(self, requests: Sequence[LabelRequest]) -> None:
        gate = asyncio.Semaphore(self._labeler.n_parallel)

        async def look(request: LabelRequest) -> None:
            async with gate:
                label = await asyncio.to_thread(self._labeler.read_cache, self._key(request))
            if label is not None:
                self._labels[request.cluster_id] = label

        await asyncio.gather(*(look(request) for request in requests))

    def _key(self, request: LabelRequest) -> str:
        """Content address of an answer: all that decides it."""
        question = {
            "prompt_version": PROMPT_VERSION,
            "model": self._labeler.model,
            "parameters": self._intended,
            "schema": _ANSWER_SCHEMA,
            "messages": _messages(request),
        }
        canonical = json.dumps(question, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    async def _work(self, client: "AsyncOpenAI", *, limit: int | None = None) -> None:
        """Takes requests until none is left, or one finds out that no further one should go."""
        n_done = 0
        while self._pending and not self._stop_reason and self._error is None and n_done != limit:
            request = self._pending.popleft()
            n_done += 1
            try:
                self._labels[request.cluster_id] = await self._ask(client, request)
                self._n_failures_in_a_row = 0
            except _OutOfMoney as reason:
                self._stop_reason = self._stop_reason or str(reason)
            except _NoAnswer as reason:
                self._failures[request.cluster_id] = str(reason)
                self._count_failure(reason)
            except AcidburnError as error:
                # calls in flight are paid: they end and are cached before this is raised
                self._error = self._error or error

    def _count_failure(self, reason: _NoAnswer) -> None:
        if reason.is_refusal:
            return  # says something about the passages, not about the service
        self._n_failures_in_a_row += 1
        if self._n_failures_in_a_row < _MAX_FAILURES_IN_A_ROW or self._error is not None:
            return
        kind = ServiceUnavailable if reason.is_transient else ModelError
        self._error = kind(
            f"{self._n_failures_in_a_row} label requests in a row failed, the last with: {reason}. "
            f"{len(self._labels)} labels are in the cache and cost nothing when this runs again"
        )

    async def _ask(self, client: "AsyncOpenAI", request: LabelRequest) -> Label:
        """Asks, and once more where the answer is not what was asked for."""
        messages = _messages(request)
        usd = 0.0
        for is_repair in (False, True):
            answer = await self._call(client, request.cluster_id, messages)
            usd += answer.usd
            label = _parse(answer.content)
            if isinstance(label, _Answer):
                break
            if is_repair:
                raise _NoAnswer(f"malformed answer, twice: {label}")
            messages = [
                *messages,
                {"role": "assistant", "content": answer.content},
                {"role": "user", "content": f"This cannot be used: {label}. Answer again."},
            ]
        made = Label(
            title=label.title,
            summary=label.summary,
            keywords=tuple(label.keywords),
            model=answer.model,
            key=self._key(request),
            usd=usd,
        )
        await asyncio.to_thread(self._labeler.write_cache, made)
        if not self._labeler.accepts(answer.model):
            raise ModelError(
                f"asked the model {self._labeler.model!r}, but {answer.model!r} answered: a "
                "retired model is redirected silently, at another price. Set "
                f"ACIDBURN_LABEL_MODEL to {answer.model!r}, or allow the substitution"
            )
        return made

    async def _call(
        self, client: "AsyncOpenAI", cluster_id: int, messages: list[dict[str, str]]
    ) -> "_Reply":
        """Sends one request until it is answered, at most `_MAX_TRIES` times."""
        from openai import APIConnectionError, APIStatusError

        n_tries = 0
        while True:
            parameters = {
                **self._optional,
                "model": self._labeler.model,
                "messages": messages,
                "response_format": _RESPONSE_FORMAT,
                "max_completion_tokens": self._max_output_tokens(),
            }
            worst = self._worst_ticks(messages)
            if not self._ledger.reserve(worst):
                raise _OutOfMoney(
                    f"another call could cost {worst / _TICKS_PER_USD:.4f} USD, and "
                    f"{self._ledger.left_usd:.4f} of {self._labeler.budget_usd:.2f} are left; "
                    "raise ACIDBURN_LABEL_BUDGET_USD"
                )
            await self._pace.wait(_n_bytes(messages) // 4 + _ANSWER_TOKENS)
            started = time.monotonic()
            n_tries += 1
            try:
                async with asyncio.timeout(self._labeler.timeout_seconds):
                    completion = await client.chat.completions.create(**parameters)
            except APIStatusError as error:
                self._settle_error(cluster_id, error, worst, time.monotonic() - started)
                dropped = _unknown_parameter(error, self._optional)
                if dropped is not None:
                    del self._optional[dropped]
                    n_tries -= 1  # asking again without it is no repetition
                    continue
                self._raise_if_final(error)
                if n_tries == _MAX_TRIES:
                    raise _NoAnswer(
                        f"HTTP {error.status_code}, {n_tries} times", is_transient=True
                    ) from error
                pause = _retry_after(error)
                if error.status_code == 429:
                    self._pace.slow_down(pause or 0.0)
            except (APIConnectionError, TimeoutError) as error:
                # the service may have answered, and billed, what never arrived here
                is_sent = type(error.__cause__).__name__ not in ("ConnectError", "ConnectTimeout")
                self._ledger.settle(worst, worst if is_sent else 0)
                outcome = "no connection" if not is_sent else "no answer in time"
                self._record(cluster_id, outcome, worst if is_sent else 0, None, started)
                if n_tries == _MAX_TRIES:
                    raise _NoAnswer(f"{outcome}, {n_tries} times", is_transient=True) from error
                pause = None
            else:
                return self._settle(cluster_id, completion, worst, started)
            backoff = self._labeler.retry_seconds * 2 ** (n_tries - 1)
            await asyncio.sleep(pause if pause is not None else backoff * _jitter())

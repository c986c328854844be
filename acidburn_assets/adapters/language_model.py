"""A language model behind a service that speaks OpenAI's chat completions, xAI's first of all:
what it costs, what it can do, what its refusals mean, and one way to ask it.

Who asks pays: a `Payer` sets aside the worst that a call can cost before it is sent, and is told
the bill after. What is asked is the business of `labeler` and `advisor`: messages, and a `Form`
that the answer must have. An answer in another form is asked for once more; a call that failed in a
way that may pass is repeated.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from acidburn_assets.adapters.openai_refusals import (
    holds_key,
    jitter,
    message_of,
    retry_after_seconds,
    without_key,
)
from acidburn_assets.core.errors import ConfigError, ModelError, ServiceUnavailable

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

_REASONING_TOKENS = 1_600
"""Room for a model that cannot be told to leave reasoning out, on top. Chosen."""

_MAX_TRIES = 4
_MAX_WAIT_SECONDS = 120.0

TICKS_PER_USD = 10**10
"""xAI bills in ticks. Source: docs.x.ai, Cost Tracking, October 2026."""

Messages = list[dict[str, str]]
Value = TypeVar("Value")
Entry = TypeVar("Entry")


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

Neither a name nor a choice among a few passages needs reasoning, and its tokens are billed as
output: with the default effort of grok-4.5 to 4.7, high, they cost more than everything else
together.
Source: docs.x.ai, Models, October 2026; github.com/neavo/LinguaGacha issue 771.
"""


def read_prices(text: str) -> dict[str, Price]:
    """Prices that a person set, before those that are known.

    Args:
        text: `pattern=input/cached input/output`, or with `/refusal` behind it, separated by
            commas: `grok-5*=3/0.75/15/0.05, qwen3=0/0/0`.

    Raises:
        ConfigError: it is something else.
    """
    prices = {}
    for entry in filter(None, (entry.strip() for entry in text.split(","))):
        pattern, _, usd = entry.partition("=")
        if not pattern.strip() or not re.fullmatch(r"\d+(\.\d+)?(/\d+(\.\d+)?){2,3}", usd.strip()):
            raise ConfigError(
                f"ACIDBURN_PRICES has {entry!r}; it must be MODEL=INPUT/CACHED/OUTPUT in USD per "
                "million tokens, such as grok-4.3*=1.25/0.20/2.50, and /FEE where a refused "
                "request costs one"
            )
        prices[pattern.strip()] = Price(*map(float, usd.split("/")))
    return prices | {pattern: PRICES[pattern] for pattern in PRICES if pattern not in prices}


# ---- what came of it ------------------------------------------------------------------------


class OutOfMoney(Exception):
    """No further call fits into the budget, or the service has no credits left.

    Args:
        reason: for people.
        is_at_service: the service has no credits left.
    """

    def __init__(self, reason: str, *, is_at_service: bool = False) -> None:
        super().__init__(reason)
        self.is_at_service = is_at_service


class NoAnswer(Exception):
    """A request came to nothing.

    Args:
        reason: for people.
        is_transient: the same request may be answered later.
        is_refusal: it is about what was asked, not about the service.
    """

    def __init__(
        self, reason: str, *, is_transient: bool = False, is_refusal: bool = False
    ) -> None:
        super().__init__(reason)
        self.is_transient = is_transient
        self.is_refusal = is_refusal


class _Again(Exception):
    """A call failed in a way that may pass."""

    def __init__(
        self, reason: str, *, pause_seconds: float | None = None, unknown: str | None = None
    ) -> None:
        super().__init__(reason)
        self.pause_seconds = pause_seconds  # what the service asked for
        self.unknown = unknown  # parameter that the model does not know


class Bill(NamedTuple):
    """What one call cost."""

    usd: float
    is_billed: bool  # False: no bill came, `usd` is the worst case
    n_input_tokens: int = 0
    n_cached_tokens: int = 0  # of the input
    n_output_tokens: int = 0  # reasoning included


class Reply(NamedTuple):
    """What one call was answered with."""

    content: str
    model: str
    usd: float
    is_cut_off: bool


class Read(NamedTuple, Generic[Value]):
    """What was read of an answer."""

    value: Value | None  # None: nothing can be used
    complaint: str = ""  # what is wrong with it, for the model to mend


class Form(NamedTuple, Generic[Value]):
    """What an answer must look like."""

    response_format: Mapping[str, Any]
    n_tokens: int  # of the longest answer, reasoning aside
    read: Callable[[str], Read[Value]]


class Answered(NamedTuple, Generic[Value]):
    """What came of a question."""

    value: Value | None
    complaint: str  # what is wrong with `value`, or why there is none
    model: str  # that answered
    usd: float  # of the answers, not of calls that failed


class AnswerCache(Protocol):
    """Where answers are kept, by content address. Called from several threads."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, content: bytes) -> None: ...


class Payer(Protocol):
    """Who pays for the calls of one question."""

    async def reserve(self, worst_usd: float) -> None:
        """Sets aside what the next call can cost.

        Raises:
            OutOfMoney: that is too much; nothing is set aside.
        """

    def settle(self, bill: Bill, outcome: str, seconds: float) -> None:
        """Books what it did cost. Called once for each `reserve` that returned.

        Args:
            bill: of the call.
            outcome: "answered", or why there is no answer, in words that tell nothing of the key.
            seconds: since it was sent.
        """


# ---- the model ------------------------------------------------------------------------------


class LanguageModel:
    """A model at a service: its key, its price, and what it can be asked for."""

    def __init__(
        self,
        api_key: SecretStr,
        *,
        base_url: str,
        model: str,
        model_setting: str,
        prices: Mapping[str, Price] = PRICES,
        allow_model_substitution: bool = False,
        timeout_seconds: float = 60.0,
        retry_seconds: float = 1.0,
    ) -> None:
        """Checks what can be checked without a call.

        Args:
            api_key: of the service.
            base_url: of the service, `https://api.x.ai/v1`.
            model: its name for the model.
            model_setting: name of the setting that names the model, for errors.
            prices: by pattern of the model's name.
            allow_model_substitution: take answers that another model gave.
            timeout_seconds: of one call.
            retry_seconds: of the first pause before a call is repeated; each further one doubles.

        Raises:
            ConfigError: there is no key, no such URL, or no price for the model.
        """
        if not api_key.get_secret_value():
            raise ConfigError("no API key for a language model; set XAI_API_KEY, or do without one")
        _check_url(base_url)
        price = _by_pattern(prices, model)
        if price is None:
            raise ConfigError(
                f"no price is known for the model {model!r}, so its cost cannot be capped; "
                f"known are {sorted(prices)}. Set ACIDBURN_PRICES to its USD per million tokens: "
                f"{model}=input/cached input/output"
            )
        self.name = model
        self.price: Price = price
        self.effort = _by_pattern(_EFFORTS, model)
        self.timeout_seconds = timeout_seconds
        self.retry_seconds = retry_seconds
        self.allow_model_substitution = allow_model_substitution
        self._api_key = api_key
        self._base_url = base_url
        self._model_setting = model_setting

    @property
    def parameters(self) -> dict[str, Any]:
        """Of each request, unless the model turns out not to know one."""
        known: dict[str, Any] = {"temperature": 0.0}
        if self.effort is not None:
            known["reasoning_effort"] = self.effort
        return known

    def is_silent(self, parameters: Mapping[str, Any]) -> bool:
        """True where it answers without reasoning first."""
        return parameters.get("reasoning_effort") == "none" or "non-reasoning" in self.name

    def n_output_tokens(self, form: Form[Any], parameters: Mapping[str, Any]) -> int:
        """The most that an answer may have, reasoning included."""
        return form.n_tokens + (0 if self.is_silent(parameters) else _REASONING_TOKENS)

    def worst_usd(
        self, messages: Messages, form: Form[Any], parameters: Mapping[str, Any] | None = None
    ) -> float:
        """The most that a call can cost: no tokenizer makes more tokens than bytes."""
        n_output = self.n_output_tokens(form, self.parameters if parameters is None else parameters)
        n_input = n_bytes(messages, form.response_format)
        return (n_input * self.price.input + n_output * self.price.output) / 10**6

    def client(self) -> "AsyncOpenAI":
        """A client of the service that holds the key."""
        from openai import AsyncOpenAI

        client = AsyncOpenAI(
            api_key=self._api_key.get_secret_value(),
            base_url=self._base_url,
            timeout=self.timeout_seconds,
            max_retries=0,  # every repetition is reserved first, see Session._call
        )
        # read from OPENAI_ORG_ID and OPENAI_PROJECT_ID, which are no matter of this service
        client.organization = client.project = None
        return client

    def check(self) -> None:
        """Asks the service whether it has the model; costs nothing.

        Raises:
            ConfigError: the service does not know the key or the model.
            ServiceUnavailable: the service is away, or does not list its models.
        """
        from openai import APIConnectionError, APIStatusError

        async def ask() -> None:
            async with self.client() as client:
                await client.models.retrieve(self.name)

        try:
            asyncio.run(ask())
        except APIStatusError as error:
            meaning = self.meaning(error, {})
            if not isinstance(meaning, ConfigError):
                meaning = ServiceUnavailable(
                    f"{self._base_url} does not say whether it has {self.name!r}: {meaning}"
                )
            # the service may quote the key, and a cause is shown in tracebacks
            raise meaning from None if self.holds_key(str(error)) else error
        except APIConnectionError as error:
            raise ServiceUnavailable(
                f"nothing answers at {self._base_url}; check ACIDBURN_LABEL_BASE_URL"
            ) from error

    def accepts(self, answered: str) -> bool:
        """True where the model that answered is the one that was asked, or may stand in for it.

        A date behind the name is a snapshot of the same model.
        """
        return self.allow_model_substitution or bool(
            re.fullmatch(
                re.escape(self.name.removesuffix("-latest")) + r"(-\d{4,8})?(-latest)?", answered
            )
        )

    def refuse_other(self, answered: str) -> None:
        """Sees to it that the model that was asked is the one that answered.

        Raises:
            ModelError: it is not.
        """
        if not self.accepts(answered):
            raise ModelError(
                f"the model {self.name!r} was asked and {answered!r} answered: "
                "services redirect retired models silently, at another price. Set "
                f"{self._model_setting} to {answered!r}, or allow the substitution"
            )

    def holds_key(self, text: str) -> bool:
        """True where a message quotes the key."""
        return holds_key(text, self._api_key)

    def without_key(self, text: str) -> str:
        """A message of the service, short and without the key that it may quote."""
        return without_key(text, self._api_key)

    def meaning(self, error: "APIStatusError", parameters: Mapping[str, Any]) -> Exception:
        """What a refused call means for those that follow.

        Args:
            error: the refusal.
            parameters: that the call had and could do without.
        """
        status, message = error.status_code, message_of(error)
        said, quoted = message.casefold(), self.without_key(message)
        if "usage guidelines" in said or "safety_check" in said:
            return NoAnswer(f"refused under the usage guidelines: {quoted}", is_refusal=True)
        if "credits" in said or "spending limit" in said:
            # xAI says this as 429 and as 403. Source: github.com/continuedev/continue issue 10373
            return OutOfMoney(
                f"the service has no credits left for this key: {quoted}", is_at_service=True
            )
        if status == 401 or "api key" in said:
            # xAI says this as 400. Source: github.com/i-am-bee/beeai-framework issue 447
            return ConfigError(
                f"the service does not know the API key (HTTP {status}); "
                "check XAI_API_KEY and ACIDBURN_LABEL_BASE_URL"
            )
        if status in (400, 422) and (unknown := _names_parameter(said, parameters)):
            return _Again(f"{unknown} is unknown", pause_seconds=0.0, unknown=unknown)
        if status in (403, 404):
            return ConfigError(
                f"the service refuses the model {self.name!r} (HTTP {status}): {quoted}; "
                f"check {self._model_setting}"
            )
        if status in (408, 409, 429) or status >= 500:
            return _Again(f"HTTP {status}", pause_seconds=retry_after_seconds(error))
        return NoAnswer(f"HTTP {status}: {quoted}")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        has_password = parts.username is not None or parts.password is not None
    except ValueError:  # brackets that do not match
        is_usable = has_password = False
    if has_password:
        raise ConfigError(
            "ACIDBURN_LABEL_BASE_URL holds credentials, and URLs are shown; set XAI_API_KEY instead"
        )
    if not is_usable:
        raise ConfigError(
            f"ACIDBURN_LABEL_BASE_URL is {url!r}, no URL of a service; it looks like "
            "https://api.x.ai/v1"
        )


def _by_pattern(table: Mapping[str, Entry], model: str) -> Entry | None:
    return next((table[pattern] for pattern in table if fnmatchcase(model, pattern)), None)


def _names_parameter(said: str, parameters: Mapping[str, Any]) -> str | None:
    """The parameter that an error complains of: reasoning_effort, reasoningEffort."""
    letters = re.sub(r"[^a-z]", "", said)
    return next((name for name in parameters if name.replace("_", "") in letters), None)


def n_bytes(messages: Messages, response_format: Mapping[str, Any]) -> int:
    """Of a request, the schema and what the service puts around messages included."""
    around = len(json.dumps(response_format)) + 16 * len(messages)
    return around + sum(len(message["content"].encode()) for message in messages)


# ---- asking ---------------------------------------------------------------------------------


class Pace:
    """Spaces calls by requests and tokens; halved by a 429, raised again by answers."""

    def __init__(self, requests_per_second: float, tokens_per_minute: float) -> None:
        self._request_seconds = 1 / requests_per_second
        self._token_seconds = 60 / tokens_per_minute
        self._share = 1.0  # of the limits
        self._next = 0.0  # when the next call may start, in the loop's time

    async def wait(self, n_tokens: int) -> None:
        """Returns when the next call may start."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._next)
        seconds = max(self._request_seconds, n_tokens * self._token_seconds)
        self._next = start + seconds / self._share
        await asyncio.sleep(start - now)

    def slow_down(self) -> None:
        """The service said that it is too much."""
        self._share = max(self._share / 2, 1 / 64)

    def speed_up(self) -> None:
        """The service answered."""
        self._share = min(1.0, self._share + 1 / 64)


class Session:
    """Asks one model; lives in one event loop."""

    def __init__(
        self,
        model: LanguageModel,
        client: "AsyncOpenAI",
        pace: Pace,
        *,
        n_tries: int = _MAX_TRIES,
    ) -> None:
        """Nothing is sent yet.

        Args:
            model: that is asked.
            client: of its service, from `LanguageModel.client`; whoever made it closes it.
            pace: of all calls.
            n_tries: how often a call is sent at most until it is answered.
        """
        self._model = model
        self._client = client
        self._pace = pace
        self._n_tries = n_tries
        self._intended = model.parameters
        self._optional = dict(self._intended)  # less what the model turns out not to know

    async def ask(
        self,
        messages: Messages,
        form: Form[Value],
        payer: Payer,
        *,
        ends_at: float | None = None,
    ) -> Answered[Value]:
        """Asks, and once more where the answer is not what was asked for.

        Where the second answer cannot be used either, what could be used of the first is.

        Args:
            messages: the question.
            form: of its answer.
            payer: of its calls.
            ends_at: when nobody waits for the answer any more, in the loop's time.

        Returns:
            The answer, of whatever model: see `LanguageModel.refuse_other`.

        Raises:
            OutOfMoney: a call does not fit into the budget, or the service has no credits left.
            NoAnswer: the request came to nothing.
            ConfigError: no request can succeed.
        """
        first = await self._call(messages, form, payer, ends_at)
        read = _read(first, form)
        if not read.complaint or not self._model.accepts(first.model):
            return Answered(read.value, read.complaint, first.model, first.usd)
        complaint = (
            f"This answer cannot be used: {read.complaint}. Answer again, with the JSON only."
        )
        said = [{"role": "assistant", "content": first.content}] if first.content else []
        asked_again = [*messages, *said, {"role": "user", "content": complaint}]
        try:
            second = await self._call(asked_again, form, payer, ends_at)
        except (OutOfMoney, NoAnswer):
            if read.value is None:
                raise
            return Answered(read.value, read.complaint, first.model, first.usd)
        usd = first.usd + second.usd
        again = _read(second, form)
        if again.value is None and read.value is not None and self._model.accepts(second.model):
            return Answered(read.value, read.complaint, first.model, usd)
        return Answered(again.value, again.complaint, second.model, usd)

    async def _call(
        self, messages: Messages, form: Form[Any], payer: Payer, ends_at: float | None
    ) -> Reply:
        """Sends a request until it is answered, `n_tries` times at most."""
        for n_tries in range(1, self._n_tries + 1):
            try:
                return await self._send(messages, form, payer, ends_at)
            except _Again as failure:
                pause = failure.pause_seconds
                if pause is not None and pause > _MAX_WAIT_SECONDS:
                    raise NoAnswer(
                        f"{failure}, and a request to wait {pause:.0f} s", is_transient=True
                    ) from failure
                if n_tries == self._n_tries:
                    raise NoAnswer(f"{failure}, {n_tries} times", is_transient=True) from failure
                if pause is None:
                    # full jitter, so that workers that failed together do not return together
                    pause = self._model.retry_seconds * 2 ** (n_tries - 1) * jitter()
                if ends_at is not None and pause >= _seconds_until(ends_at):
                    raise NoAnswer(
                        f"{failure}, and no time is left to try again", is_transient=True
                    ) from failure
            await asyncio.sleep(pause)
        raise AssertionError("the loop returns or raises")

    async def _send(
        self, messages: Messages, form: Form[Any], payer: Payer, ends_at: float | None
    ) -> Reply:
        """Reserves, sends and settles one call.

        Raises:
            OutOfMoney: nothing was sent, or the service has no credits left.
            _Again: the call may be repeated.
            NoAnswer: it may not.
            ConfigError: no call can succeed.
        """
        from openai import APIConnectionError, APIStatusError

        price = self._model.price
        n_output = self._model.n_output_tokens(form, self._optional)
        worst_usd = self._model.worst_usd(messages, form, self._optional)
        timeout_seconds = self._model.timeout_seconds
        if ends_at is not None:
            timeout_seconds = min(timeout_seconds, _seconds_until(ends_at))
            if timeout_seconds <= 0:
                raise NoAnswer("no time is left to ask", is_transient=True)
        await payer.reserve(max(worst_usd, price.refusal))
        # what never arrives here may have been billed all the same
        unknown, free = Bill(worst_usd, is_billed=False), Bill(0.0, is_billed=False)
        bill, outcome, started = free, "not sent", time.monotonic()
        try:
            await self._pace.wait(n_bytes(messages, form.response_format) // 4 + n_output)
            bill, outcome, started = unknown, "interrupted", time.monotonic()
            async with asyncio.timeout(timeout_seconds):
                response = await self._client.chat.completions.with_raw_response.create(
                    model=self._model.name,
                    messages=cast("Any", messages),
                    response_format=cast("Any", form.response_format),
                    max_completion_tokens=n_output,
                    **self._optional,
                )
            outcome = "unreadable answer"
            completion = _completion(response.text)
            bill, outcome = _bill(completion, price) or unknown, "answered"
            self._pace.speed_up()
            return _reply(completion, bill.usd)
        except APIStatusError as error:
            meaning = self._model.meaning(error, self._intended)
            if isinstance(meaning, NoAnswer) and meaning.is_refusal:
                bill = Bill(price.refusal, is_billed=False)
            elif error.status_code not in (408, 504):  # whose answer was given up
                bill = free
            if error.status_code == 429 and isinstance(meaning, _Again):
                self._pace.slow_down()
            if isinstance(meaning, _Again) and meaning.unknown is not None:
                # pop, not del: calls in flight may find the same out together
                self._optional.pop(meaning.unknown, None)
            outcome = f"HTTP {error.status_code}"
            # the service may quote the key, and a cause is shown in tracebacks
            raise meaning from None if self._model.holds_key(str(error)) else error
        except (APIConnectionError, TimeoutError) as error:
            outcome = "no answer in time"
            if type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout"):
                bill, outcome = free, "no connection"
            raise _Again(outcome) from error
        finally:
            payer.settle(bill, outcome, time.monotonic() - started)


def _seconds_until(ends_at: float) -> float:
    return ends_at - asyncio.get_running_loop().time()


# ---- the answer -----------------------------------------------------------------------------


class _Lenient(BaseModel):
    """The part of an answer that is read; whatever else a service adds is passed over."""

    model_config = ConfigDict(extra="ignore")


class _InputDetails(_Lenient):
    cached_tokens: int = Field(0, ge=0)


class _OutputDetails(_Lenient):
    reasoning_tokens: int = Field(0, ge=0)


class _Usage(_Lenient):
    """Never negative: a bill that pays back would widen a budget."""

    prompt_tokens: int = Field(0, ge=0)
    completion_tokens: int = Field(0, ge=0)
    total_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    cost_in_usd_ticks: int | None = Field(None, ge=0)


class _Message(_Lenient):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Lenient):
    message: _Message
    finish_reason: str | None = None


class _Completion(_Lenient):
    model: str
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def _completion(text: str) -> _Completion:
    try:
        return _Completion.model_validate_json(text)
    except ValidationError as error:
        raise NoAnswer(
            f"the service's answer is no chat completion: {first_error(error)}"
        ) from error


def _bill(completion: _Completion, price: Price) -> Bill | None:
    """What an answer cost; None where the service does not say.

    xAI leaves reasoning out of completion_tokens and counts it in total_tokens, so output is what
    is not input. Source: github.com/vercel/ai pull request 12425.
    """
    usage = completion.usage
    if usage is None:
        return None
    details = usage.completion_tokens_details
    n_reasoning = details.reasoning_tokens if details else 0
    n_output = usage.completion_tokens + n_reasoning
    if usage.total_tokens is not None:
        n_output = max(usage.completion_tokens, usage.total_tokens - usage.prompt_tokens)
    n_cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    if usage.cost_in_usd_ticks is not None:
        usd = usage.cost_in_usd_ticks / TICKS_PER_USD
    else:
        usd = (
            max(0, usage.prompt_tokens - n_cached) * price.input
            + n_cached * price.cached_input
            + n_output * price.output
        ) / 10**6
    return Bill(usd, True, usage.prompt_tokens, n_cached, n_output)


def _reply(completion: _Completion, usd: float) -> Reply:
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        said = choice.message.refusal or choice.finish_reason
        raise NoAnswer(f"the model refused: {said}", is_refusal=True)
    return Reply(
        choice.message.content or "", completion.model, usd, choice.finish_reason == "length"
    )


def _read(reply: Reply, form: Form[Value]) -> Read[Value]:
    if reply.is_cut_off:
        return Read(None, "it was cut off")
    return form.read(re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", reply.content))


def first_error(error: ValidationError) -> str:
    """What is wrong with an answer, without quoting it."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]

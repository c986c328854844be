"""A paid language model that advises the query engine: which clusters to search, what passages say.

It is an adviser and no more: the engine answers without it, so no failure of the service, of the
cache or of the record of spending is raised from a question. Each is told in the answer's `calls`,
in words that anybody may read, and in the log, in words for whoever runs it. A service that fails
again and again, or that a person must mend (key, model, credits), is left alone for a while.

Money: the worst that a call can cost must fit into what is left of its question's dollars and of
the day's, see `spending`; passages are cut to what fits. An answer that was paid for is kept under
the address of all that decides it, and costs nothing again.

What is asked and what is taken for an answer is in `advice`.
"""

import asyncio
import hashlib
import logging
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from acidburn_assets.adapters import advice
from acidburn_assets.adapters.advice import Inquiry
from acidburn_assets.adapters.language_model import (
    TICKS_PER_USD,
    AnswerCache,
    Answered,
    Bill,
    LanguageModel,
    NoAnswer,
    OutOfMoney,
    Pace,
    Session,
)
from acidburn_assets.adapters.spending import Reservation, Spending
from acidburn_assets.core.answers import Card, ModelCall, Picked, Quoted, Reviewed
from acidburn_assets.core.errors import AcidburnError, BudgetError, ConfigError, ModelError
from acidburn_assets.core.quoting import printable
from acidburn_assets.core.records import Record

_logger = logging.getLogger(__name__)

Purpose = Literal["pick", "review"]
Value = TypeVar("Value", bound=Record)

_ANSWERED = "answered"

_N_TRIES = 2
"""A person waits. Chosen, not measured."""
_REQUESTS_PER_SECOND, _TOKENS_PER_MINUTE = 16.0, 4_000_000.0
"""Less than half of what xAI grants the lowest tier. Source: docs.x.ai, October 2026."""
_GRACE_SECONDS = 0.25
"""After the end of a question's time, for calls to notice it themselves. Chosen."""
_KEEPING_SECONDS = 1.0
"""How long who asked waits for their answer to be kept; a bucket takes 0.3 s. Chosen."""

_MAX_FAILURES_IN_A_ROW = 5
_REST_SECONDS = 60.0
"""After so many failures in a row a service is left alone: each would hold up its question until
its time is over. Chosen, not measured."""
_REPAIR_SECONDS = 600.0
"""The same after a failure that only a person can mend, and that may cost. Chosen."""
_QUIET_SECONDS = 60.0
"""Between two lines of the log that say the same. Chosen."""


class PaidAdvisor:
    """Advises within a budget. May be used by several threads, also where an event loop runs."""

    def __init__(
        self,
        model: LanguageModel,
        *,
        cache: AnswerCache,
        spending: Spending,
        pick_seconds: float = 4.0,
        review_seconds: float = 30.0,
        n_parallel: int = 8,
    ) -> None:
        """Nothing is sent, read or written yet.

        Args:
            model: that is asked.
            cache: of answers.
            spending: of the day.
            pick_seconds: how long `pick` may take, everything included.
            review_seconds: the same of `review`.
            n_parallel: calls at a time; who comes later waits, and not longer than its own time.
        """
        self.model = model.name
        self._model = model
        self._cache = cache
        self._spending = spending
        self._pick_seconds = pick_seconds
        self._review_seconds = review_seconds
        self._n_parallel = n_parallel
        self._lock = threading.Lock()
        self._desk: _Desk | None = None
        self._finalizer: weakref.finalize[Any, PaidAdvisor] | None = None

    def pick(self, question: str, cards: Sequence[Card], *, cap_usd: float) -> Picked:
        """Which clusters to search; no failure of the service is raised, it is in `calls`.

        Args:
            question: of a person.
            cards: of clusters, best first; those after the 64th are not shown.
            cap_usd: no call is sent that could pass this.
        """
        cards = cards[: advice.MAX_CARDS]
        if not cards:
            return Picked((), ())
        inquiry = advice.ask_to_pick(question, cards)
        picks, calls = self._consult(inquiry, cap_usd, self._pick_seconds)
        if picks is None:
            return Picked((), calls)
        clusters = advice.card_ids(cards)
        return Picked(tuple(clusters[name] for name in picks.clusters), calls)

    def review(
        self,
        question: str,
        passages: Sequence[Quoted],
        verification: Sequence[Quoted],
        *,
        cap_usd: float,
    ) -> Reviewed:
        """An answer from the passages; no failure of the service is raised, it is in `calls`.

        Args:
            question: of a person.
            passages: that may answer it, each with its own number. Where all of them could cost
                more than the cap, all are cut to the same length.
            verification: passages of another pool, which the answer is held against.
            cap_usd: no call is sent that could pass this.
        """
        if not passages:
            return Reviewed(False, (), (), (), None, ())
        inquiry = advice.ask_to_review(question, passages, verification)
        review, calls = self._consult(inquiry, cap_usd, self._review_seconds)
        if review is None:
            return Reviewed(False, (), (), (), None, calls)
        numbers = advice.check_ids(verification)
        return Reviewed(
            is_answered=bool(review.supports),
            supports=review.supports,
            contradicts=tuple(numbers[name] for name in review.contradicts),
            corroborates=tuple(numbers[name] for name in review.corroborates),
            text=review.text,
            calls=calls,
        )

    def check_model(self) -> None:
        """Asks the service whether it has the model; costs nothing.

        Raises:
            ConfigError: the service does not know the key or the model.
            ServiceUnavailable: the service is away, or does not list its models.
        """
        self._model.check()

    def close(self) -> None:
        """Ends connections and the thread behind them; answers are in the cache then.

        The next question opens them again. Not closing is no leak: it happens when the advisor is
        forgotten or the process ends.
        """
        with self._lock:
            finalizer, self._finalizer, self._desk = self._finalizer, None, None
        if finalizer is not None:
            finalizer()

    def _consult(
        self, inquiry: Inquiry[Value], cap_usd: float, seconds: float
    ) -> tuple[Value | None, tuple[ModelCall, ...]]:
        return self._open_desk().ask(inquiry, cap_usd, seconds)

    def _open_desk(self) -> "_Desk":
        with self._lock:
            if self._desk is None:
                self._desk = _Desk(self._model, self._cache, self._spending, self._n_parallel)
                # the desk knows nothing of its advisor, so that this can happen
                self._finalizer = weakref.finalize(self, self._desk.close)
            return self._desk


class _Kept(Record):
    """An answer in the cache."""

    answer: dict[str, Any]
    model: str  # that gave it
    usd: float


class _Desk:
    """Where calls are made: an event loop in a thread of its own, and what lives in it."""

    def __init__(
        self, model: LanguageModel, cache: AnswerCache, spending: Spending, n_parallel: int
    ) -> None:
        self._model = model
        self._cache = cache
        self._spending = spending
        self._rest = _Rest()
        self._log = _Log(model)
        self._client = model.client()
        self._session = Session(
            model, self._client, Pace(_REQUESTS_PER_SECOND, _TOKENS_PER_MINUTE), n_tries=_N_TRIES
        )
        self._slots = asyncio.Semaphore(n_parallel)
        self._threads = ThreadPoolExecutor(n_parallel, thread_name_prefix="advisor-cache")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="acidburn-advisor", daemon=True
        )
        self._thread.start()
        self._door = threading.Lock()
        self._is_closed = False

    def ask(
        self, inquiry: Inquiry[Value], cap_usd: float, seconds: float
    ) -> tuple[Value | None, tuple[ModelCall, ...]]:
        """Waits for an answer; called from threads of those who ask."""
        interrupted = (_unsent(inquiry, self._model, "interrupted"),)
        with self._door:
            if self._is_closed:  # since the caller opened it
                return None, interrupted
            future = asyncio.run_coroutine_threadsafe(
                self._consult(inquiry, cap_usd, seconds), self._loop
            )
        try:
            return future.result()
        except CancelledError:  # closed while it was asked
            return None, interrupted
        finally:
            future.cancel()  # where this thread was interrupted

    def close(self) -> None:
        """Ends everything; a second call does nothing."""
        with self._door:
            if self._is_closed or not self._thread.is_alive():  # in a process that was forked
                return
            self._is_closed = True

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._client.close()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._threads.shutdown()

    async def _consult(
        self, inquiry: Inquiry[Value], cap_usd: float, seconds: float
    ) -> tuple[Value | None, tuple[ModelCall, ...]]:
        started, ends_at = time.monotonic(), self._loop.time() + seconds
        key = self._key(inquiry)
        kept = await self._read_cache(key, inquiry, ends_at)
        if kept is not None:
            call = ModelCall(
                purpose=inquiry.purpose,
                model=self._model.name,
                outcome=_ANSWERED,
                usd=0.0,
                is_billed=True,
                is_cached=True,
                seconds=time.monotonic() - started,
            )
            return kept, (call,)
        reason = self._rest.reason(inquiry.purpose)
        if reason:
            return None, (_unsent(inquiry, self._model, f"not asked for now: {reason}"),)
        purse = _Purse(self._spending, self._log, inquiry.purpose, self._model.name, cap_usd)
        try:
            async with asyncio.timeout_at(ends_at + _GRACE_SECONDS), self._slots:
                messages = inquiry.fit(
                    lambda messages: purse.affords(self._model.worst_usd(messages, inquiry.form))
                )
                answered = await self._session.ask(messages, inquiry.form, purse, ends_at=ends_at)
            self._model.refuse_other(answered.model)
        except (OutOfMoney, NoAnswer, ConfigError, ModelError, TimeoutError) as error:
            return None, self._fail(inquiry, purse, error)
        if answered.value is None:
            malformed = NoAnswer(f"malformed answer, twice: {answered.complaint}")
            return None, self._fail(inquiry, purse, malformed)
        self._rest.answered(inquiry.purpose)
        await self._write_cache(key, answered.value, answered)
        remark = answered.value.remark if isinstance(answered.value, advice.Review) else ""
        return answered.value, _succeeded(purse.calls, remark)

    def _fail(
        self, inquiry: Inquiry[Any], purse: "_Purse", error: Exception
    ) -> tuple[ModelCall, ...]:
        """Tells of a failure to those who ask, to those who run it, and to those who ask next."""
        said = _in_words(error)
        self._log.tell(f"{inquiry.purpose}: {said}", str(error) or said)
        if isinstance(error, _CannotPay):
            return (*_failed(purse.calls, ""), _unsent(inquiry, self._model, said))
        if isinstance(error, (OutOfMoney, ConfigError, ModelError)):
            self._rest.broke(said)
        elif purse.calls and not (isinstance(error, NoAnswer) and error.is_refusal):
            self._rest.failed(inquiry.purpose, said)
        if not purse.calls:
            return (_unsent(inquiry, self._model, "not sent: no place was free in time"),)
        last = purse.calls[-1].outcome
        if last == _ANSWERED or isinstance(error, TimeoutError):
            return _failed(purse.calls, said)
        says_more = not isinstance(error, NoAnswer) or error.is_refusal
        return _failed(purse.calls, f"{last}: {said}" if says_more else last)

    def _key(self, inquiry: Inquiry[Any]) -> str:
        """Content address of an answer: all that decides it.

        Passages count as they are, not as they were cut to what a question may cost.
        """
        decides = {
            "model": self._model.name,
            "parameters": self._model.parameters,
            **inquiry.payload(),
        }
        return hashlib.sha256(advice.canonical(decides)).hexdigest()

    async def _read_cache(self, key: str, inquiry: Inquiry[Value], ends_at: float) -> Value | None:
        """A kept answer; None also where the cache cannot say: then it is asked for again."""
        try:
            async with asyncio.timeout_at(ends_at):
                content = await self._loop.run_in_executor(self._threads, self._cache.get, key)
            if content is None:
                return None
            value = inquiry.kind.model_validate(_Kept.from_bytes(content, key=key).answer)
        except (AcidburnError, ValidationError, TimeoutError) as error:
            self._log.tell("the cache of answers cannot be read", str(error) or "it takes too long")
            return None
        if not inquiry.is_offered(value):
            self._log.tell("the cache of answers cannot be read", f"{key} is not what was kept")
            return None
        return value

    async def _write_cache(self, key: str, value: Record, answered: Answered[Any]) -> None:
        """Keeps an answer; whoever asked does not wait long for that."""
        if isinstance(value, advice.Review) and answered.complaint and value.text is None:
            return  # the same question may do better next time
        kept = _Kept(answer=value.model_dump(mode="json"), model=answered.model, usd=answered.usd)

        def put() -> None:
            try:
                self._cache.put(key, kept.to_bytes())
            except AcidburnError as error:
                self._log.tell("the cache of answers cannot be written", str(error))

        await asyncio.wait(
            {self._loop.run_in_executor(self._threads, put)}, timeout=_KEEPING_SECONDS
        )


class _CannotPay(OutOfMoney):
    """A call was not sent for want of money, or of a place to write it down.

    Args:
        said: for those who ask.
        reason: for those who run it.
    """

    def __init__(self, said: str, reason: str) -> None:
        super().__init__(reason)
        self.said = said


class _Purse:
    """Pays for the calls of one question."""

    def __init__(
        self, spending: Spending, log: "_Log", purpose: Purpose, model: str, cap_usd: float
    ) -> None:
        self.calls: list[ModelCall] = []
        self._spending = spending
        self._log = log
        self._purpose = purpose
        self._model = model
        self._left = round(cap_usd * TICKS_PER_USD)
        self._open: Reservation | None = None

    def affords(self, worst_usd: float) -> bool:
        """Whether what is left of the question's dollars is enough."""
        with _told_as_unpaid():
            return round(worst_usd * self._spending.overrun() * TICKS_PER_USD) <= self._left

    async def reserve(self, worst_usd: float) -> None:
        if not self.affords(worst_usd):
            raise _CannotPay(
                "not sent: it could cost more than a question may",
                f"a call could cost {worst_usd:.4f} USD and {self._left / TICKS_PER_USD:.4f} are "
                "left for the question; raise ACIDBURN_ASK_USD_PER_QUESTION",
            )
        with _told_as_unpaid():
            self._open = self._spending.reserve(worst_usd, purpose=self._purpose, model=self._model)

    def settle(self, bill: Bill, outcome: str, seconds: float) -> None:
        if self._open is None:
            raise AssertionError("a session settles only what it reserved")
        self._left -= round(bill.usd * TICKS_PER_USD)
        self.calls.append(
            ModelCall(
                purpose=self._purpose,
                model=self._model,
                outcome=outcome,
                usd=bill.usd,
                is_billed=bill.is_billed,
                is_cached=False,
                seconds=seconds,
            )
        )
        try:
            self._spending.settle(self._open, bill.usd, outcome=outcome, is_billed=bill.is_billed)
        except AcidburnError as error:
            self._log.tell("a bill cannot be written down and counts at its worst", str(error))


@contextmanager
def _told_as_unpaid() -> Iterator[None]:
    try:
        yield
    except BudgetError as error:
        raise _CannotPay("not sent: what answers may cost today is spent", str(error)) from error
    except AcidburnError as error:
        raise _CannotPay(
            "not sent: what it could cost cannot be written down", str(error)
        ) from error


class _Rest:
    """When a service is left alone, and why."""

    def __init__(self) -> None:
        self._n_failures: dict[Purpose, int] = {"pick": 0, "review": 0}
        self._until: dict[Purpose, float] = {"pick": 0.0, "review": 0.0}
        self._why: dict[Purpose, str] = {"pick": "", "review": ""}

    def reason(self, purpose: Purpose) -> str:
        """Why it is not asked now; "" where it is."""
        return self._why[purpose] if time.monotonic() < self._until[purpose] else ""

    def answered(self, purpose: Purpose) -> None:
        self._n_failures[purpose] = 0

    def failed(self, purpose: Purpose, why: str) -> None:
        """A call came to nothing, and the next may too."""
        self._n_failures[purpose] += 1
        if self._n_failures[purpose] >= _MAX_FAILURES_IN_A_ROW:
            self._until[purpose] = time.monotonic() + _REST_SECONDS
            self._why[purpose] = why

    def broke(self, why: str) -> None:
        """No call can succeed before a person mends something."""
        for purpose in self._until:
            self._until[purpose] = time.monotonic() + _REPAIR_SECONDS
            self._why[purpose] = why


class _Log:
    """Tells whoever runs it, once a while for each kind of trouble."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()

    def tell(self, kind: str, detail: str) -> None:
        """Writes a line.

        Args:
            kind: one of a few.
            detail: what happened and how to mend it.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._told.get(kind, 0.0):
                return
            self._told[kind] = now + _QUIET_SECONDS
        shown = printable(self._model.without_key(detail))
        _logger.warning("the model %s: %s (%s)", self._model.name, kind, shown)


def _in_words(error: Exception) -> str:
    """A failure as anybody may read it: nothing of what the service said, nor of settings."""
    if isinstance(error, _CannotPay):
        return error.said
    if isinstance(error, OutOfMoney):
        return "the service has no credits left"
    if isinstance(error, ConfigError):
        return "the service refuses the key or the model"
    if isinstance(error, ModelError):
        return "another model answered"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, NoAnswer) and error.is_refusal:
        return "it was refused"
    if isinstance(error, NoAnswer) and error.is_transient:
        return "the service fails"
    return "malformed answer"


def _unsent(inquiry: Inquiry[Any], model: LanguageModel, outcome: str) -> ModelCall:
    return ModelCall(
        purpose=inquiry.purpose,
        model=model.name,
        outcome=outcome,
        usd=0.0,
        is_billed=False,
        is_cached=False,
        seconds=0.0,
    )


def _succeeded(calls: Sequence[ModelCall], remark: str) -> tuple[ModelCall, ...]:
    """Calls of which exactly one, the last with an answer, is "answered"."""
    last = max(place for place, call in enumerate(calls) if call.outcome == _ANSWERED)
    again = f"asked again: {remark}" if remark else "asked again"
    return tuple(
        call.model_copy(update={"outcome": again})
        if call.outcome == _ANSWERED and place != last
        else call
        for place, call in enumerate(calls)
    )


def _failed(calls: Sequence[ModelCall], outcome: str) -> tuple[ModelCall, ...]:
    """Calls none of which is "answered", and the last of which came to `outcome`; "": as it is."""
    told = [
        call.model_copy(update={"outcome": "malformed answer"})
        if call.outcome == _ANSWERED
        else call
        for call in calls
    ]
    if outcome:
        told[-1] = told[-1].model_copy(update={"outcome": outcome})
    return tuple(told)

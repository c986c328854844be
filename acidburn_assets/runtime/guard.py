"""What every request to the service passes before a route sees it, and every response after.

Who may call (host, origin, token), how much and how often (body, rate), what a browser may do with
a response (headers), and one line of log. It stands around the whole application, so no route can
be added without it. What a route does with a question is `service`.

Bodies are read here, whole and bounded, so that nothing behind waits for a slow client.
"""

import asyncio
import hmac
import ipaddress
import json
import logging
import secrets
import time
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from pydantic import SecretStr

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""What a service on this machine is called. A page of another site whose name was made to lead
here (DNS rebinding) calls it otherwise."""

BODY_SECONDS = 10.0
"""For a request's body to arrive. Chosen: 64 KB at 7 KB/s."""

DRAIN_BYTES = 4 * 2**20
"""Of a body that is too large, read and thrown away before it is refused: a connection that is
closed while its client still writes is reset, and the client never reads why. Chosen: four times
the megabyte that somebody pastes."""

MOST_CLIENTS = 10_000
"""Whose rate is kept, some 2 MB; then whoever was silent longest is forgotten. Chosen."""

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every response, unless a route says otherwise. No header of CORS is among them: no other site
may read anything."""

CLOSING = {"connection": "close"}
"""Of a refusal that does not wait for the rest of a body: what still comes is not read."""

UNEXPECTED = ("something unexpected failed", "the server's log says where")
"""What a caller is told of a defect."""

log = logging.getLogger("acidburn.serve")


@dataclass(frozen=True)
class Rules:
    """Who may ask, and how much.

    Attributes:
        token: that callers must know; empty: none is asked for.
        hosts: names that the service may be called by, lower case; empty: any.
        body_bytes: of a request, at most.
        per_minute: questions of one client, at most; 0: any number.
        open_paths: that need no token.
        counted_paths: that are questions.
        known_paths: that a log may show; another may hold anything, secrets too.
        body_seconds: for a body to arrive.
    """

    token: SecretStr = field(default_factory=lambda: SecretStr(""))
    hosts: Collection[str] = LOOPBACK_HOSTS
    body_bytes: int = 65_536
    per_minute: int = 60
    open_paths: Collection[str] = ()
    counted_paths: Collection[str] = ()
    known_paths: Collection[str] = ()
    body_seconds: float = BODY_SECONDS


class Refusal(Exception):
    """A request that is not served.

    Args:
        status: of HTTP.
        error: what is wrong.
        mend: what to do about it.
        headers: besides the usual ones.
    """

    def __init__(
        self, status: int, error: str, mend: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.mend = mend
        self.headers = headers or {}

    @property
    def content(self) -> bytes:
        """As JSON."""
        told = {"error": self.error, **({"mend": self.mend} if self.mend else {})}
        return json.dumps(told, ensure_ascii=False).encode()


class Rates:
    """How often each client may ask: a bucket that fills by the minute. For one thread."""

    def __init__(
        self,
        per_minute: int,
        *,
        most_clients: int = MOST_CLIENTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute = per_minute
        self._most_clients = most_clients
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, as of when

    def spend(self, address: str) -> float:
        """Takes one request of a client; the seconds until it may ask, 0 where it may now.

        Args:
            address: of the client.
        """
        if not self._per_minute:
            return 0.0
        client, now = client_of(address), self._clock()
        left, since = self._buckets.pop(client, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - since) * self._per_minute / 60)
        wait = 0.0 if left >= 1 else (1 - left) * 60 / self._per_minute
        self._buckets[client] = (left - 1 if not wait else left, now)
        if len(self._buckets) > self._most_clients:
            self._buckets.popitem(last=False)
        return wait


def client_of(address: str) -> str:
    """Who is counted as one: an address, or of IPv6 its /64, all of which one person has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return str(parsed)


class Guard:
    """ASGI middleware that holds `Rules`."""

    def __init__(
        self, app: _App, rules: Rules, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._rules = rules
        self._rates = Rates(rules.per_minute, clock=clock)

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send
    ) -> None:
        """Serves one connection's request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:  # a websocket, of which there are none
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        exchange = _Exchange(scope, send)
        try:
            headers = _headers(scope)
            self._check_caller(scope["method"], scope["path"], headers, exchange.address)
            whole = await self._read(scope["method"], headers, receive)
            await self._app(scope, whole, exchange.send)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except Exception as error:  # noqa: BLE001 - told to the caller and to the log
            # without its words: they may quote the question
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("request %s failed: %s\n%s", exchange.request_id, type(error).__name__, where)
            await exchange.refuse(Refusal(500, *UNEXPECTED))
        finally:
            exchange.write_line(is_known=scope["path"] in self._rules.known_paths)

    def _check_caller(self, method: str, path: str, headers: dict[str, str], address: str) -> None:
        rules = self._rules
        host = headers.get("host", "")
        if rules.hosts and _without_port(host) not in rules.hosts:
            raise Refusal(
                421,
                "this service is not called by that name",
                "use the address it was started with, or set ACIDBURN_SERVE_HOSTS",
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refusal(403, "other sites may not ask this service")
        if rules.token.get_secret_value() and path not in rules.open_paths:
            self._check_token(headers.get("authorization", ""), address)
        if path in rules.counted_paths and method == "POST":
            self._count(address)

    def _check_token(self, authorization: str, address: str) -> None:
        scheme, _, given = authorization.partition(" ")
        known = self._rules.token.get_secret_value().encode()
        # compared whatever the scheme, in a time that tells nothing of the token
        is_token = hmac.compare_digest(given.strip().encode("latin-1"), known)
        if is_token and scheme.lower() == "bearer":
            return
        self._count(address)
        raise Refusal(
            401,
            "the token is wrong" if authorization else "a token is needed",
            "send it as: Authorization: Bearer TOKEN",
            {"www-authenticate": 'Bearer realm="acidburn"'},
        )

    def _count(self, address: str) -> None:
        wait = self._rates.spend(address)
        if wait:
            raise Refusal(
                429,
                f"too many questions: {self._rules.per_minute} a minute are answered",
                f"ask again in {ceil(wait)} s",
                {"retry-after": str(ceil(wait))},
            )

    async def _read(self, method: str, headers: dict[str, str], receive: _Receive) -> _Receive:
        """The body in one piece, then what comes after it."""
        if method not in ("POST", "PUT", "PATCH"):
            return receive
        limit = self._rules.body_bytes
        too_large = Refusal(
            413, f"a request may have {limit:,} bytes", "ask a shorter question", CLOSING
        )
        declared = headers.get("content-length", "0")
        is_declared_large = declared.isdecimal() and int(declared) > limit
        if is_declared_large and "expect" in headers:
            raise too_large  # the client waits to hear whether it should send anything
        try:
            async with asyncio.timeout(self._rules.body_seconds):
                body, n_bytes = await _collect(receive, limit)
        except TimeoutError as error:
            raise Refusal(
                408, "the request did not arrive in time", "send it again", CLOSING
            ) from error
        if n_bytes > limit:
            raise too_large
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # what another site's form can send is text or a form, never this
            raise Refusal(415, "a question is sent as JSON", "Content-Type: application/json")
        return _Replayed(body, receive)


class _Replayed:
    """Gives a body that was read already, then what the connection says."""

    def __init__(self, body: bytes, receive: _Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> _Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Exchange:
    """One request and its response, to be told of in one line."""

    def __init__(self, scope: MutableMapping[str, Any], send: _Send) -> None:
        self.request_id = secrets.token_hex(4)
        self.address = (scope.get("client") or ("unknown", 0))[0]
        self._scope = scope
        self._send = send
        self._began = time.perf_counter()
        self._status = 0
        self._n_bytes = 0

    async def send(self, message: _Message) -> None:
        """Passes a response on, with the headers that all have."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            given = {name.lower() for name, _ in message.get("headers", ())}
            ours = {**HEADERS, "x-request-id": self.request_id}
            message["headers"] = [
                *message.get("headers", ()),
                *(
                    (name.encode(), value.encode())
                    for name, value in ours.items()
                    if name.encode() not in given
                ),
            ]
        elif message["type"] == "http.response.body":
            self._n_bytes += len(message.get("body", b""))
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Says no, unless a response has begun."""
        if self._status:
            return
        content = refusal.content
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            **refusal.headers,
        }
        await self.send(
            {
                "type": "http.response.start",
                "status": refusal.status,
                "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
            }
        )
        await self.send({"type": "http.response.body", "body": content})

    def write_line(self, *, is_known: bool) -> None:
        """The request in the log: no query, no body, no header."""
        log.info(
            "%s %s %s %s %d bytes %.3f s from %s",
            self.request_id,
            self._scope["method"],
            self._scope["path"] if is_known else "(another path)",
            self._status or "no response",
            self._n_bytes,
            time.perf_counter() - self._began,
            self.address,
        )


async def _collect(receive: _Receive, limit: int) -> tuple[bytes, int]:
    """A body of at most `limit` bytes, and how many there were or were read until we gave up."""
    parts: list[bytes] = []
    n_bytes = 0
    while n_bytes <= limit + DRAIN_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the client went away")
        part = message.get("body", b"")
        n_bytes += len(part)
        if n_bytes <= limit:
            parts.append(part)
        else:
            parts.clear()
        if not message.get("more_body", False):
            break
    return b"".join(parts), n_bytes


def _headers(scope: MutableMapping[str, Any]) -> dict[str, str]:
    """By name, lower case; of one that is given twice the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()

"""A proxy before a test's S3 server that is as strict as B2, and fails on demand.

B2 refuses what other servers accept: checksum headers, conditional writes, bulk deletes, tags
(`b2_rules` knows them). The proxy refuses them too, so that everything that works through it sends
none. A `Fault` says what goes wrong, with which S3 operation and how often; the requests that came
are kept, to be counted. Bodies pass a block at a time, whatever their size, and signatures stay
valid: path and headers pass as they are.

    with running("http://127.0.0.1:5000", seed=1) as faulty:
        faulty.faults = [Fault("UploadPart", "status", n_times=ALWAYS, probability=0.2)]
        ...  # B2_ENDPOINT=faulty.endpoint

pytest is not needed here.
"""

import http.client
import random
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from acidburn_assets_tests.adapters.b2_rules import operation_of, refusal

Kind = Literal[
    "status",
    "reset",
    "cut_upload",
    "slow_upload",
    "flip_sent_bit",
    "swallow",
    "lose_answer",
    "truncate",
    "stall",
    "flip_bit",
]
"""What goes wrong. Before the server is asked:

- `status`: an error is answered instead
- `reset`: the connection breaks before anything of the body is read
- `cut_upload`: the connection breaks while the body is sent; the server hears nothing of it
- `slow_upload`: the body is taken slowly, then all is well
- `flip_sent_bit`: the body's last bit arrives as another
- `swallow`: answers that all is well and does nothing

After it did what it was asked to:

- `lose_answer`: the connection breaks instead of an answer
- `truncate`: the body ends too early
- `stall`: the body stops for some seconds, then the connection ends
- `flip_bit`: the answer's last bit is another
"""

ALWAYS = 1 << 60
"""As `n_times`."""

BLOCK_BYTES = 1 << 16
N_KEPT_REQUESTS = 100_000


@dataclass
class Fault:
    """What goes wrong with the next `n_times` requests of an operation."""

    operation: str  # S3's name: PutObject, UploadPart, ListObjectsV2 …; "" for any
    kind: Kind
    n_times: int = 1
    after: int = 0  # requests that would be hit, and pass first
    key: str = ""  # only requests with this in their path
    query: str = ""  # only requests with this in their query
    probability: float = 1.0  # that a request is hit at all, by the proxy's seed
    status: int = 503
    code: str = "SlowDown"
    message: str = "told to"
    retry_after: str = ""
    n_bytes: int = -1  # of the body that pass before it is cut; -1 for half of them
    seconds: float = 5.0  # of a stalled body
    bytes_per_second: int = 100_000  # of a slow upload


def cap_exceeded(operation: str, *, n_times: int = ALWAYS) -> Fault:
    """The account's data cap is reached. Which S3 code B2 gives it is not documented; its own API
    answers 403 cap_exceeded."""
    return Fault(
        operation,
        "status",
        n_times,
        status=403,
        code="AccessDenied",
        message="Cannot upload files, storage cap exceeded. See the Caps & Alerts page",
    )


class Request(NamedTuple):
    """One request as it came."""

    operation: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    n_received: int  # bytes of its body
    n_sent: int  # bytes of the answer's body
    status: int  # of the answer; 0 where there was none
    kind: str  # of the fault that hit it, or ""


class FaultyS3(ThreadingHTTPServer):
    """Forwards to the server at `upstream` whatever it does not refuse or break."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, upstream: str, *, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream)
        self.faults: list[Fault] = []
        self.requests: deque[Request] = deque(maxlen=N_KEPT_REQUESTS)
        self.region = ""
        """Requests signed for another are answered as B2 answers them; "" takes any."""
        self.is_overlap_refused = False
        """Refuses lifecycle rules one of whose prefixes starts with another's."""
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reset(self) -> None:
        self.faults = []
        self.requests.clear()
        self.region = ""
        self.is_overlap_refused = False
        self._random = random.Random(self._seed)  # noqa: S311

    def count(self, operation: str, *, kind: str | None = None) -> int:
        """Requests of an operation that came; with a kind, only those that it hit."""
        return sum(
            request.operation == operation and kind in (None, request.kind)
            for request in tuple(self.requests)
        )

    def next_fault(self, operation: str, path: str, query: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                is_meant = fault.operation in ("", operation)
                if not (is_meant and fault.key in path and fault.query in query and fault.n_times):
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                if fault.probability < 1 and self._random.random() >= fault.probability:
                    continue
                fault.n_times -= 1
                return fault
            return None

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what is tested here."""


@contextmanager
def running(upstream: str, *, seed: int = 0) -> Iterator[FaultyS3]:
    """The proxy, listening until the end."""
    with FaultyS3(upstream, seed=seed) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FaultyS3
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Says nothing."""

    def _forward(self) -> None:
        self._path, _, self._query = self.path.partition("?")
        self._operation = operation_of(self.command, self._path, self._query)
        self._n_received, self._n_left = 0, int(self.headers.get("Content-Length", 0))
        self._fault = self.server.next_fault(self._operation, self._path, self._query)
        kind = self._fault.kind if self._fault else ""
        if kind == "reset":
            self._break_off()
        elif self._fault and kind == "cut_upload":
            self._drain(n_bytes=_cut(self._fault, self._n_left))
            self._break_off()
        else:
            self._obey_or_refuse(kind)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815  # the base's names

    def _obey_or_refuse(self, kind: str) -> None:
        fault = self._fault
        if fault and kind == "status":
            self._drain()
            self._refuse(fault.status, fault.code, fault.message, retry_after=fault.retry_after)
            return
        # rules of a bucket are looked at as a whole; other bodies may be large
        is_configuration = self._operation == "PutBucketLifecycleConfiguration"
        body = b"".join(self._body()) if is_configuration else None
        refused = refusal(
            self._operation,
            self._path,
            self._query,
            dict(self.headers),
            body or b"",
            region=self.server.region,
            is_overlap_refused=self.server.is_overlap_refused,
        )
        if refused:
            self._drain()
            self._refuse(*refused)
        elif kind == "swallow":
            self._drain()
            self._note(200)
            self._start_answer(200, {"Content-Length": "0"})
        else:
            self._ask(body)

    def _ask(self, body: bytes | None) -> None:
        """Passes the request on, and the answer back."""
        upstream = self.server.upstream
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders()
            if body is None:
                for block in self._body():
                    connection.send(block)
            else:
                connection.send(body)
            self._pass_back(connection.getresponse())
        finally:
            connection.close()

    def _pass_back(self, answer: http.client.HTTPResponse) -> None:
        fault, kind = self._fault, self._fault.kind if self._fault else ""
        if kind == "lose_answer":
            answer.read()
            self._break_off()
            return
        hop = ("connection", "date", "server", "transfer-encoding")
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in hop}
        n_bytes = 0 if self.command == "HEAD" else answer.length
        short = b""
        if n_bytes is None:  # in chunks: only what a server makes up itself, not an object
            short = answer.read()
            n_bytes = len(short)
            headers["Content-Length"] = str(n_bytes)
        n_to_pass = _cut(fault, n_bytes) if fault and kind in ("truncate", "stall") else n_bytes
        self._note(answer.status, n_sent=n_to_pass)
        self._start_answer(answer.status, headers)
        n_sent = 0
        while n_sent < n_to_pass:
            block = short or answer.read(min(BLOCK_BYTES, n_to_pass - n_sent))
            if not block:
                break
            block = block[: n_to_pass - n_sent]
            n_sent += len(block)
            if kind == "flip_bit" and n_sent == n_bytes:
                block = _flipped(block)
            self.wfile.write(block)
        if fault and kind in ("truncate", "stall"):
            self.close_connection = True
            time.sleep(fault.seconds if kind == "stall" else 0)

    def _body(self) -> Iterator[bytes]:
        """The request's body as it arrives, or as slowly as a fault wants it."""
        fault = self._fault
        pace = fault.bytes_per_second if fault and fault.kind == "slow_upload" else 0
        while self._n_left:
            n_wanted = min(BLOCK_BYTES, pace // 10) if pace else BLOCK_BYTES
            block = self.rfile.read(min(n_wanted, self._n_left))
            if not block:
                # the server behind waits for the rest, and must not take this for all of it
                raise ConnectionAbortedError("the client went away while it sent")
            self._n_left -= len(block)
            self._n_received += len(block)
            if fault and fault.kind == "flip_sent_bit" and not self._n_left:
                block = _flipped(block)
            yield block
            if pace:
                time.sleep(len(block) / pace)

    def _drain(self, n_bytes: int = -1) -> None:
        """Reads so much of the body, or all of it, for nothing."""
        if n_bytes == 0:
            return
        for _ in self._body():
            if 0 < n_bytes <= self._n_received:
                return

    def _break_off(self) -> None:
        """An abrupt end (RST) instead of an answer, as a router forgets a connection."""
        self._note(0)
        abort = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, abort)
        self.close_connection = True

    def _start_answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _refuse(self, status: int, code: str, message: str, retry_after: str = "") -> None:
        text = message.replace("&", "&amp;").replace("<", "&lt;")
        content = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
        headers = {"Content-Type": "application/xml", "Content-Length": str(len(content))}
        if retry_after:
            headers["Retry-After"] = retry_after
        self._note(status, n_sent=len(content))
        self._start_answer(status, headers)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _note(self, status: int, *, n_sent: int = 0) -> None:
        """Before the answer goes out: who has it may count."""
        self.server.requests.append(
            Request(
                self._operation,
                self.command,
                self._path,
                self._query,
                dict(self.headers),
                self._n_received,
                n_sent,
                status,
                self._fault.kind if self._fault else "",
            )
        )


def _flipped(block: bytes) -> bytes:
    return block[:-1] + bytes([block[-1] ^ 1])


def _cut(fault: Fault, n_bytes: int) -> int:
    """Bytes that pass; always fewer than all."""
    wanted = fault.n_bytes if fault.n_bytes >= 0 else n_bytes // 2
    return max(0, min(wanted, n_bytes - 1))

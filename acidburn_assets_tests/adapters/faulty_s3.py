"""A proxy before a test's S3 server that is as strict as B2, and fails on demand.

B2 refuses what the test server accepts: checksum headers, conditional writes, bulk deletes. The
proxy refuses them too, so that every test against it shows that we send none. The requests that
passed are kept, to be counted.
"""

import http.client
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Kind = Literal["status", "truncate", "lose_answer", "flip_bit", "swallow"]
"""`swallow` answers that all is well and does nothing."""


@dataclass
class Fault:
    """What goes wrong with the next `n_times` requests of a method."""

    method: str
    kind: Kind
    n_times: int = 1
    after: int = 0  # requests of the method that pass first
    query: str = ""  # only requests with this in their query
    status: int = 503
    code: str = "SlowDown"
    message: str = "told to"
    retry_after: str = ""


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    n_sent: int  # bytes of the answer's body


class FaultyS3(ThreadingHTTPServer):
    """Forwards to the server at `upstream` whatever it does not refuse or break."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream)
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reset(self) -> None:
        self.faults.clear()
        self.requests.clear()

    def next_fault(self, method: str, query: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.method != method or fault.query not in query or not fault.n_times:
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.n_times -= 1
                return fault
            return None


@contextmanager
def running(upstream: str) -> Iterator[FaultyS3]:
    with FaultyS3(upstream) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FaultyS3
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Says nothing."""

    def _forward(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.next_fault(self.command, query)
        refusal = b2_refusal(self.command, query, dict(self.headers))
        if fault and fault.kind == "status":
            self._refuse(fault.status, fault.code, fault.message, retry_after=fault.retry_after)
        elif refusal:
            self._refuse(*refusal)
        elif fault and fault.kind == "swallow":
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._answer(path, query, body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815  # the base's names

    def _answer(self, path: str, query: str, body: bytes, fault: Fault | None) -> None:
        upstream = self.server.upstream
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=30)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.server.requests.append(
            Request(self.command, path, query, dict(self.headers), len(content))
        )
        if fault and fault.kind == "lose_answer":
            # an abrupt end (RST) instead of an answer, as a router forgets a connection
            abort = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, abort)
            self.close_connection = True
            return
        if fault and fault.kind == "flip_bit":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "date", "server", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()
        if fault and fault.kind == "truncate":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content)

    def _refuse(self, status: int, code: str, message: str, retry_after: str = "") -> None:
        content = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self.server.requests.append(
            Request(self.command, self.path, "", dict(self.headers), len(content))
        )
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def b2_refusal(method: str, query: str, headers: dict[str, str]) -> tuple[int, str, str] | None:
    """What B2 would refuse of a request that another server may accept."""
    names = {name.lower() for name in headers}
    for name in sorted(names):
        if re.match(r"x-amz-(checksum-|sdk-checksum-algorithm|trailer)", name):
            return 400, "InvalidArgument", f"Unsupported header '{name}' received"
    if method in ("PUT", "POST") and names & {"if-match", "if-none-match"}:
        return 501, "NotImplemented", "A header you provided implies functionality not implemented"
    if method == "POST" and "delete" in parse_qs(query, keep_blank_values=True):
        return 400, "InvalidArgument", "bulk delete"
    if method == "PUT" and headers.get("X-Amz-Content-SHA256") == "UNSIGNED-PAYLOAD":
        return 400, "InvalidArgument", "the payload is not signed"
    return None

"""What a service of OpenAI's protocol on this machine is made of: answers, a handler, a server."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a service does with one request."""

    body: Any  # text as it is, all else as JSON
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0  # before it answers
    is_cut: bool = False  # the connection, in the middle of the body


class Handler(BaseHTTPRequestHandler):
    """Reads a request's JSON and sends an answer; what to answer, a service says."""

    protocol_version = "HTTP/1.1"

    def post(self, body: dict[str, Any]) -> None:
        raise NotImplementedError

    def get(self) -> None:
        raise NotImplementedError

    def do_POST(self) -> None:
        self.post(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_GET(self) -> None:
        self.get()

    def send(self, answer: Answer) -> None:
        raw = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        content = raw.encode()
        try:
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if answer.is_cut else content)
            self.close_connection = self.close_connection or answer.is_cut
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client did not wait

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    # a burst of twenty connections overflows the usual backlog of 5, and a call that is lost on
    # the way is rightly counted as billed
    request_queue_size = 128
    daemon_threads = False  # joined at the end: nothing outlives a test

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that was killed is no news
            super().handle_error(request, client_address)


class Loopback:
    """A service on a free port of 127.0.0.1, from its beginning on.

    Attributes:
        url: up to and with /v1.
        released: set at the end; ends all waiting.
    """

    def __init__(self, handler: type[Handler]) -> None:
        self.released = threading.Event()
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

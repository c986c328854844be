"""The HTTP service on a free port of 127.0.0.1, as `acidburn serve` runs it, over pools that were
made up."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import uvicorn

from acidburn_assets.runtime import service
from acidburn_assets.runtime.following import Home, Pools
from acidburn_assets.runtime.guard import Rules

LIMITS = service.Limits(
    question_chars=4_000, n_scanned=100_000, n_at_once=2, n_waiting=8, timeout_seconds=20.0
)

FREELY = Rules(per_minute=0)


class Reply(NamedTuple):
    """What a client gets."""

    status: int
    headers: dict[str, str]  # names in lower case
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Served:
    """A service that runs.

    Attributes:
        port: of 127.0.0.1.
        url: without a slash at its end.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30,
    ) -> Reply:
        """One request on a connection of its own."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as to:
            to.request(method, path, body=body, headers=headers or {})
            answer = to.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, headers=headers)

    def ask(
        self,
        question: Any = "How do I invert a matrix?",
        *,
        path: str = "/ask",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> Reply:
        """Asks a question as a program would."""
        return self.request(
            "POST",
            path,
            body=json.dumps({"question": question, **more}),
            headers={"Content-Type": "application/json", **(headers or {})},
        )


@contextmanager
def served(
    *homes: Home,
    rules: Rules = FREELY,
    limits: service.Limits = LIMITS,
    look_seconds: float = 60.0,
) -> Iterator[Served]:
    """Runs a service over these pools; it stops as it does on SIGTERM."""
    pools = Pools(homes, look_seconds=look_seconds)
    pools.follow()
    app = service.make_app(pools, limits=limits, rules=rules, look_seconds=look_seconds)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            access_log=False,
            http="h11",
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
            ws="none",
        )
    )
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    port = listening.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            assert time.monotonic() < deadline, "the service did not start in time"
            time.sleep(0.01)
        yield Served(port)
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive(), "the service does not stop"

"""A service on this machine that speaks chat completions, and can be slow, broken and dear."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What the service does with one request."""

    body: Any
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0


Behaviour = Callable[[int, dict[str, Any]], Answer]


class _Server(ThreadingHTTPServer):
    # a burst of twenty connections overflows the usual backlog of 5, and a call that is lost on
    # the way is rightly counted as billed
    request_queue_size = 128


class Service:
    """Speaks chat completions on a free port of 127.0.0.1; counts what it bills."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.billed_usd = 0.0
        self.behave: Behaviour = always(completion())
        self.models = {"grok-4.3"}
        self.released = threading.Event()
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with service._lock:
                    service.requests.append(body)
                    service.authorizations.append(self.headers["Authorization"])
                    answer = service.behave(len(service.requests), body)
                    if isinstance(answer.body, dict):
                        ticks = (answer.body.get("usage") or {}).get("cost_in_usd_ticks", 0)
                        service.billed_usd += ticks / 1e10
                service.released.wait(answer.seconds)
                raw = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
                content = raw.encode()
                try:
                    self.send_response(answer.status)
                    for name, value in answer.headers:
                        self.send_header(name, value)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client did not wait

            def do_GET(self) -> None:
                model = self.path.rpartition("/")[2]
                is_known = model in service.models
                content = json.dumps(
                    {"id": model, "object": "model", "created": 0, "owned_by": "x"}
                    if is_known
                    else {"error": f"The model {model} does not exist"}
                ).encode()
                self.send_response(200 if is_known else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # joined at the end: nothing outlives a test
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def completion(
    content: str | None = None,
    *,
    model: str = "grok-4.3",
    usd: float | None = 0.001,
    finish_reason: str = "stop",
    usage: dict[str, Any] | None = None,
) -> Answer:
    label = {"title": "Masked arrays", "summary": "How masks hide values.", "keywords": ["mask"]}
    billed = {"prompt_tokens": 900, "completion_tokens": 60, "total_tokens": 960}
    if usd is not None:
        billed["cost_in_usd_ticks"] = round(usd * 1e10)
    return Answer(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish_reason,
                    "message": {
                        "role": "assistant",
                        "content": json.dumps(label) if content is None else content,
                    },
                }
            ],
            "usage": billed if usage is None else usage,
        }
    )


def always(answer: Answer) -> Behaviour:
    return lambda _number, _body: answer

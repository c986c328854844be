"""A service on this machine that speaks chat completions, and can be slow, broken and dear."""

import json
import re
import threading
from collections.abc import Callable
from typing import Any

from acidburn_assets_tests.loopback import Answer, Handler, Loopback

Behaviour = Callable[[int, dict[str, Any]], Answer]


class Service(Loopback):
    """Speaks chat completions on a free port of 127.0.0.1; counts what it bills."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.billed_usd = 0.0
        self.behave: Behaviour = always(completion())
        self.models = {"grok-4.3"}
        self._lock = threading.Lock()
        service = self

        class Completions(Handler):
            def post(self, body: dict[str, Any]) -> None:
                with service._lock:
                    service.requests.append(body)
                    service.authorizations.append(self.headers["Authorization"])
                    answer = service.behave(len(service.requests), body)
                    if isinstance(answer.body, dict):
                        ticks = (answer.body.get("usage") or {}).get("cost_in_usd_ticks", 0)
                        service.billed_usd += ticks / 1e10
                service.released.wait(answer.seconds)
                self.send(answer)

            def get(self) -> None:
                model = self.path.rpartition("/")[2]
                if model in service.models:
                    self.send(
                        Answer({"id": model, "object": "model", "created": 0, "owned_by": "x"})
                    )
                else:
                    self.send(Answer({"error": f"The model {model} does not exist"}, 404))

        super().__init__(Completions)


def keywords_of(body: dict[str, Any]) -> str:
    """The keywords that a request shows."""
    found = re.search("<keywords>(.*?)</keywords>", body["messages"][1]["content"])
    assert found is not None
    return found[1]


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

"""A server on this machine that speaks `/v1/embeddings`, with a real model behind it.

It can be as TEI, vLLM and infinity are, and slow, broken, busy and dishonest.
"""

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from acidburn_assets.adapters.encoder import SentenceEncoder
from acidburn_assets.adapters.tokenizer import ModelTokenizer, load_tokenizer
from acidburn_assets_tests.loopback import Answer, Handler, Loopback

Behaviour = Callable[[int, list[str], Answer], Answer]
"""Number of the request from 1, its texts, and the honest answer."""


class Service(Loopback):
    """Serves one model on a free port of 127.0.0.1.

    Attributes:
        name: of the model.
        requests: bodies of all requests for embeddings.
        n_most_at_once: requests under way at the same time.
        behave: changes the honest answer.
        key: that is asked for; "" is none.
        max_inputs: more of them are refused, as TEI does.
        max_tokens: longer texts are cut in silence, as TEI does with --auto-truncate.
        counted: what `usage` says.
        unknown_model: what becomes of a request for another model: as TEI, vLLM or infinity.
        lists_models: False is TEI.
    """

    def __init__(self, encoder: SentenceEncoder, tokenizer: ModelTokenizer, name: str) -> None:
        self.encoder = encoder
        self._tokenizer = tokenizer
        self.name = name
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.n_most_at_once = 0
        self.behave: Behaviour = lambda _number, _texts, answer: answer
        self.key = ""
        self.max_inputs = 32
        self.max_tokens: int | None = None
        self.counted: Literal["tokens", "content", "characters", "zero", "none"] = "tokens"
        self.unknown_model: Literal["tei", "vllm", "infinity"] = "vllm"
        self.lists_models = True
        self._n_at_once = 0
        self._lock = threading.Lock()
        service = self

        class Embeddings(Handler):
            def post(self, body: dict[str, Any]) -> None:
                if self.path != "/v1/embeddings":
                    return self.send(Answer("Not Found", 404))
                with service._lock:
                    service.requests.append(body)
                    service.authorizations.append(self.headers["Authorization"])
                    number = len(service.requests)
                    service._n_at_once += 1
                    service.n_most_at_once = max(service.n_most_at_once, service._n_at_once)
                    honest = service._answer(body, self.headers["Authorization"])
                answer = service.behave(number, body["input"], honest)
                service.released.wait(answer.seconds)
                with service._lock:
                    service._n_at_once -= 1
                return self.send(answer)

            def get(self) -> None:
                known = {"object": "list", "data": [{"id": service.name, "object": "model"}]}
                is_known = service.lists_models and self.path == "/v1/models"
                self.send(Answer(known) if is_known else Answer("", 404))

        super().__init__(Embeddings)

    def _answer(self, body: dict[str, Any], authorization: str) -> Answer:
        texts = body["input"]
        if self.key and authorization != f"Bearer {self.key}":
            return Answer("", 401)
        if body["model"] != self.name and self.unknown_model == "vllm":
            message = f"The model `{body['model']}` does not exist."
            error = {"message": message, "type": "NotFoundError", "param": "model", "code": 404}
            return Answer({"error": error}, 404)
        if body["model"] != self.name and self.unknown_model == "infinity":
            message = f"Invalid model: Engine for model name `{body['model']}` not found."
            return Answer({"error": {"message": message, "code": 400}}, 400)
        if len(texts) > self.max_inputs:
            message = f"batch size {len(texts)} > maximum allowed batch size {self.max_inputs}"
            return Answer({"message": message, "code": 422, "type": "Validation"}, 422)
        return self._embed(texts, body.get("encoding_format", "float"))

    def _embed(self, texts: list[str], encoding: str) -> Answer:
        tokenizer = self._tokenizer
        if self.max_tokens is not None:
            n_content = self.max_tokens - tokenizer.n_special_tokens
            spans = [tokenizer.spans(text)[:n_content, 1] for text in texts]
            texts = [text[: ends.max()] for text, ends in zip(texts, spans, strict=True)]
        encoded = self.encoder.encode(texts, "document")
        counts = {
            "tokens": encoded.n_tokens,
            "content": encoded.n_tokens - tokenizer.n_special_tokens * len(texts),
            "characters": sum(map(len, texts)),
            "zero": 0,
        }
        answer: dict[str, Any] = {
            "object": "list",
            "model": self.name,
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": base64.b64encode(vector.tobytes()).decode()
                    if encoding == "base64"
                    else vector.tolist(),
                }
                for index, vector in enumerate(encoded.vectors)
            ],
        }
        if self.counted in counts:
            n_counted = counts[self.counted]
            answer["usage"] = {"prompt_tokens": n_counted, "total_tokens": n_counted}
        return Answer(answer)


@contextmanager
def running(encoder: SentenceEncoder, model: str, name: str) -> Iterator[Service]:
    """A service as long as it is needed.

    Args:
        encoder: makes the vectors.
        model: whose tokenizer counts, as `load_tokenizer` takes it.
        name: of the model, as the service calls it.
    """
    service = Service(encoder, load_tokenizer(model), name)
    try:
        yield service
    finally:
        service.close()

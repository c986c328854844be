"""The encoder whose vectors a server makes, against a server that can be all that servers are."""

import logging
import re
import shutil
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import SecretStr

from acidburn_assets.adapters import embedding_server, encoder
from acidburn_assets.adapters.embedding_server import Server, ServerEncoder
from acidburn_assets.adapters.encoder import SentenceEncoder
from acidburn_assets.adapters.tokenizer import ModelTokenizer, load_tokenizer
from acidburn_assets.core.errors import ConfigError, ModelError, ServiceUnavailable
from acidburn_assets.io_managers.parts import made_by
from acidburn_assets_tests.adapters import embedding_service, tiny_model
from acidburn_assets_tests.adapters.embedding_service import Answer, Service

KEY = "emb-5ecr3t-KEY"
NAME = "owner/tiny"
TEXTS = [f"{'shard ' * (number % 5)}{number} is a topic"[:40] for number in range(50)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> SentenceEncoder:
    return encoder.load_encoder(str(folder), device="cpu", dtype="float32")


@pytest.fixture
def tokenizer(folder: Path) -> ModelTokenizer:
    return load_tokenizer(str(folder))


@pytest.fixture
def service(tiny: SentenceEncoder, folder: Path) -> Iterator[Service]:
    with embedding_service.running(tiny, str(folder), NAME) as running:
        yield running


def server_of(service: Service, **changes: Any) -> Server:
    quick = Server(service.url, NAME, retry_seconds=0.01, patience_seconds=5.0)
    return quick._replace(**changes)


@pytest.fixture
def connect(
    service: Service, tiny: SentenceEncoder, tokenizer: ModelTokenizer
) -> Callable[..., ServerEncoder]:
    """An encoder that was not checked: what it is asked for first is the test's."""

    def make(batch_tokens: int = 0, **changes: Any) -> ServerEncoder:
        server = server_of(service, **changes)
        return ServerEncoder(server, tiny.tokenizer, tiny.card, batch_tokens=batch_tokens)

    return make


Connect = Callable[..., ServerEncoder]


def always(**changes: Any) -> embedding_service.Behaviour:
    return lambda _number, _texts, answer: answer._replace(**changes)


def first(n_requests: int, **changes: Any) -> embedding_service.Behaviour:
    """Changes so many answers; the rest are honest."""
    return lambda number, _, answer: answer._replace(**changes) if number <= n_requests else answer


def edited(edit: Callable[[dict[str, Any]], object]) -> embedding_service.Behaviour:
    """Changes what is answered."""

    def behave(_number: int, _texts: list[str], answer: Answer) -> Answer:
        edit(answer.body)
        return answer

    return behave


# ---- vectors --------------------------------------------------------------------------------


def test_a_server_gives_the_vectors_that_the_model_gives_here(
    service: Service, folder: Path, tiny: SentenceEncoder
) -> None:
    remote = embedding_server.load_encoder(str(folder), server_of(service))
    assert remote.card == tiny.card
    encoded = remote.encode(TEXTS, "document")
    here = tiny.encode(TEXTS, "document")
    assert np.abs(encoded.vectors - here.vectors).max() < 1e-6
    assert encoded.vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(encoded.vectors, axis=1) - 1).max() < 1e-6
    assert (encoded.n_tokens, encoded.n_truncated) == (here.n_tokens, 0)
    assert encoded.seconds > 0
    body = service.requests[-1]
    assert (body["model"], body["encoding_format"]) == (NAME, "base64")
    assert set(body) == {"model", "input", "encoding_format"}  # nothing asks for truncation


def test_vectors_are_in_the_texts_order_whatever_the_answer_s(
    service: Service, connect: Connect, tiny: SentenceEncoder
) -> None:
    service.behave = edited(lambda answer: answer["data"].reverse())
    vectors = connect(batch_inputs=7).encode(TEXTS, "document").vectors
    assert np.abs(vectors - tiny.encode(TEXTS, "document").vectors).max() < 1e-6


def test_vectors_are_made_to_unit_length(service: Service, connect: Connect) -> None:
    def double(answer: dict[str, Any]) -> None:
        for item in answer["data"]:
            item["embedding"] = [2.0, *[0.0] * (tiny_model.DIM - 1)]

    service.behave = edited(double)
    assert (connect().encode(["a"], "document").vectors[0, :2] == [1, 0]).all()


def test_requests_keep_to_their_limits_and_run_side_by_side(
    service: Service, connect: Connect, tokenizer: ModelTokenizer
) -> None:
    service.behave = always(seconds=0.05)
    connect(batch_inputs=5, n_requests=3, batch_tokens=64).encode(TEXTS, "document")
    sizes = [len(body["input"]) for body in service.requests]
    assert sum(sizes) == len(TEXTS)
    assert max(sizes) <= 5
    for body in service.requests:
        n_tokens = sum(map(len, tokenizer.input_ids(body["input"])))
        assert n_tokens <= 64 or len(body["input"]) == 1
    assert service.n_most_at_once == 3


def test_no_text_makes_no_request(service: Service, connect: Connect) -> None:
    assert connect().encode([], "document").vectors.shape == (0, tiny_model.DIM)
    assert service.requests == []


def test_prompts_are_put_in_front_here(folder: Path, tmp_path: Path, service: Service) -> None:
    prompted = shutil.copytree(folder, tmp_path / "tiny")
    prompts = '{"prompts": {"query": "find: ", "document": "of: "}}'
    (prompted / "config_sentence_transformers.json").write_text(prompts)
    remote = embedding_server.load_encoder(str(prompted), server_of(service))
    service.requests.clear()
    remote.encode(["a"], "query")
    remote.encode(["b"], "document")
    assert [body["input"] for body in service.requests] == [["find: a"], ["of: b"]]


def test_the_next_window_is_under_way_while_one_is_used(
    service: Service, connect: Connect, tiny: SentenceEncoder
) -> None:
    windows = [TEXTS[start : start + 10] for start in range(0, 50, 10)]
    drawn = []

    def draw() -> Iterator[list[str]]:
        for window in windows:
            drawn.append(window)
            yield window

    made = []
    for index, encoded in enumerate(connect().embed_iter(draw(), "document")):
        assert len(drawn) == min(5, index + 2)
        deadline = time.monotonic() + 10
        while len(service.requests) < len(drawn) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(service.requests) == len(drawn)
        made.append(encoded.vectors)
    here = tiny.encode(TEXTS, "document").vectors
    assert np.abs(np.concatenate(made) - here).max() < 1e-6


def test_windows_before_one_that_fails_are_given(service: Service, connect: Connect) -> None:
    made = connect().embed_iter([["good"], ["聚" * 80], ["never"]], "document")
    with pytest.raises(ModelError, match="document 0 of 1 has"):
        list(made)
    windows = connect().embed_iter([["good"], ["bad"], ["never"]], "document")
    service.behave = lambda _, texts, answer: (
        answer._replace(status=400, body="no") if texts == ["bad"] else answer
    )
    assert len(next(windows).vectors) == 1
    with pytest.raises(ModelError, match="refuses a text of"):
        next(windows)


def test_who_wants_no_more_waits_for_nothing(service: Service, connect: Connect) -> None:
    service.behave = lambda number, _, answer: answer._replace(seconds=30.0 * (number > 1))
    windows = connect().embed_iter([["one"], ["two"]], "document")
    started = time.monotonic()
    next(windows)
    windows.close()  # type: ignore[attr-defined]  # a generator
    assert time.monotonic() - started < 10


# ---- is it the model? -----------------------------------------------------------------------


def test_a_server_with_other_weights_is_refused(service: Service, folder: Path) -> None:
    other = encoder.load_encoder(str(folder), device="cpu", dtype="float32")
    with torch.no_grad():
        torch.nn.init.normal_(other._model[0].model.embeddings.word_embeddings.weight)
    service.encoder = other
    with pytest.raises(ModelError, match=r"makes other vectors than 'tiny' does here \(cosine"):
        embedding_server.load_encoder(str(folder), server_of(service))


def test_a_server_of_another_size_is_refused(service: Service, connect: Connect) -> None:
    service.behave = edited(lambda answer: answer["data"][0].update(embedding=[1.0, 0.0]))
    with pytest.raises(ModelError, match="vectors of 2 values, 'tiny' has 32: it is another model"):
        connect().encode(["a"], "document")


def test_a_model_that_answers_under_another_name_is_refused(
    service: Service, connect: Connect
) -> None:
    service.unknown_model = "tei"
    with pytest.raises(ModelError, match=f"'tiny' was asked and '{NAME}' answered"):
        connect(model="tiny").encode(["a"], "document")


@pytest.mark.parametrize("kind", ["vllm", "infinity"])
def test_an_unknown_model_is_told_which_there_are(
    service: Service, connect: Connect, kind: Any
) -> None:
    service.unknown_model = kind
    with pytest.raises(ConfigError, match=rf"EMBEDDINGS_MODEL to one that it has: \['{NAME}'\]"):
        connect(model="nope").encode(["a"], "document")


def test_a_wrong_path_is_told_where_it_should_end(service: Service, connect: Connect) -> None:
    service.lists_models = False
    with pytest.raises(ConfigError, match="ACIDBURN_EMBEDDINGS_URL ends where /embeddings follows"):
        connect(url=service.url.removesuffix("/v1")).encode(["a"], "document")


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "localhost", "ftp://host/v1", "http://"])
def test_what_is_no_url_is_refused(connect: Connect, url: str) -> None:
    with pytest.raises(ConfigError, match="it must look like http://127"):
        connect(url=url)


# ---- nothing is cut -------------------------------------------------------------------------


def test_what_is_too_long_is_not_sent(service: Service, connect: Connect) -> None:
    long = "聚" * 80
    with pytest.raises(ModelError, match=r"document 1 of 2 has \d+ tokens, 'tiny' reads 64"):
        connect().encode(["short", long], "document")
    with pytest.raises(ConfigError, match=r"the question has .* shorten it"):
        connect().encode([long], "query")
    assert service.requests == []


def test_a_blank_document_is_not_sent(service: Service, connect: Connect) -> None:
    with pytest.raises(ModelError, match="document 1 of 2 is blank"):
        connect().encode(["a", " "], "document")
    assert service.requests == []


def test_a_server_that_cuts_long_texts_is_found_out_by_what_it_counts(
    service: Service, folder: Path
) -> None:
    service.max_tokens = 63
    with pytest.raises(ModelError, match=r"read 63 tokens of texts that have 64.*auto-truncate"):
        embedding_server.load_encoder(str(folder), server_of(service))


@pytest.mark.parametrize("counted", ["characters", "none", "zero"])
def test_a_server_that_cuts_and_counts_no_tokens_is_found_out_by_its_vectors(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch, counted: Any
) -> None:
    monkeypatch.setattr(encoder, "CANARIES", ("Shards", "What is a shard?"))
    service.max_tokens, service.counted = 40, counted
    with pytest.raises(ModelError, match=r"two texts of 62 tokens one vector.*cuts long texts"):
        embedding_server.load_encoder(str(folder), server_of(service))


@pytest.mark.parametrize("counted", ["content", "characters", "none", "zero"])
def test_servers_may_count_otherwise(service: Service, folder: Path, counted: Any) -> None:
    service.counted = counted
    remote = embedding_server.load_encoder(str(folder), server_of(service))
    assert len(remote.encode(TEXTS, "document").vectors) == len(TEXTS)


def test_a_server_that_begins_to_count_less_is_refused(service: Service, connect: Connect) -> None:
    remote = connect()
    remote.encode(["a shard"], "document")
    service.behave = edited(lambda answer: answer["usage"].update(prompt_tokens=2))
    with pytest.raises(ModelError, match="read 2 tokens of texts that have"):
        remote.encode(["a shard"], "document")
    service.behave = edited(lambda answer: answer.pop("usage"))
    with pytest.raises(ModelError, match="read None tokens of texts that have"):
        remote.encode(["a shard"], "document")


def test_a_server_that_refuses_full_length_may_serve_shorter_texts(
    service: Service,
    folder: Path,
    tokenizer: ModelTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(encoder, "CANARIES", ("Shards", "What is a shard?"))
    said = {"error": {"message": "This model's maximum context length is 60 tokens."}}

    def refuse(_number: int, texts: list[str], answer: Answer) -> Answer:
        longest = max(map(len, tokenizer.input_ids(texts)))
        return Answer(said, 400) if longest > 60 else answer

    service.behave = refuse
    remote = embedding_server.load_encoder(str(folder), server_of(service))
    assert "texts as long as 'tiny' reads are refused" in caplog.text
    assert len(remote.encode(TEXTS, "document").vectors) == len(TEXTS)
    with pytest.raises(ModelError, match="maximum context length is 60"):
        remote.encode(["聚" * 60], "document")


# ---- answers that are none ------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", ["{", "<html>maintenance</html>", "[]", "{}", '{"data": [{"embedding": null}]}']
)
def test_an_answer_that_is_none_is_refused(service: Service, connect: Connect, body: str) -> None:
    service.behave = always(body=body)
    with pytest.raises(ModelError, match="answers with something else than embeddings"):
        connect().encode(["a"], "document")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_vectors_that_are_no_directions_are_refused(
    service: Service, connect: Connect, value: float
) -> None:
    bad = [value] * tiny_model.DIM
    service.behave = edited(lambda answer: answer["data"][1].update(embedding=bad))
    with pytest.raises(ModelError, match="zero or not finite, the first of a text of"):
        connect().encode(["a", "b", "c"], "document")


def test_vectors_that_are_missing_or_counted_twice_are_refused(
    service: Service, connect: Connect
) -> None:
    for edit in (
        lambda answer: answer["data"].pop(),
        lambda answer: answer["data"][1].update(index=0),
        lambda answer: answer["data"].append(answer["data"][0]),
    ):
        service.behave = edited(edit)
        with pytest.raises(ModelError, match="answers 3 texts with"):
            connect().encode(["a", "b", "c"], "document")


def test_text_that_is_no_base64_is_no_vector(service: Service, connect: Connect) -> None:
    service.behave = edited(lambda answer: answer["data"][0].update(embedding="not base64!"))
    with pytest.raises(ModelError, match="vectors of 0 values"):
        connect().encode(["a"], "document")


# ---- what may pass --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 424, 429, 500, 502, 503])
def test_trouble_that_passes_is_outlasted(
    service: Service, connect: Connect, tiny: SentenceEncoder, status: int
) -> None:
    service.behave = first(3, status=status, body="busy")
    vectors = connect(batch_inputs=10).encode(TEXTS, "document").vectors
    assert np.abs(vectors - tiny.encode(TEXTS, "document").vectors).max() < 1e-6
    assert len(service.requests) == 5 + 3


def test_a_pause_that_is_asked_for_is_made(service: Service, connect: Connect) -> None:
    busy = {"status": 429, "headers": (("Retry-After", "0.3"),), "body": "Model is overloaded"}
    service.behave = first(1, **busy)
    assert connect().encode(["a"], "document").seconds >= 0.3
    service.requests.clear()
    service.behave = always(status=503, headers=(("Retry-After", "99"),), body="")
    started = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=r"asks to wait 99 s \(HTTP 503\)"):
        connect().encode(["a"], "document")
    assert time.monotonic() - started < 4
    assert len(service.requests) == 1


def test_patience_ends(service: Service, connect: Connect) -> None:
    service.behave = always(status=500, body={"error": {"message": "out of memory"}})
    with pytest.raises(ServiceUnavailable, match=r"HTTP 500: out of memory, after \d+ tries"):
        connect(patience_seconds=0.2).encode(TEXTS, "document")
    assert len(service.requests) > 2


def test_a_connection_that_is_cut_is_made_again(service: Service, connect: Connect) -> None:
    service.behave = first(1, is_cut=True)
    assert len(connect().encode(["a"], "document").vectors) == 1
    service.behave = always(is_cut=True)
    with pytest.raises(ServiceUnavailable, match="does not answer: cut off"):
        connect(patience_seconds=0.1).encode(["a"], "document")


def test_a_server_that_hangs_is_given_up(service: Service, connect: Connect) -> None:
    service.behave = always(seconds=30.0)
    started = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="no answer in 0 s"):
        connect(timeout_seconds=0.2, patience_seconds=0.1).encode(["a"], "document")
    assert time.monotonic() - started < 10


def test_nobody_who_listens_is_told(connect: Connect) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(
            ServiceUnavailable, match=r"no connection, after .* ACIDBURN_EMBEDDINGS"
        ):
            connect(url=url, patience_seconds=0.1).encode(["a"], "document")


def test_one_failure_ends_all_requests(service: Service, connect: Connect) -> None:
    service.behave = lambda _, texts, answer: (
        answer._replace(status=400, body="no such text")
        if texts == ["bad"]
        else answer._replace(seconds=30.0)
    )
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"refuses a text of .*no such text"):
        connect(batch_inputs=1).encode(["good", "bad", "fine"], "document")
    assert time.monotonic() - started < 10


# ---- too much at once -----------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, "Failed to buffer the request body: length limit exceeded"])
def test_a_server_that_takes_less_at_once_gets_less_from_then_on(
    service: Service,
    connect: Connect,
    tiny: SentenceEncoder,
    caplog: pytest.LogCaptureFixture,
    body: str | None,
) -> None:
    service.max_inputs = 5
    if body is not None:
        service.max_inputs = 1_000
        service.behave = lambda _, texts, answer: Answer(body, 413) if len(texts) > 5 else answer
    remote = connect()
    vectors = remote.encode(TEXTS, "document").vectors
    assert np.abs(vectors - tiny.encode(TEXTS, "document").vectors).max() < 1e-6
    assert re.search(r"does not take \d+ texts at once, from now on \d+: HTTP 4", caplog.text)
    service.requests.clear()
    remote.encode(TEXTS, "document")
    assert {len(request["input"]) for request in service.requests} <= {1, 2, 4}


def test_a_text_that_is_refused_alone_is_told_in_the_server_s_words(
    service: Service, connect: Connect
) -> None:
    said = {"error": "`inputs` must have less than 8 tokens. Given: 12", "error_type": "Validation"}
    service.behave = always(status=422, body=said)
    with pytest.raises(ModelError, match=r"refuses a text of .*must have less than 8 tokens"):
        connect().encode(["a", "b"], "document")


# ---- the key --------------------------------------------------------------------------------


def test_a_key_is_sent_and_no_other(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-service-s")
    service.key = KEY
    connect(key=SecretStr(KEY)).encode(["a"], "document")
    assert service.authorizations == [f"Bearer {KEY}"]
    service.key = ""
    connect().encode(["a"], "document")
    assert service.authorizations[1] == "Bearer none"


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_wrong_names_the_setting_and_nothing_more(
    service: Service, connect: Connect, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    service.behave = always(status=status, body={"error": {"message": f"no such key {KEY}"}})
    with pytest.raises(ConfigError, match=f"HTTP {status}.*ACIDBURN_EMBEDDINGS_KEY") as refused:
        connect(key=SecretStr(KEY)).encode(["a"], "document")
    assert KEY not in "".join(traceback.format_exception(refused.value))
    assert KEY not in caplog.text
    assert "Sending HTTP Request" in caplog.text


@pytest.mark.parametrize("status", [400, 404, 429, 500, 451])
def test_a_key_that_is_quoted_is_masked(
    service: Service, connect: Connect, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    service.behave = always(status=status, body={"error": {"message": f"the key {KEY} is tired"}})
    remote = connect(key=SecretStr(KEY), patience_seconds=0.05)
    with pytest.raises((ConfigError, ModelError, ServiceUnavailable)) as refused:
        remote.encode(["a"], "document")
    assert "the key *** is tired" in str(refused.value)
    assert KEY not in "".join(traceback.format_exception(refused.value))
    assert KEY not in caplog.text
    assert KEY not in repr(remote._server)


# ---- what stands around it ------------------------------------------------------------------


def test_a_server_is_described_for_a_person(service: Service, folder: Path) -> None:
    said = embedding_server.describe_server(str(folder), server_of(service))
    assert said.startswith(f"{service.url}: '{NAME}' answers in ")


def test_parts_of_a_server_are_not_those_of_a_device(
    connect: Connect, tiny: SentenceEncoder
) -> None:
    remote = connect(batch_tokens=tiny.batch_tokens)
    assert made_by("1", "abc", remote) != made_by("1", "abc", tiny)
    assert made_by("1", "abc", remote) == made_by("1", "abc", connect(tiny.batch_tokens))

"""`acidburn serve`: who is let in, and a real service over a made world, asked and stopped."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from acidburn_assets import settings
from acidburn_assets.commands import serve
from acidburn_assets.core.answers import Answer
from acidburn_assets.core.errors import ConfigError
from acidburn_assets_tests import samples
from acidburn_assets_tests.service_server import Served
from acidburn_assets_tests.worlds import World, acidburn

TOKEN = "correct-horse-battery-staple"

# ---- who is let in ---------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])  # noqa: S104
def test_beyond_this_machine_nothing_is_served_without_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="set ACIDBURN_SERVE_TOKEN to what this prints: python3"):
        serve.make_rules(settings.load(), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_this_machine_no_token_is_needed_and_only_its_names_are_served(host: str) -> None:
    rules = serve.make_rules(settings.load(), host)
    assert not rules.token.get_secret_value()
    assert "localhost" in rules.hosts
    assert "evil.example" not in rules.hosts


def test_a_token_opens_other_addresses_under_any_name_or_those_that_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACIDBURN_SERVE_TOKEN", TOKEN)
    rules = serve.make_rules(settings.load(), "0.0.0.0")  # noqa: S104
    assert rules.token.get_secret_value() == TOKEN
    assert not rules.hosts
    monkeypatch.setenv("ACIDBURN_SERVE_HOSTS", "Ask.Example.org, other.example")
    rules = serve.make_rules(settings.load(), "0.0.0.0")  # noqa: S104
    assert {"ask.example.org", "other.example", "localhost"} <= set(rules.hosts)


def test_a_name_for_others_needs_a_token_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a reverse proxy it listens to this machine alone, and is asked by all."""
    monkeypatch.setenv("ACIDBURN_SERVE_HOSTS", "ask.example.org")
    with pytest.raises(ConfigError, match="set ACIDBURN_SERVE_TOKEN"):
        serve.make_rules(settings.load(), "127.0.0.1")


@pytest.mark.parametrize(
    "token", ["short", "with a blank in the middle", "größer-als-alles-andere"]
)
def test_a_token_that_is_weak_or_cannot_be_sent_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("ACIDBURN_SERVE_TOKEN", token)
    with pytest.raises(ConfigError) as refused:
        serve.make_rules(settings.load(), "127.0.0.1")
    assert token not in str(refused.value)


def test_refusals_come_before_anything_is_opened(blank_world: World) -> None:
    finished = acidburn("serve", "--host", "0.0.0.0")  # noqa: S104
    assert finished.code == 1
    assert finished.err.startswith("acidburn: --host 0.0.0.0 lets others than this machine ask")
    unknown = acidburn("serve", "--pool", "libary")
    assert unknown.err == "acidburn: no pool 'libary'; datasets.yaml has ['library', 'reference']\n"


def test_a_port_that_is_taken_is_named(blank_world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finished = acidburn("serve", "--port", str(port))
    assert finished.code == 1
    assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in finished.err


def test_before_anything_is_made_it_says_what_to_make(blank_world: World) -> None:
    finished = acidburn("serve", "--port", "0")
    assert finished.code == 1
    assert (
        "the pool 'library' has no cluster_map yet; materialize library/cluster_map"
        in (finished.err.splitlines()[-1])
    )


# ---- a real one ------------------------------------------------------------------------------


class Running(Served):
    """A service in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, lines: list[str]) -> None:
        super().__init__(port)
        self.process = process
        self.lines = lines

    def stop(self, number: signal.Signals) -> int:
        """Sends a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(40)


@contextmanager
def running(world: World, *arguments: str, **variables: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-m", "acidburn_assets", "serve", "--port", "0", *arguments],
        cwd=world.folder,
        env={**os.environ, **world.environment, **variables},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(process.stderr or ()))
    reading.start()
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", "".join(lines))):
            assert process.poll() is None, "".join(lines)
            assert time.monotonic() < deadline, "".join(lines)
            time.sleep(0.05)
        service = Running(process, int(found[1]), lines)
        while True:
            try:
                service.get("/health")
                break
            except ConnectionError:
                time.sleep(0.05)
        yield service
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(40)
        reading.join()
        process.stderr.close()


@pytest.fixture(scope="module")
def service(made_world: World) -> Iterator[Running]:
    with running(
        made_world,
        *("--pool", "library", "--pool", "reference"),
        ACIDBURN_SERVE_PER_MINUTE="0",
        ACIDBURN_SERVE_WAITING="20",
        ACIDBURN_SERVE_TOKEN=TOKEN,
    ) as found:
        yield found


HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def ask(service: Running, question: str, pool: str = "library", **more: Any) -> Answer:
    reply = service.ask(question, path=f"/ask?pool={pool}", headers=HEADERS, **more)
    assert reply.status == 200, reply.content
    return Answer.model_validate_json(reply.content)


def test_the_service_answers_as_the_command_does(service: Running, world: World) -> None:
    finished = acidburn("ask", samples.QUESTION, "--pool", "library", "--passages", "5", "--json")
    assert finished.code == 0, finished.err
    told = Answer.model_validate_json(finished.out)
    answer = ask(service, samples.QUESTION, n_passages=5)
    assert [one.chunk_id for one in answer.passages] == [one.chunk_id for one in told.passages]
    assert (answer.gate.verdict, answer.model) == (told.gate.verdict, told.model)
    assert samples.ANSWER in answer.passages[0].text
    other = ask(service, "How do I castle?", pool="reference")
    assert {one.dataset for one in other.passages} == {"manual"}


def test_clusters_carry_the_map_of_the_pool(service: Running) -> None:
    outline = service.get("/clusters?pool=library", **HEADERS).json
    assert outline["points"]["n"] > 50
    assert {one["cluster_id"] for one in outline["clusters"]} >= {0, 1}


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ("word " * 700, "the question has "),
        ("a" * 4_001, "the question has 4,001 characters"),
        ("\0", "the question has a null character"),
    ],
)
def test_a_question_that_the_model_cannot_read_is_refused(
    service: Running, question: str, error: str
) -> None:
    reply = service.ask(question, path="/ask?pool=library", headers=HEADERS)
    assert reply.status == 422
    assert reply.json["error"].startswith(error)


def test_two_hundred_at_once_are_each_answered_or_refused_and_nothing_leaks(
    service: Running,
) -> None:
    topics = list(samples.TOPICS)
    questions = [
        f"{samples.TOPICS[topics[n % len(topics)]][n % 8]} (number {n})" for n in range(200)
    ]
    together = threading.Barrier(200)

    def one(question: str) -> Any:
        together.wait()
        return service.ask(question, path="/ask?pool=library", headers=HEADERS)

    process = psutil.Process(service.process.pid)
    with ThreadPoolExecutor(200) as threads:
        list(threads.map(one, questions))
        before = process.memory_info().rss
        replies = list(threads.map(one, questions))
    grown = process.memory_info().rss - before
    statuses = Counter(reply.status for reply in replies)
    assert set(statuses) <= {200, 503}
    assert statuses[200] >= 24
    for question, reply in zip(questions, replies, strict=True):
        if reply.status == 200:
            assert reply.json["question"] == question
        else:
            assert reply.json["error"] == "too many questions wait already"
    assert grown < 64 * 2**20
    assert service.get("/health").json == {"status": "ok"}
    log = "".join(service.lines)
    assert "(number 7)" not in log
    assert TOKEN not in log
    assert "Traceback" not in log


def test_it_stops_on_a_signal_after_what_it_works_on_is_answered(made_world: World) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with running(made_world) as service:
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
            body = json.dumps({"question": samples.QUESTION})
            connection.request("POST", "/ask", body, {"Content-Type": "application/json"})
            service.process.send_signal(number)
            assert connection.getresponse().status == 200
            connection.close()
            assert service.process.wait(40) == 0
        log = "".join(service.lines)
        assert "stopping: what is worked on is answered first" in log
        assert log.endswith("stopped\n")
        assert "Traceback" not in log


def test_it_follows_a_pool_that_is_made_anew(copied_world: World) -> None:
    with running(copied_world, ACIDBURN_SERVE_REFRESH_SECONDS="0.2") as service:
        before = service.get("/clusters").json
        changed = json.loads(copied_world.object_path("library/cluster_map.json").read_bytes())
        changed["cards"][0]["title"] = "Renamed while it runs"
        copied_world.store.put_bytes("library/cluster_map.json", json.dumps(changed).encode())
        deadline = time.monotonic() + 20
        while service.get("/clusters").json == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        titles = [one["title"] for one in service.get("/clusters").json["clusters"]]
        assert "Renamed while it runs" in titles
        assert service.ask(samples.QUESTION).status == 200
        assert any("was made anew and is followed" in line for line in service.lines)

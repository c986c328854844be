"""What every request passes: who may call, how much, how often, and what is written of it."""

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from acidburn_assets.runtime.guard import HEADERS, LOOPBACK_HOSTS, Guard, Rates, Rules, client_of
from acidburn_assets_tests.answer_samples import FakeAnswerer, FakeHome
from acidburn_assets_tests.service_server import LIMITS, Served, served

TOKEN = "correct-horse-battery-staple"
WITH_TOKEN = Rules(token=SecretStr(TOKEN), per_minute=0)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# ---- how often -------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_client_may_ask_so_often_a_minute_and_is_told_when_again() -> None:
    clock = Clock()
    rates = Rates(3, clock=clock)
    assert [rates.spend("10.0.0.1") for _ in range(3)] == [0, 0, 0]
    assert rates.spend("10.0.0.1") == pytest.approx(20)
    assert rates.spend("10.0.0.2") == 0  # another client has its own
    clock.now += 19
    assert rates.spend("10.0.0.1") == pytest.approx(1)
    clock.now += 1.001
    assert rates.spend("10.0.0.1") == 0
    clock.now += 10_000
    assert [bool(rates.spend("10.0.0.1")) for _ in range(4)] == [False, False, False, True]


def test_no_rate_means_any_number() -> None:
    rates = Rates(0)
    assert not any(rates.spend("10.0.0.1") for _ in range(1_000))


def test_clients_that_are_kept_are_bounded() -> None:
    rates = Rates(5, most_clients=10)
    for number in range(1_000):
        rates.spend(f"10.0.{number // 256}.{number % 256}")
    assert len(rates._buckets) == 10


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unknown", "unknown"),
    ],
)
def test_an_address_is_one_client_and_a_64_of_ipv6_is_one(address: str, client: str) -> None:
    assert client_of(address) == client


@given(st.lists(st.floats(0, 30), max_size=40), st.integers(1, 20))
def test_no_client_is_ever_served_more_than_its_bucket_and_what_fills_it(
    pauses: list[float], per_minute: int
) -> None:
    clock = Clock()
    rates = Rates(per_minute, clock=clock)
    n_served = 0
    for pause in pauses:
        clock.now += pause
        n_served += not rates.spend("10.0.0.1")
    assert n_served <= per_minute + sum(pauses) * per_minute / 60 + 1e-6


# ---- who -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "a token is needed"),
        (bearer("wrong-horse-battery-staple"), "the token is wrong"),
        (bearer(""), "the token is wrong"),
        (bearer(TOKEN[:-1]), "the token is wrong"),
        (bearer(TOKEN + "x"), "the token is wrong"),
        ({"Authorization": f"Basic {TOKEN}"}, "the token is wrong"),
        ({"Authorization": TOKEN}, "the token is wrong"),
        ({"Authorization": "Bearer \xff\xfe"}, "the token is wrong"),
    ],
)
def test_without_the_token_nothing_is_told(headers: dict[str, str], expected: str) -> None:
    answerer = FakeAnswerer()
    with served(FakeHome(answerer), rules=WITH_TOKEN) as service:
        for reply in (
            service.ask(headers=headers),
            service.ask(path="/search", headers=headers),
            service.ask(path="/ask?pool=nowhere", headers=headers),
            service.get("/clusters", **headers),
            service.get("/pools", **headers),
            service.get("/openapi.json", **headers),
            service.get("/nothing", **headers),
        ):
            assert reply.status == 401
            assert reply.headers["www-authenticate"] == 'Bearer realm="acidburn"'
            assert reply.json == {
                "error": expected,
                "mend": "send it as: Authorization: Bearer TOKEN",
            }
    assert answerer.asked == []


def test_with_the_token_everything_is_served() -> None:
    with served(FakeHome(), rules=WITH_TOKEN) as service:
        assert service.ask(headers=bearer(TOKEN)).status == 200
        assert service.ask(headers={"Authorization": f"bearer {TOKEN} "}).status == 200
        assert service.get("/pools", **bearer(TOKEN)).status == 200


def test_the_page_and_health_need_no_token_and_tell_nothing() -> None:
    with served(FakeHome(name="secret-pool"), rules=WITH_TOKEN) as service:
        page, health = service.get("/"), service.get("/health")
    assert (page.status, health.status) == (200, 200)
    assert health.json == {"status": "ok"}
    assert b"secret-pool" not in page.content


def test_a_token_in_the_address_is_no_token() -> None:
    with served(FakeHome(), rules=WITH_TOKEN) as service:
        assert service.get(f"/pools?token={TOKEN}&access_token={TOKEN}").status == 401


def test_who_guesses_tokens_is_slowed_down() -> None:
    rules = Rules(token=SecretStr(TOKEN), per_minute=5)
    with served(FakeHome(), rules=rules) as service:
        statuses = [service.ask(headers=bearer(f"guess-{n}")).status for n in range(8)]
        assert statuses == [401] * 5 + [429] * 3


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_name_that_is_not_the_services_is_refused(host: str) -> None:
    """What a page of another site sends, whose name was made to lead to this machine."""
    answerer = FakeAnswerer()
    with served(FakeHome(answerer)) as service:
        reply = service.ask(headers={"Host": host})
        assert reply.status == 421
        assert "not called by that name" in reply.json["error"]
        assert service.get("/", Host=host).status == 421
    assert answerer.asked == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:80", "[::1]:8080"])
def test_every_name_of_this_machine_is_served(host: str) -> None:
    with served(FakeHome()) as service:
        assert service.get("/health", Host=host).status == 200


def test_names_can_be_added_and_left_open() -> None:
    named = Rules(hosts=LOOPBACK_HOSTS | {"ask.example.org"}, per_minute=0)
    with served(FakeHome(), rules=named) as service:
        assert service.get("/health", Host="ask.example.org").status == 200
        assert service.get("/health", Host="other.example.org").status == 421
    with served(FakeHome(), rules=Rules(hosts=frozenset())) as service:
        assert service.get("/health", Host="other.example.org").status == 200


def test_other_sites_may_not_ask_and_may_not_read() -> None:
    answerer = FakeAnswerer()
    with served(FakeHome(answerer)) as service:
        refused = service.ask(headers={"Origin": "https://evil.example"})
        opaque = service.ask(headers={"Origin": "null"})
        form = service.request(
            "POST", "/ask", body='{"question": "x"}', headers={"Content-Type": "text/plain"}
        )
        preflight = service.request(
            "OPTIONS",
            "/ask",
            headers={
                "Origin": "https://evil.example",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type",
            },
        )
        assert (refused.status, opaque.status, form.status) == (403, 403, 415)
        assert preflight.status == 403
        assert answerer.asked == []
        own = service.ask(headers={"Origin": service.url})
        assert own.status == 200
    for reply in (refused, form, preflight, own):
        assert not [name for name in reply.headers if name.startswith("access-control-")]


# ---- how much --------------------------------------------------------------------------------


def test_a_megabyte_is_refused_in_words_that_arrive() -> None:
    answerer = FakeAnswerer()
    with served(FakeHome(answerer)) as service:
        reply = service.ask("word " * 200_000)
        assert reply.status == 413
        assert reply.json == {
            "error": "a request may have 65,536 bytes",
            "mend": "ask a shorter question",
        }
    assert answerer.asked == []


def test_a_body_that_does_not_say_its_length_is_counted_as_it_comes() -> None:
    with served(FakeHome()) as service, socket.create_connection(("127.0.0.1", service.port)) as to:
        to.sendall(
            b"POST /ask HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(20):
            to.sendall(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
        to.sendall(b"0\r\n\r\n")
        assert to.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_body_that_never_ends_is_cut_off() -> None:
    """Memory is bounded, and so is what is read only to be thrown away."""
    with served(FakeHome()) as service, socket.create_connection(("127.0.0.1", service.port)) as to:
        to.settimeout(20)
        to.sendall(
            b"POST /ask HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        n_sent = 0
        with suppress(OSError):  # reset or broken pipe, as the kernel likes
            while n_sent < 64 * 2**20:
                to.sendall(b"x" * 2**16)
                n_sent += 2**16
        assert n_sent < 48 * 2**20


def test_a_client_that_waits_for_leave_to_send_too_much_is_refused_at_once() -> None:
    with served(FakeHome()) as service, socket.create_connection(("127.0.0.1", service.port)) as to:
        to.sendall(
            b"POST /ask HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
        )
        assert to.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_arrive_in_time_is_given_up() -> None:
    rules = Rules(per_minute=0, body_seconds=0.2)
    with served(FakeHome(), rules=rules) as service:
        with socket.create_connection(("127.0.0.1", service.port)) as to:
            to.sendall(
                b"POST /ask HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            assert to.recv(4096).startswith(b"HTTP/1.1 408")
        assert service.ask().status == 200


def test_too_many_questions_are_told_when_to_come_back() -> None:
    answerer = FakeAnswerer()
    with served(FakeHome(answerer), rules=Rules(per_minute=3)) as service:
        replies = [service.ask() for _ in range(5)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
        assert 1 <= int(replies[-1].headers["retry-after"]) <= 20
        assert replies[-1].json["error"] == "too many questions: 3 a minute are answered"
        assert service.get("/pools").status == 200  # which is no question
    assert len(answerer.asked) == 3


# ---- what comes back, and what is written ----------------------------------------------------


def test_every_response_carries_the_same_headers() -> None:
    with served(FakeHome(), rules=WITH_TOKEN) as service:
        replies = [
            service.ask(headers=bearer(TOKEN)),
            service.get("/clusters", **bearer(TOKEN)),
            service.get("/nothing", **bearer(TOKEN)),
            service.ask(),  # 401
            service.get("/", Host="evil.example"),  # 421
            service.get("/"),
        ]
    for reply in replies:
        for name, value in HEADERS.items():
            if name != "content-security-policy":
                assert reply.headers[name] == value
        assert len(reply.headers["x-request-id"]) == 8
        assert "server" not in reply.headers
    assert len({reply.headers["x-request-id"] for reply in replies}) == len(replies)
    for reply in replies[:-1]:
        assert reply.headers["content-security-policy"].startswith("default-src 'none'")
        assert reply.headers["content-type"] == "application/json"
    assert "'unsafe" not in replies[-1].headers["content-security-policy"]


def test_a_line_is_written_of_each_request_without_question_or_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with served(FakeHome(), rules=WITH_TOKEN) as service:
        service.ask("what is the secret-word?", headers=bearer(TOKEN))
        service.ask("what is the secret-word?", headers=bearer("secret-word"))
        service.get("/pools?q=secret-word&pool=secret-word", **bearer(TOKEN))
        service.get("/secret-word", **bearer(TOKEN))
        service.ask(path="/ask?pool=secret-word", headers=bearer(TOKEN))
    lines = [one.getMessage() for one in caplog.records if one.name == "acidburn.serve"]
    assert len(lines) == 5
    assert " POST /ask 200 " in lines[0]
    assert " POST /ask 401 " in lines[1]
    assert " GET /pools 200 " in lines[2]
    assert " GET (another path) 404 " in lines[3]
    assert " POST /ask 404 " in lines[4]
    assert all(line.endswith(" from 127.0.0.1") for line in lines)
    assert "secret-word" not in caplog.text
    assert TOKEN not in caplog.text


def test_a_defect_is_a_500_without_its_words_and_the_log_says_where(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(question: str) -> Any:
        raise KeyError(question)

    with served(FakeHome(FakeAnswerer(fail))) as service:
        reply = service.ask("the se" + "cret-word")
        assert reply.status == 500
        assert reply.json == {
            "error": "something unexpected failed",
            "mend": "the server's log says where",
        }
        assert service.get("/health").status == 200
    (told,) = [one.getMessage() for one in caplog.records if "failed: KeyError" in one.getMessage()]
    assert "answer_samples.py" in told
    assert "se" + "cret" not in caplog.text


def test_a_websocket_is_refused() -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("the application was reached")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(never, Rules())({"type": "websocket"}, never, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_client_that_sends_nonsense_does_not_stop_the_service() -> None:
    with served(FakeHome(), limits=LIMITS) as service:
        for nonsense in (b"\x00\xff" * 500, b"GET / HTTP/9.9\r\n\r\n", b"POST /ask\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", service.port)) as to:
                to.sendall(nonsense)
                to.shutdown(socket.SHUT_WR)
                to.recv(4096)
        assert isinstance(service, Served)
        assert service.ask().status == 200

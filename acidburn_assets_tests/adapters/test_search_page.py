"""The search page as a file and in a browser, before a service over pools that were made up."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import resources
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from playwright.sync_api import Page, expect
from pydantic import SecretStr

from acidburn_assets.adapters import search_page
from acidburn_assets.core.answers import Answer
from acidburn_assets.core.errors import DatabaseUnavailable, NotMaterialized
from acidburn_assets.runtime.guard import Rules
from acidburn_assets_tests import map_samples
from acidburn_assets_tests.answer_samples import (
    N_CLUSTERS,
    N_POINTS,
    FakeAnswerer,
    FakeHome,
    make_answer,
)
from acidburn_assets_tests.browser import Window
from acidburn_assets_tests.service_server import FREELY, Served, served

QUESTION = "How do I invert a matrix?"
WRITTEN = "Use inv(a) [1].\n\nTo solve a system, solve(a, b) is better [2, 3]; see [9] and a[0]."
TOKEN = "correct-horse-battery-staple"
POINTS = map_samples.table(N_POINTS, n_clusters=N_CLUSTERS)

ATTACK = (
    "</script></style><script>document.title='hacked'</script>"
    "<img src=http://127.0.0.1:9/x onerror=\"document.title='hacked'\">"
    "[click](javascript:document.title='hacked') $style &lt;b&gt;\u202e\u2028"
)


def answered(**options: Any) -> Callable[[str], Answer]:
    return lambda question: make_answer(question, points=POINTS, **options)


class Shown:
    """The page of a service in a window."""

    def __init__(self, service: Served, window: Window, answerer: FakeAnswerer) -> None:
        self.service = service
        self.window = window
        self.page = window.page
        self.answerer = answerer

    def open(self, fragment: str = "") -> Page:
        self.page.goto(f"{self.service.url}/{fragment}")
        self.page.wait_for_selector("html[data-state=ready]", state="attached")
        return self.page

    def ask(self, question: str = QUESTION) -> Page:
        """Asks as a person does, and waits for what comes of it."""
        self.page.fill("#question", question)
        self.page.press("#question", "Enter")
        self.page.wait_for_selector("#stop", state="hidden")
        return self.page


@pytest.fixture
def show(window: Window) -> Iterator[Callable[..., Shown]]:
    """Starts a service and opens its page."""
    with ExitStack() as stack:

        def shown(
            make: Callable[[str], Answer] | None = None,
            *others: FakeHome,
            points: pa.Table | None = POINTS,
            rules: Rules = FREELY,
            writer: str | None = None,
        ) -> Shown:
            answerer = FakeAnswerer(make or answered(), writer=writer)
            home = FakeHome(answerer, points=points)
            service = stack.enter_context(served(home, *others, rules=rules))
            made = Shown(service, window, answerer)
            made.open()
            return made

        yield shown


def contrast(page: Page, selector: str) -> float:
    """Of a text on what lies behind it, as WCAG 2 defines it; both painted, so that what is
    translucent counts as it is seen."""
    return float(
        page.evaluate(
            """selector => {
                const element = document.querySelector(selector);
                const context = new OffscreenCanvas(1, 1)
                    .getContext("2d", {willReadFrequently: true});
                const grounds = [];
                for (let at = element; at; at = at.parentElement) {
                    grounds.unshift(getComputedStyle(at).backgroundColor);
                }
                for (const ground of grounds) {
                    context.fillStyle = ground;
                    context.fillRect(0, 0, 1, 1);
                }
                const luminance = () => {
                    const linear = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3)
                        .map(value => value / 255)
                        .map(one => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4);
                    return .2126 * linear[0] + .7152 * linear[1] + .0722 * linear[2] + .05;
                };
                const ground = luminance();
                context.fillStyle = getComputedStyle(element).color;
                context.fillRect(0, 0, 1, 1);
                const ink = luminance();
                return Math.max(ink, ground) / Math.min(ink, ground);
            }""",
            selector,
        )
    )


def ink(page: Page) -> int:
    """How many pixels of the map are in colour."""
    return int(
        page.evaluate(
            """() => {
                const canvas = document.querySelector("#map");
                const {width, height} = canvas;
                const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
                let n = 0;
                for (let i = 0; i < data.length; i += 4) {
                    const rgb = [data[i], data[i + 1], data[i + 2]];
                    n += data[i + 3] > 0 && Math.max(...rgb) - Math.min(...rgb) > 25;
                }
                return n;
            }"""
        )
    )


# ---- the file --------------------------------------------------------------------------------


def test_the_page_has_the_same_bytes_each_time_and_names_its_script_and_style() -> None:
    page = search_page.render()
    assert page == search_page.render()
    for element in ("script", "style"):
        (inside,) = re.findall(rf"<{element}>(.*?)</{element}>", page.html.decode(), re.DOTALL)
        assert search_page._source(inside) in page.policy
    assert "unsafe" not in page.policy
    assert "http" not in page.policy


def test_nothing_in_our_script_makes_markup_of_text_or_asks_another_site() -> None:
    script = (resources.files("acidburn_assets.adapters") / "web" / "search.js").read_text("utf-8")
    for word in (
        *("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("),
        *("DOMParser", "createContextualFragment", "srcdoc", "javascript:", "import("),
        *("http:", "https:", "XMLHttpRequest", "WebSocket", "sendBeacon", "window.open"),
    ):
        assert word not in script
    assert script.count("fetch(") == 1
    assert "localStorage.setItem(TOKEN" not in script


# ---- asking ----------------------------------------------------------------------------------


def test_the_page_begins_with_what_is_in_the_pool(show: Callable[..., Shown]) -> None:
    shown = show()
    page = shown.page
    assert page.evaluate("document.activeElement.id") == "question"
    assert page.inner_text("#about") == "44,820 passages in 40 clusters, from open, shut"
    assert page.locator("#topics button").count() == 24
    assert ink(page) > 1_000
    page.locator("#topics button").first.click()
    page.wait_for_selector("#answer:not([hidden])")
    assert shown.answerer.asked[0]["question"] == "Topic 0: matrix thread"
    assert page.locator("#start").is_hidden()


def test_without_a_key_the_verdict_and_the_passages_are_the_answer(
    show: Callable[..., Shown], window: Window
) -> None:
    page = show().ask()
    assert page.inner_text(".verdict h2") == "The answer is among these passages"
    assert "93 % sure, 80 % are asked for" in page.inner_text(".verdict")
    assert "830 passages of 30,000 (2.8 %) in 4 clusters" in page.inner_text(".verdict")
    assert page.locator(".written").count() == 0
    assert page.locator(".passage").count() == 5
    assert page.locator("#passage-1 mark").all_inner_texts() == ["matrix", "matrix"]
    assert page.inner_text("#said") == "The answer is among these passages. 5 passages."
    assert {one.split("#")[0] for one in window.requests if not one.startswith("data:")} == {
        f"{page.evaluate('location.origin')}{path}"
        for path in ("/", "/pools", "/clusters?pool=science", "/ask?pool=science")
    }
    assert window.complaints == []


def test_an_answer_cites_passages_by_links_and_only_those_there_are(
    show: Callable[..., Shown],
) -> None:
    page = show(answered(text=WRITTEN)).ask()
    assert page.inner_text(".verdict h2") == "Answered from the passages below"
    assert page.locator(".cite").all_inner_texts() == ["1", "2", "3"]
    assert "see [9] and a[0]." in page.inner_text(".written")
    assert page.inner_text(".by") == "written by grok-4.3 from the passages, $0.0021"
    page.locator(".cite", has_text="3").click()
    assert page.evaluate("document.activeElement.id") == "passage-3"
    assert page.locator("#pins li.now").inner_text() == "3"
    assert "q=How" in page.evaluate("location.hash")
    assert page.inner_text("#passage-1 .support") == "✓ supports the answer"
    assert page.inner_text("#passage-4 .no-support") == "does not support it"


def test_a_doubtful_answer_warns(show: Callable[..., Shown]) -> None:
    page = show(answered(verdict="ambiguous", status="unverified")).ask()
    assert page.inner_text(".verdict.ambiguous h2") == "This may not answer it"
    assert "52 % sure" in page.inner_text(".verdict")
    assert page.inner_text(".checked strong") == "Not verified"
    assert page.locator(".passage").first.is_visible()


@pytest.mark.parametrize(
    ("status", "word"), [("corroborated", "Corroborated"), ("contradicted", "Contradicted")]
)
def test_who_verified_is_said(show: Callable[..., Shown], status: Any, word: str) -> None:
    page = show(answered(status=status)).ask()
    assert page.inner_text(f".checked.{status}").startswith(
        f"{word} by reference, keyless agreement"
    )
    page.click(".checked summary")
    assert "The inverse of a square matrix" in page.inner_text(".checked")


def test_nothing_found_is_said_with_what_was_searched_and_what_to_try(
    show: Callable[..., Shown],
) -> None:
    other = FakeHome(FakeAnswerer(lambda question: make_answer(question, pool="law")), name="law")
    shown = show(answered(verdict="not_found"), other)
    page = shown.ask()
    told = page.inner_text(".verdict.not_found")
    assert "Nothing found that answers this" in told
    assert "Looked at 830 passages of 30,000 (2.8 %) in 4 clusters of the pool science" in told
    assert page.locator(".passage").first.is_hidden()  # the nearest are folded away
    page.click("text=The nearest 5 passages all the same")
    assert page.locator(".passage").first.is_visible()
    page.click("text=Search further: 3,320 passages")
    page.wait_for_selector("#stop", state="hidden")
    assert shown.answerer.asked[-1]["n_scanned"] == 3_320
    page.click("text=Ask the pool law")
    page.wait_for_selector(".verdict.accepted")
    assert page.input_value("#pool") == "law"


def test_a_long_passage_is_folded_and_opened(show: Callable[..., Shown]) -> None:
    page = show().ask()
    text = page.locator("#passage-3 .text")
    folded = text.bounding_box()
    more = page.locator("#passage-3 .more")
    assert more.get_attribute("aria-expanded") == "false"
    more.click()
    opened = text.bounding_box()
    assert folded is not None
    assert opened is not None
    assert opened["height"] > folded["height"] + 50
    assert (more.inner_text(), more.get_attribute("aria-expanded")) == ("Show less", "true")
    assert page.locator("#passage-1 .more").count() == 0


def test_a_verdict_without_calibration_says_that_it_is_none(show: Callable[..., Shown]) -> None:
    def make(question: str) -> Answer:
        answer = make_answer(question, verdict="ambiguous", points=POINTS)
        gate = answer.gate.model_copy(
            update={
                **dict.fromkeys(("probability", "threshold", "false_accepts")),
                "provenance": "not calibrated for this encoder: python -m benchmarks.gate",
            }
        )
        rounds = [one.model_copy(update={"probability": None}) for one in answer.trail.rounds]
        trail = answer.trail.model_copy(update={"rounds": tuple(rounds)})
        return answer.model_copy(update={"gate": gate, "trail": trail})

    page = show(make).ask()
    assert page.inner_text(".verdict h2") == "The nearest passages"
    assert "cannot be told: not calibrated for this encoder" in page.inner_text(".verdict")
    assert "NaN" not in page.inner_text("body")
    assert page.locator(".rounds li").first.inner_text() == "4 cells, 410 rows\nambiguous"


def test_where_a_passage_is_from_is_folded_beneath_it(show: Callable[..., Shown]) -> None:
    page = show().ask()
    origin = page.locator("#passage-2 .origin")
    assert origin.locator("dl").is_hidden()
    origin.locator("summary").click()
    told = origin.inner_text()
    for fact in ("numpy.linalg.2", "240–362", "000003", "e" * 64, "a" * 64, "f" * 16, "5f1ffaf0-"):
        assert fact in told
    chunk_id = POINTS["chunk_id"][34].as_py().hex()
    assert f"acidburn audit passage {chunk_id}" in told
    assert "The same text in 2 other places" in page.inner_text("#passage-2")


def test_the_trail_is_folded_away_and_whole(show: Callable[..., Shown]) -> None:
    page = show(answered(text=WRITTEN)).ask()
    trail = page.locator(".trail")
    assert trail.inner_text() == "How it was found: 830 rows, 40 ms, $0.0021"
    trail.locator("summary").click()
    told = trail.inner_text()
    for fact in (
        *("8 of 120 searched", "830 of 30,000 compared (2.8 %)", "probability 0.930"),
        *("threshold 0.800", "1,200 questions of science", "4.0 %", "search\t0.021"),
        *("11: Topic 11: vector\t0.300\tno\tnear", "0: Topic 0: matrix\t0.900\tyes\tpicked by the"),
        *("near, though not picked", "review\tgrok-4.3\tanswered\t1.40\t0.0021"),
    ):
        assert fact in told, fact


def test_the_clusters_searched_are_lit_on_the_map_and_the_passages_pinned(
    show: Callable[..., Shown],
) -> None:
    shown = show()
    before = ink(shown.page)
    page = shown.ask()
    assert 0 < ink(page) < before / 3
    assert sorted(page.locator("#pins li").all_inner_texts()) == ["1", "2", "3", "4", "5"]
    box, pin = page.locator("#map").bounding_box(), page.locator("#pins li").last.bounding_box()
    assert box is not None
    assert pin is not None
    assert box["x"] < pin["x"] < box["x"] + box["width"]
    assert box["y"] < pin["y"] < box["y"] + box["height"]
    assert page.get_attribute("#map", "aria-label") == (
        "Map of the pool; searched: Topic 0: matrix; Topic 1: array; Topic 2: window; "
        "Topic 7: branch"
    )
    assert page.locator(".rounds li").all_inner_texts() == [
        "4 cells, 410 rows\n41 % sure",
        "8 cells, 830 rows\n93 % sure",
    ]
    assert "Widened once" in page.inner_text("#searched")


def test_a_cluster_is_lit_alone_and_told_of_and_let_go(show: Callable[..., Shown]) -> None:
    page = show().ask()
    all_lit = ink(page)
    chip = page.locator("#searched .chip", has_text="Topic 2")
    chip.click()
    assert chip.get_attribute("aria-pressed") == "true"
    assert page.inner_text("#card-title") == "Topic 2: window array"
    assert "keyword2" in page.inner_text("#card")
    assert ink(page) < all_lit
    page.keyboard.press("Escape")
    assert page.locator("#card").is_hidden()
    assert ink(page) == all_lit


def test_marks_hold_where_letters_are_more_than_one_unit_long(show: Callable[..., Shown]) -> None:
    """Python counts 𝔸 and 😀 once, JavaScript twice."""

    def make(question: str) -> Answer:
        answer = make_answer(question, points=POINTS, n_passages=1)
        text = "😀 𝔸 the matrix 😀 of matrices"
        spans = ((8, 14), (10, 14), (20, 26), (90, 95))
        passage = answer.passages[0].model_copy(update={"text": text, "matches": spans})
        return answer.model_copy(update={"passages": (passage,)})

    page = show(make).ask()
    assert page.locator("#passage-1 mark").all_inner_texts() == ["matrix", "matric"]
    assert page.inner_text("#passage-1 .text") == "😀 𝔸 the matrix 😀 of matrices"


# ---- what goes wrong -------------------------------------------------------------------------


def test_a_question_that_is_refused_says_why(show: Callable[..., Shown]) -> None:
    page = show().ask("word " * 300)
    trouble = page.text_content("#trouble") or ""
    assert "the question has 300 tokens, and the model reads 256" in trouble
    assert "shorten it" in trouble
    assert page.get_attribute("#trouble", "role") == "alert"
    page = show().ask()
    assert page.locator("#trouble").is_hidden()


def test_a_failure_keeps_the_answer_that_was_shown(show: Callable[..., Shown]) -> None:
    shown = show()
    shown.ask()

    def fail(question: str) -> Answer:
        raise DatabaseUnavailable("host=db.internal")

    shown.answerer._make = fail
    page = shown.ask("And another one?")
    assert "the database does not answer" in (page.text_content("#trouble") or "")
    assert "db.internal" not in page.content()
    assert page.locator(".passage").first.is_visible()
    assert f"Below is still the answer to: {QUESTION}" in (page.text_content("#trouble") or "")


def test_too_many_questions_are_told_when_to_ask_again(show: Callable[..., Shown]) -> None:
    shown = show(rules=Rules(per_minute=1))
    shown.ask()
    page = shown.ask()
    assert "too many questions: 1 a minute" in (page.text_content("#trouble") or "")
    assert re.search(r"ask again in \d+ s", (page.text_content("#trouble") or ""))


def test_a_service_that_is_gone_is_told_as_such(window: Window) -> None:
    with served(FakeHome(FakeAnswerer(answered()))) as service:
        shown = Shown(service, window, FakeAnswerer())
        shown.open()
    page = shown.ask()
    assert "The service does not answer." in (page.text_content("#trouble") or "")


def test_a_pool_that_was_not_made_says_what_to_do(show: Callable[..., Shown]) -> None:
    missing = FakeHome(name="law")
    missing.opens = NotMaterialized("no cluster_map")
    page = show(None, missing).page
    page.select_option("#pool", "law")
    page.wait_for_selector("#trouble:not([hidden])")
    assert "acidburn materialize law" in (page.text_content("#trouble") or "")
    page.select_option("#pool", "science")
    expect(page.locator("#trouble")).to_be_hidden()


def test_a_pool_without_a_map_is_asked_all_the_same(show: Callable[..., Shown]) -> None:
    shown = show(points=None)
    assert shown.page.locator("#side").is_hidden()
    page = shown.ask()
    assert page.locator("#figure").is_hidden()
    assert page.locator("#searched .chip").count() == 4


def test_waiting_is_shown_and_can_be_stopped(show: Callable[..., Shown]) -> None:
    shown = show()
    shown.answerer.held.clear()
    page = shown.page
    page.fill("#question", QUESTION)
    page.press("#question", "Enter")
    page.wait_for_selector("#waiting:not([hidden])")
    assert page.get_attribute("#results", "aria-busy") == "true"
    assert page.inner_text("#said") == "Searching"
    page.keyboard.press("Escape")
    page.wait_for_selector("#stop", state="hidden")
    assert page.locator("#waiting").is_hidden()
    assert page.get_attribute("#results", "aria-busy") == "false"
    shown.answerer.held.set()
    assert shown.ask().locator(".passage").count() == 5


def test_only_the_last_question_is_shown(show: Callable[..., Shown]) -> None:
    """The first answer comes after the second was asked."""
    first = threading.Event()

    def make(question: str) -> Answer:
        if question == "first?":
            first.wait(10)
        return make_answer(question, points=POINTS, n_passages=1 if question == "first?" else 3)

    shown = show(make)
    page = shown.page
    page.fill("#question", "first?")
    page.press("#question", "Enter")
    page.wait_for_selector("#waiting:not([hidden])")
    page.fill("#question", "second?")
    page.press("#question", "Enter")
    page.wait_for_selector(".passage")
    first.set()
    page.wait_for_timeout(200)
    assert page.locator(".passage").count() == 3


# ---- who may ask -----------------------------------------------------------------------------


def test_a_token_is_asked_for_kept_in_the_tab_and_never_in_an_address(
    show: Callable[..., Shown], window: Window
) -> None:
    shown = show(rules=Rules(token=SecretStr(TOKEN), per_minute=0))
    page = shown.page
    assert page.locator("#door").is_visible()
    page.fill("#token", "wrong-horse-battery-staple")
    page.press("#token", "Enter")
    page.wait_for_selector("#door-said.wrong")
    page.fill("#token", TOKEN)
    page.click("#door button")
    page.wait_for_selector("#door", state="hidden")
    page.wait_for_selector("#topics button")
    assert page.input_value("#token") == ""
    assert shown.ask().locator(".passage").count() == 5
    kept = page.evaluate("[JSON.stringify(sessionStorage), JSON.stringify(localStorage)]")
    assert TOKEN in kept[0]
    assert TOKEN not in kept[1]
    assert not [one for one in window.requests if TOKEN in one]
    assert TOKEN not in page.evaluate("location.href")
    assert page.evaluate("document.cookie") == ""
    page.reload()
    page.wait_for_selector(".passage")
    assert page.locator("#door").is_hidden()


# ---- keys, addresses, and those who do not see -----------------------------------------------


def test_the_page_is_used_by_keys_alone(show: Callable[..., Shown]) -> None:
    page = show().ask()
    page.keyboard.press("Escape")
    for key, at in (("j", 1), ("j", 2), ("j", 3), ("k", 2), ("k", 1), ("k", 1)):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.id") == f"passage-{at}"
    page.keyboard.press("o")
    assert page.locator("#passage-1 .origin dl").is_visible()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "question"
    page.keyboard.press("j")  # in the box a letter is a letter
    assert page.input_value("#question").endswith("j") or page.input_value("#question") == "j"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden()


def test_single_keys_can_be_turned_off_and_stay_off(show: Callable[..., Shown]) -> None:
    shown = show()
    page = shown.page
    page.click("#keys")
    page.uncheck("#letters")
    page.keyboard.press("Escape")
    shown.open()
    page = shown.ask()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.id") != "passage-1"
    assert not page.is_checked("#letters")


def test_shift_enter_is_a_new_line_and_the_box_grows(show: Callable[..., Shown]) -> None:
    shown = show()
    page = shown.page
    low = page.locator("#question").bounding_box()
    page.fill("#question", "one")
    page.press("#question", "Shift+Enter")
    page.keyboard.type("two")
    high = page.locator("#question").bounding_box()
    assert page.input_value("#question") == "one\ntwo"
    assert low is not None
    assert high is not None
    assert high["height"] > low["height"]
    assert shown.answerer.asked == []


def test_the_address_holds_the_question_and_asks_it_again(show: Callable[..., Shown]) -> None:
    shown = show(None, FakeHome(FakeAnswerer(answered(pool="law")), name="law"))
    page = shown.ask("a & b # c + ü")
    assert page.evaluate("location.hash") == "#q=a+%26+b+%23+c+%2B+%C3%BC&pool=science"
    shown.page.goto("about:blank")
    page = shown.open(f"#q={quote('shared?')}&pool=law")
    assert page.input_value("#question") == "shared?"
    assert page.input_value("#pool") == "law"
    assert page.locator(".passage").count() == 5
    assert page.title() == "shared? – Acidburn"


def test_a_shared_question_that_would_cost_money_waits_for_a_person(
    show: Callable[..., Shown],
) -> None:
    """A link from anywhere must not spend anything."""
    shown = show(answered(text=WRITTEN), writer="grok-4.3")
    shown.page.goto("about:blank")
    page = shown.open("#q=shared%3F")
    assert page.input_value("#question") == "shared?"
    page.wait_for_timeout(200)
    assert shown.answerer.asked == []
    page.keyboard.press("Enter")
    page.wait_for_selector(".written")


def test_a_shared_pool_that_is_not_served_is_told(show: Callable[..., Shown]) -> None:
    shown = show()
    shown.page.goto("about:blank")
    page = shown.open("#pool=medicine")
    assert "There is no pool “medicine” here." in (page.text_content("#trouble") or "")
    assert "science" in (page.text_content("#trouble") or "")


def test_everything_that_can_be_used_has_a_name_and_the_page_its_landmarks(
    show: Callable[..., Shown],
) -> None:
    page = show(answered(text=WRITTEN, status="corroborated")).ask()
    roles: tuple[Any, ...] = ("banner", "search", "main", "complementary")
    for role in roles:
        assert page.get_by_role(role).count() == 1, role
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, select, summary, canvas")]
            .filter(one => !one.getAttribute("aria-label") && !one.labels?.length)
            .filter(one => !one.textContent.trim())
            .map(one => one.outerHTML)"""
    )
    assert nameless == []
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].filter(one => one.checkVisibility())"
        ".map(one => Number(one.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.get_by_role("article", name="Passage 2: numpy.linalg, section 2").count() == 1
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))


def test_tab_goes_from_the_question_through_the_answer_to_the_side(
    show: Callable[..., Shown],
) -> None:
    page = show(answered(text=WRITTEN)).ask()
    page.focus("#question")
    order = []
    for _ in range(40):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate(
                """() => {
                    const places = ["search", ".written", ".passage", ".trail", "#side"];
                    return places.find(one => document.activeElement.closest(one)) ?? "";
                }"""
            )
        )
    seen = list(dict.fromkeys(one for one in order if one))
    assert seen[:5] == ["search", ".written", ".passage", ".trail", "#side"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_stands_out_from_the_ground_in_either_scheme(
    show: Callable[..., Shown], window: Window, scheme: Any
) -> None:
    window.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    shown = show(answered(text=WRITTEN, status="contradicted"))
    page = shown.ask()
    for name in (
        *("#about", "#hint", "#ask", "#question", ".verdict h2", ".verdict p", ".written"),
        *(".cite", ".by", ".checked strong", ".passage .rank", ".passage .text", "mark"),
        *(".gauge", ".support", ".no-support", ".chip", "summary", "#caption", "#pins li"),
    ):
        assert contrast(page, name) >= 4.5, name
    for verdict in ("ambiguous", "not_found"):
        shown.answerer._make = answered(verdict=verdict)
        shown.ask()
        assert contrast(page, ".verdict h2") >= 4.5
        assert contrast(page, ".verdict p") >= 4.5
    shown.ask("word " * 300)
    assert contrast(page, "#trouble strong") >= 4.5
    is_dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    assert is_dark == (scheme == "dark")


def test_nothing_moves_where_no_motion_is_wanted(show: Callable[..., Shown]) -> None:
    shown = show()
    shown.answerer.held.clear()
    page = shown.page
    page.fill("#question", QUESTION)
    page.press("#question", "Enter")
    page.wait_for_selector("#waiting:not([hidden])")
    assert page.evaluate("document.getAnimations().length") == 0
    shown.answerer.held.set()


@pytest.mark.parametrize("width", [320, 390, 700, 1000, 1600])
def test_the_page_fits_every_width(show: Callable[..., Shown], width: int) -> None:
    """320 CSS pixels is what WCAG 2.1 asks for (1.4.10, reflow)."""
    shown = show(answered(text=WRITTEN))
    shown.page.set_viewport_size({"width": width, "height": 700})
    page = shown.ask("A very" + "long" * 60 + "word in the question")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


# ---- a corpus that attacks -------------------------------------------------------------------


def test_a_corpus_that_attacks_stays_text(show: Callable[..., Shown], window: Window) -> None:
    def make(question: str) -> Answer:
        answer = make_answer(question, points=POINTS, text=f"{ATTACK} [1]", status="unverified")
        passage = answer.passages[0].model_copy(
            update={
                **dict.fromkeys(("text", "title", "doc_id", "cluster_title", "revision"), ATTACK),
                "matches": ((2, 20),),
            }
        )
        trail = answer.trail.model_copy(
            update={
                "clusters_searched": tuple(
                    one.model_copy(update={"title": ATTACK})
                    for one in answer.trail.clusters_searched
                )
            }
        )
        return answer.model_copy(
            update={
                "passages": (passage, *answer.passages[1:]),
                "trail": trail,
                "written_by": ATTACK,
                "verification": answer.verification.model_copy(update={"by": ATTACK}),
                "gate": answer.gate.model_copy(update={"provenance": ATTACK}),
            }
        )

    shown = show(make)
    page = shown.ask(ATTACK)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.locator("#searched .chip").first.click()
    assert ATTACK[:40] in page.inner_text("#passage-1 .text")
    assert ATTACK[:40] in page.inner_text(".written")
    assert page.title() == f"{ATTACK[:60]} – Acidburn"
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert page.locator("a[href^=javascript]").count() == 0
    assert not [one for one in window.requests if ":9/" in one]
    assert window.complaints == []


def test_the_policy_forbids_what_an_injected_script_would_do(
    show: Callable[..., Shown], window: Window
) -> None:
    page = show().page
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            try { script.textContent = "document.title = 'hacked'"; } catch {}
            document.body.append(script);
            const image = new Image();
            image.src = "http://127.0.0.1:9/x";
            document.body.append(image);
        }"""
    )
    markup = page.evaluate(
        "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'set'; }"
        " catch { return 'refused'; } })()"
    )
    asked = page.evaluate("fetch('http://127.0.0.1:9/x').then(() => 'sent', () => 'refused')")
    assert (markup, asked) == ("refused", "refused")
    assert page.title() == "Acidburn"
    assert [one for one in window.complaints if "Security Policy" in one]


def test_no_other_page_may_frame_this_one(show: Callable[..., Shown], window: Window) -> None:
    shown = show()
    shown.page.goto("about:blank")
    shown.page.set_content(f"<iframe src='{shown.service.url}/'></iframe>")
    shown.page.wait_for_timeout(300)
    inside = [frame for frame in shown.page.frames if frame != shown.page.main_frame]
    assert all("question" not in frame.content() for frame in inside)

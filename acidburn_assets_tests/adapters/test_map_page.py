"""The map's page as a file and in a browser: alone in the world, found, zoomed, and inert."""

import hashlib
import json
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from acidburn_assets.adapters import map_page
from acidburn_assets_tests import map_samples
from acidburn_assets_tests.browser import Window

ATTACK = (
    "</script></style><script>document.title='hacked'</script>"
    "<img src=http://127.0.0.1:9/x onerror=\"document.title='h'\">$content&lt;b&gt;\u202e\u2028"
)


def read(folder: str, name: str) -> bytes:
    return (resources.files("acidburn_assets.adapters") / folder / name).read_bytes()


# ---- the file --------------------------------------------------------------------------------


def test_the_library_is_the_released_file_with_its_licence() -> None:
    assert hashlib.sha256(read("vendor", map_page.D3)).hexdigest() == map_page.D3_SHA256
    licence = read("vendor", map_page.D3.replace(".min.js", ".LICENSE"))
    assert b"Permission to use, copy, modify, and/or distribute this software" in licence


def test_a_page_holds_its_content_and_nothing_else_of_it() -> None:
    content = json.dumps({"text": ATTACK}).encode()
    page = map_page.render(content, title="map").decode()
    (packed,) = re.findall(
        r'<script type="text/plain" id="content">([A-Za-z0-9+/=]*)</script>', page
    )
    assert zlib.decompress(b64decode(packed)) == content
    assert page.replace(packed, "") == map_page.render(b"", title="map").decode().replace(
        "eNoDAAAAAAE=", ""
    )


def test_a_title_is_escaped() -> None:
    page = map_page.render(b"{}", title="a</title><script>alert(1)</script>").decode()
    assert "a&lt;/title&gt;&lt;script&gt;" in page


def test_a_page_has_the_same_bytes_each_time() -> None:
    assert map_page.render(b"{}", title="map") == map_page.render(b"{}", title="map")


def test_nothing_in_our_script_makes_markup_of_text_or_asks_for_anything() -> None:
    script = read("web", "map.js").decode()
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert word not in script
    for word in ("fetch(", "XMLHttpRequest", "import(", "http://", "https://", ".html("):
        assert word not in script


# ---- in a browser ----------------------------------------------------------------------------


@pytest.fixture
def show(window: Window, tmp_path: Path) -> Callable[..., Page]:
    """Opens the page of a made-up map."""

    def opened(content: bytes, title: str = "science") -> Page:
        path = tmp_path / "map.html"
        path.write_bytes(map_page.render(content, title=title))
        return window.open(path)

    return opened


def labels(page: Page) -> list[dict[str, Any]]:
    """Text, kind and box of every label on the screen."""
    return list(
        page.eval_on_selector_all(
            ".label",
            """labels => labels.map(label => {
                const {left, top, right, bottom} = label.getBoundingClientRect();
                return {text: label.textContent, ...label.dataset, left, top, right, bottom};
            })""",
        )
    )


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two labels share more than an edge."""
    return bool(
        one["left"] < other["right"]
        and other["left"] < one["right"]
        and one["top"] < other["bottom"]
        and other["top"] < one["bottom"]
    )


def settled(page: Page) -> None:
    """Waits until what was asked for is drawn."""
    page.evaluate(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def find(page: Page, query: str) -> str:
    """What the page says of a search."""
    page.fill("#search", query)
    page.press("#search", "Enter")
    settled(page)
    return page.inner_text("#found")


def points_of(page: Page) -> list[tuple[float, float]]:
    """Where on the screen something is drawn in full colour, left to right."""
    found = page.evaluate(
        """() => {
            const canvas = document.querySelector("#points");
            const {width, height} = canvas;
            const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
            const places = [];
            for (let x = 300; x < width; x += 3) for (let y = 0; y < height; y += 3) {
                const [r, g, b] = data.slice(4 * (y * width + x), 4 * (y * width + x) + 3);
                if (Math.max(r, g, b) - Math.min(r, g, b) > 25) places.push([x, y]);
            }
            return places;
        }"""
    )
    return [(x, y) for x, y in found]


def on_point(page: Page, point: int) -> tuple[float, float]:
    """Brings a passage into the middle; says where it is."""
    assert find(page, map_samples.name_of(point)).startswith("1 passage in 1 cluster")
    page.keyboard.press("Escape")
    box = page.locator("#panel").bounding_box()
    assert box is not None
    return (box["x"] + box["width"] + 1280) / 2, 400


def ink(page: Page) -> float:
    """How colourful the drawn points are in all: their saturation, summed."""
    return float(
        page.evaluate(
            """() => {
                const canvas = document.querySelector("#points");
                const {width, height} = canvas;
                const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
                let sum = 0;
                for (let i = 0; i < data.length; i += 4) {
                    const rgb = [data[i], data[i + 1], data[i + 2]];
                    sum += data[i + 3] * (Math.max(...rgb) - Math.min(...rgb));
                }
                return sum;
            }"""
        )
    )


def contrast(page: Page, selector: str) -> float:
    """Of a text on the panel, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        linear = [
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
        ]
        return sum(
            share * value for share, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
        )

    ink_, ground = page.evaluate(
        """selector => [
            getComputedStyle(document.querySelector(selector)).color,
            getComputedStyle(document.querySelector("#panel")).backgroundColor,
        ]""",
        selector,
    )
    low, high = sorted(luminance(colour) + 0.05 for colour in (ink_, ground))
    return high / low


@pytest.mark.parametrize(("n", "n_clusters"), [(5_000, 60), (100_000, 400)])
def test_a_map_opens_zooms_and_is_searched_without_a_request_or_complaint(
    show: Callable[..., Page], window: Window, n: int, n_clusters: int
) -> None:
    page = show(map_samples.content(n, n_clusters=n_clusters))
    assert page.inner_text("#counts") == f"{n:,} passages of {10 * n:,}, {n_clusters} clusters"
    assert page.evaluate("document.querySelector('#points').getContext('2d') !== null")
    x, y = on_point(page, n - 1)
    page.mouse.move(x, y)
    page.wait_for_selector("#card:not([hidden])")
    assert page.inner_text("#beginning").startswith(f"{map_samples.name_of(n - 1)} tells of ")
    assert re.match(r"Topic \d+: |noise, nearest to Topic", page.inner_text("#cluster"))
    page.mouse.wheel(0, 800)
    settled(page)
    assert [one for one in window.requests if not one.startswith("file://")] == []
    assert len(window.requests) == 1
    assert window.complaints == []


def test_hovering_names_passage_cluster_group_document_and_dataset(
    show: Callable[..., Page],
) -> None:
    page = show(map_samples.content(600))
    page.mouse.move(*on_point(page, 1))
    assert page.inner_text("#group") == "Region 0 › Group 0"
    assert page.inner_text("#cluster").endswith("Topic 0: matrix thread")
    assert page.inner_text("#origin") == "documents/0.txt · open"
    page.mouse.move(1270, 790)
    assert page.locator("#card").is_hidden()


def test_a_click_holds_a_passage_until_it_is_let_go(show: Callable[..., Page]) -> None:
    page = show(map_samples.content(600))
    x, y = on_point(page, 1)
    page.mouse.click(x, y)
    page.mouse.move(1270, 790)
    assert page.inner_text("#beginning").startswith("Passage-000001 tells")
    assert page.inner_text("#keywords") == "keyword0, matrix"
    assert "Passage-000001 tells" in page.inner_text("#said")
    before = page.locator("#ring").bounding_box()
    page.mouse.move(x - 200, y + 100)
    page.mouse.wheel(0, 300)
    settled(page)
    assert page.locator("#ring").bounding_box() != before  # it stays with its point
    page.click("#close")
    assert page.locator("#card").is_hidden()


def test_a_text_that_may_not_be_redistributed_is_told_as_such(show: Callable[..., Page]) -> None:
    page = show(map_samples.content(600))
    assert find(page, "passage-000005") == "nothing found"  # every fifth is of such a dataset
    assert find(page, "documents/1.txt").startswith("2 passages")  # 3 and 5; 4 has a title
    for x, y in points_of(page):
        page.mouse.move(x, y)
        if page.inner_text("#dataset") == "· shut":
            break
    assert page.inner_text("#beginning") == "The text may not be redistributed."
    assert page.inner_text("#document") == "documents/1.txt"
    assert "shut: private, without texts" in page.inner_text("#datasets")


def test_far_away_groups_are_named_and_near_by_their_clusters(show: Callable[..., Page]) -> None:
    page = show(map_samples.content(5_000))
    far = labels(page)
    assert {label["kind"] for label in far} == {"group"}
    (group,) = [label for label in far if label["text"] == "Group 5"]
    page.mouse.move(group["left"] + 5, group["top"] + 5)
    n_kinds = set()
    for _ in range(12):
        page.mouse.wheel(0, -120)
        settled(page)
        here = labels(page)
        n_kinds.add(len({label["kind"] for label in here}))
        for index, one in enumerate(here):
            assert not any(overlap(one, other) for other in here[:index])
    assert 2 in n_kinds  # where one group is wide enough already, another is not
    assert {label["kind"] for label in labels(page)} == {"cluster"}
    page.focus("#map")
    page.keyboard.press("0")
    settled(page)
    assert [label["text"] for label in labels(page)] == [label["text"] for label in far]


def test_a_pool_without_groups_shows_its_clusters(show: Callable[..., Page]) -> None:
    content = json.loads(map_samples.content(600))
    clusters = [node | {"parent": None} for node in content["nodes"] if node["is_cluster"]]
    offset = len(content["nodes"]) - len(clusters)
    nodes = np.frombuffer(b64decode(content["points"]["node"]), dtype="<u4") - np.uint32(offset)
    content["points"]["node"] = b64encode(nodes.tobytes()).decode()
    page = show(json.dumps(content | {"nodes": clusters}).encode())
    assert {label["kind"] for label in labels(page)} == {"cluster"}


@pytest.mark.parametrize("n", [0, 1])
def test_a_map_of_next_to_nothing_opens(show: Callable[..., Page], window: Window, n: int) -> None:
    page = show(map_samples.content(n))
    assert page.inner_text("#counts").startswith(f"{n} passage")
    page.mouse.move(700, 400)
    find(page, "passage")
    assert window.complaints == []


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("keyword7", " in 1 cluster"),
        ("KEYWORD7 matrix", " in 1 cluster"),
        ("topic 12:", " in 1 cluster"),
        ("groupword1", " in 10 clusters"),
        ("document 3", " in "),
        ("passage-000077", "1 passage in 1 cluster"),
        ("no such word", "nothing found"),
    ],
)
def test_words_are_found_in_titles_keywords_groups_documents_and_passages(
    show: Callable[..., Page], query: str, told: str
) -> None:
    assert told in find(show(map_samples.content(600)), query)


def test_what_is_found_is_listed_and_the_rest_is_dimmed(show: Callable[..., Page]) -> None:
    page = show(map_samples.content(600))
    before = ink(page)
    find(page, "keyword7")
    page.keyboard.press("Enter")
    titles = page.locator("#clusters .title").all_inner_texts()
    assert titles == ["Region 0", "Group 0", "Topic 7: branch window"]
    after = ink(page)
    assert after < before / 3
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    settled(page)
    assert page.input_value("#search") == ""
    assert len(page.locator("#clusters .title").all()) > 60


def test_a_cluster_that_is_chosen_in_the_list_is_brought_near(show: Callable[..., Page]) -> None:
    page = show(map_samples.content(5_000))
    page.get_by_role("button", name=re.compile("^Topic 7: ")).click()
    settled(page)
    assert page.locator('#clusters [aria-pressed="true"]').count() == 1
    assert [label["text"] for label in labels(page) if "Topic 7:" in label["text"]]
    page.keyboard.press("Escape")
    assert page.locator('#clusters [aria-pressed="true"]').count() == 0


def test_the_map_is_read_and_moved_by_keys_alone(show: Callable[..., Page]) -> None:
    page = show(map_samples.content(600))
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.focus("#map")
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    settled(page)
    zoomed = float(page.get_attribute("#map", "data-zoom") or "nan")
    first = page.inner_text("#said")
    assert re.match(r"(Noise near )?Topic \d+: ", first)
    page.keyboard.press("Enter")
    assert page.locator("#close").is_visible()
    assert page.inner_text("#said") == first
    page.keyboard.press("Escape")
    page.keyboard.press("-")
    page.keyboard.press("-")
    settled(page)
    assert float(page.get_attribute("#map", "data-zoom") or "nan") < zoomed


def test_everything_that_can_be_used_has_a_name(show: Callable[..., Page]) -> None:
    page = show(map_samples.content(600))
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, [tabindex], nav, aside, section")]
            .filter(one => !(one.getAttribute("aria-label") || one.labels?.length))
            .map(one => one.outerHTML)"""
    )
    assert nameless == []
    assert page.get_by_label("Search titles, keywords and passages").is_enabled()
    for live in ("#found", "#said"):
        assert page.get_attribute(live, "aria-live") == "polite"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_stands_out_from_the_ground_in_either_scheme(
    show: Callable[..., Page], window: Window, scheme: Any
) -> None:
    window.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page = show(map_samples.content(600))
    for name in ("#pool", "#counts", "#found", "#noise"):
        assert contrast(page, name) >= 4.5, name
    is_dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    assert is_dark == (scheme == "dark")


def test_a_corpus_that_attacks_stays_text(show: Callable[..., Page], window: Window) -> None:
    content = json.loads(map_samples.content(60))
    content["beginnings"] = [ATTACK for _ in content["beginnings"]]
    content["documents"] = [f"{name} {ATTACK}" for name in content["documents"]]
    content["pool"] = ATTACK
    for one in content["datasets"]:
        one["licence"] = ATTACK
    for node in content["nodes"]:
        node["title"] = f"{node['title']} {ATTACK}"
        node["keywords"] = [ATTACK]
    page = show(json.dumps(content).encode(), title=ATTACK)
    find(page, "</script>")
    page.focus("#map")
    for key in ("+", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    settled(page)
    assert ATTACK[:30] in page.inner_text("#beginning") or page.locator(".withheld").count()
    assert page.title().startswith(ATTACK[:60])
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 3
    assert [one for one in window.requests if not one.startswith("file://")] == []
    assert window.complaints == []


def test_the_policy_forbids_what_an_injected_script_would_do(
    show: Callable[..., Page], window: Window
) -> None:
    """What runs beside our scripts, however it got in, can neither run inline nor connect."""
    page = show(map_samples.content(60))
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'hacked'";
            document.body.append(script);
            const image = new Image();
            image.src = "http://127.0.0.1:9/x";
            document.body.append(image);
        }"""
    )
    asked = page.evaluate("fetch('http://127.0.0.1:9/x').then(() => 'sent', () => 'refused')")
    assert asked == "refused"
    assert page.title() == "science"
    for refused in ("inline script", "image", "connect"):
        assert [one for one in window.complaints if refused in one and "Security Policy" in one]


def test_a_page_that_was_cut_off_says_so(
    show: Callable[..., Page], window: Window, tmp_path: Path
) -> None:
    page = map_page.render(map_samples.content(60), title="map").decode()
    path = tmp_path / "cut.html"
    path.write_text(re.sub(r'(id="content">.{400})[^<]*', r"\1", page), encoding="utf-8")
    window.page.goto(path.as_uri())
    window.page.wait_for_selector("#trouble:not([hidden])")
    assert "cannot be read" in window.page.inner_text("#trouble")

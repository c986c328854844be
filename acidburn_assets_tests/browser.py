"""A headless Chromium for pages: one for a module of tests, a window of its own for each test."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

__all__ = ["chromium", "chromium_program", "window"]

NAMES = ("chromium", "chromium-browser", "google-chrome")

FLAGS = ("--no-sandbox", "--disable-background-networking")
"""Root, as in CI, may not use the sandbox; the browser itself asks nothing of anywhere."""

SIZE = {"width": 1280, "height": 800}


def program() -> str | None:
    """Path of the Chromium that is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def running() -> Iterator[Browser]:
    """The installed Chromium.

    Raises:
        RuntimeError: there is none.
    """
    found = program()
    if found is None:
        raise RuntimeError(f"no {', '.join(NAMES)} on the path: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*FLAGS])
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def chromium_program() -> str:
    """Skips where no Chromium is installed, but never in CI, which installs it."""
    found = program()
    if found is None and not os.environ.get("CI"):
        pytest.skip("no Chromium is installed")
    assert found is not None, "apt-get install chromium"
    return found


@pytest.fixture(scope="module")
def chromium(chromium_program: str) -> Iterator[Browser]:
    """Not for the whole session: while Playwright runs, no other test could use asyncio."""
    with running() as browser:
        yield browser


class Window:
    """A page with what it asked for and complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda one: self.requests.append(one.url))
        page.on("websocket", lambda one: self.requests.append(one.url))
        page.on("pageerror", lambda one: self.complaints.append(str(one)))
        page.on("console", lambda one: self.complaints.append(one.text))

    def open(self, path: Path) -> Page:
        """Shows a file, and waits until it says that it is ready."""
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-state=ready]", state="attached")
        return self.page


@pytest.fixture
def window(chromium: Browser) -> Iterator[Window]:
    """A window that moves at once, without animation."""
    context = chromium.new_context(viewport=SIZE, reduced_motion="reduce")
    try:
        yield Window(context.new_page())
    finally:
        context.close()

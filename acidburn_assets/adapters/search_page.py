"""Puts the search page together: one HTML file that asks its own service and nothing else.

Style and script are within it, and the policy that it is sent with lets only these run, by their
hashes, and connections be made only to where the page came from.
"""

import base64
import hashlib
from importlib import resources
from string import Template
from typing import NamedTuple


class SearchPage(NamedTuple):
    """The page, and the Content-Security-Policy to send it with."""

    html: bytes
    policy: str


def render() -> SearchPage:
    """The same bytes each time."""
    style, script = _read("search.css"), _read("search.js")
    page = Template(_read("search.html")).substitute(style=style, script=script)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_source(script)}",
            f"style-src {_source(style)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )
    return SearchPage(page.encode(), policy)


def _read(name: str) -> str:
    place = resources.files("acidburn_assets.adapters") / "web" / name
    return place.read_text(encoding="utf-8")


def _source(text: str) -> str:
    """A script or style as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""Puts the page of a pool's map together: one HTML file that asks nothing of anywhere.

`web/` holds the page, `vendor/` the released library that it moves and searches with; what it
shows is said by `core.map_page`. A policy in its head lets only these scripts and styles run, by
their hashes, and no connection be made. The content is compressed and in base64, so nothing in it
can be taken for markup.
"""

import base64
import hashlib
import html
import zlib
from importlib import resources
from string import Template

D3 = "d3-7.9.2.min.js"
D3_SHA256 = "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1"
"""dist/d3.min.js of npm's d3 7.9.2, unchanged; its licence (ISC) lies beside it."""


def render(content: bytes, *, title: str) -> bytes:
    """The whole page; the same bytes for the same content, where zlib is the same.

    It needs a browser with DecompressionStream: any since May 2023.

    Args:
        content: what `core.map_page.describe` made.
        title: of the window.
    """
    scripts = [_read("vendor", D3), _read("web", "map.js")]
    style = _read("web", "map.css")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_source, scripts))}",
            f"style-src {_source(style)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    page = Template(_read("web", "map.html")).substitute(
        policy=policy,
        title=html.escape(title),
        style=style,
        content=base64.b64encode(zlib.compress(content, level=9)).decode(),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )
    return page.encode()


def _read(folder: str, name: str) -> str:
    return (resources.files("acidburn_assets.adapters") / folder / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """A script or style as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""Progress on a terminal and in a log: the same story, one line per error."""

import io

from rich.console import Console

from acidburn_assets.commands.progress import Display

REASON = "the bucket is away: " + "a long explanation of what to do about it, " * 10


def shown(*, is_terminal: bool) -> str:
    """What a display writes of one asset with a partition made, one reused and one that failed."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=80, highlight=False)
    with Display(console) as display:
        display.start("notes/embeddings", 3)
        display.made("000000", {"rows": 1234, "seconds": 2.5, "chunks_per_second": 493.6})
        display.made("000001", {"rows": 7, "seconds": 2.5, "reused": True})
        display.failed(REASON)
        display.skip("notes/manifest", "not tried, something upstream failed")
        assert display.n_made == 1
        assert display.failures == [REASON]
        display.start("notes/chunks", 1)
        assert display.n_made == 0
        assert display.failures == []
    return out.getvalue()


def test_a_log_has_a_line_for_each_partition_and_each_error() -> None:
    assert shown(is_terminal=False).splitlines() == [
        "notes/embeddings 000000: 1,234 rows, 2.5 s, 494 chunks/s",
        "notes/embeddings 000001: 7 rows, was there",
        f"notes/embeddings: {REASON}",
        "notes/manifest: not tried, something upstream failed",
    ]


def test_a_terminal_has_a_bar_for_each_asset() -> None:
    written = shown(is_terminal=True)
    assert "notes/embeddings" in written
    assert "2/3" in written
    assert "notes/manifest: not tried, something upstream failed" in written

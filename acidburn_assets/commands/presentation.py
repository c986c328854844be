"""Figures as people read them: bytes, dollars and durations in tables of the command line."""


def format_bytes(n_bytes: float) -> str:
    """`1.8 GB`; decimal units, as object stores bill."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n_bytes) < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} TB"


def format_usd(usd: float) -> str:
    """`$0.0031`, `$12.40`: small sums keep two significant digits."""
    return f"${usd:,.2f}" if usd == 0 or usd >= 0.1 else f"${usd:.2g}"


def format_seconds(seconds: float) -> str:
    """`4.2 s`, `3 min`, `2.5 h`, `1.9 days`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 86_400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"

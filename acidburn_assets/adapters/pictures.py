"""Pictures for metadata and reports, as PNG bytes: lengths, throughput, cluster sizes, the map.

One look for all: white, grey scaffolding, one blue, `projection.HUES` for clusters. Drawn
through Matplotlib's objects, never pyplot, and stored with a palette of 256 colours, because they
are embedded in Dagster's metadata as data URIs.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from acidburn_assets.core import projection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 9.0
DPI = 100
"""900 pixels wide: what Dagster's metadata dialog shows without scaling."""

MAX_CLUSTER_BARS = 30
MAX_SHARD_BARS = 120
MAX_SHARD_NAMES = 12
"""More bars than a picture can show; shards are averaged into so many. Chosen by eye."""

MAX_MAP_LABELS = 25
MAX_LABEL_CHARS = 30
MAX_HEADLINE_CHARS = 90

_HEADLINE_INCHES = 0.62

_INK, _SOFT_INK, _RULE, _NOISE = "#2f3640", "#6b7480", "#dfe3e8", "#d5d9de"
_BLUE, _ORANGE = "#4c78a8", "#c8733a"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so it is on every machine
    "font.size": 9,
    "text.color": _INK,
    "text.parse_math": False,  # a label may hold a dollar sign
    "text.usetex": False,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _SOFT_INK,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": _SOFT_INK,
    "ytick.color": _SOFT_INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": _RULE,
    "grid.linewidth": 0.8,
    "savefig.dpi": DPI,
}


def chunk_lengths(counts: Sequence[int], edges: Sequence[int]) -> bytes:
    """How many chunks have how many tokens.

    Args:
        counts: chunks in each bin; the first is below edges[0], the last from edges[-1] on.
        edges: rising, one less than counts.
    """
    names = [f"<{edges[0]:,}"] + [f"{edge:,}" for edge in edges]
    filled = np.flatnonzero(np.asarray(counts))
    shown = slice(filled[0], filled[-1] + 1) if filled.size else slice(0, len(names))
    total = _count(sum(counts), "chunk")
    with _picture("Tokens per chunk", total, height_inches=3.2) as (figure, axes):
        places = range(len(counts[shown]))
        bars = axes.bar(places, counts[shown], width=0.86, color=_BLUE)
        axes.bar_label(bars, [f"{n:,}" if n else "" for n in counts[shown]], padding=2, fontsize=8)
        axes.set_xticks(places, names[shown])
        axes.margins(y=0.1)
        axes.set_xlabel("tokens, the lower edge of each bar")
        _count_axis(axes, "y")
        return _png(figure)


def shard_throughput(per_second: Mapping[str, float], *, unit: str = "chunks") -> bytes:
    """How fast each shard went, with the median.

    Args:
        per_second: shard key to its rate, in the order to show.
        unit: of the rate.
    """
    rates = np.array(list(per_second.values()), dtype=np.float64)
    shards = list(per_second)
    n_each = max(1, -(-len(rates) // MAX_SHARD_BARS))
    means = [float(rates[start : start + n_each].mean()) for start in range(0, len(rates), n_each)]
    grouping = "" if n_each == 1 else f"; each bar is the mean of {n_each} shards"
    title = f"{unit.capitalize()} per second"
    subtitle = f"{_count(len(rates), 'shard')}{grouping}"
    with _picture(title, subtitle, height_inches=3.2) as (figure, axes):
        axes.bar(range(len(means)), means, width=0.8, color=_BLUE)
        if len(rates):
            median = float(np.median(rates))
            axes.axhline(median, color=_ORANGE, linewidth=1.2)
            axes.annotate(
                f"median {median:,.1f}",
                (1, median),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=_ORANGE,
            )
        step = max(1, -(-len(means) // MAX_SHARD_NAMES))
        axes.set_xticks(range(0, len(means), step), shards[:: n_each * step])
        axes.set_xlabel("shard")
        _count_axis(axes, "y")
        return _png(figure)


def cluster_sizes(sizes: Sequence[int] | np.ndarray, labels: Sequence[str]) -> bytes:
    """Chunks of the largest clusters.

    Args:
        sizes: of each cluster.
        labels: of each cluster, in the same order.
    """
    counts = np.asarray(sizes, dtype=np.int64)
    largest = np.argsort(-counts, kind="stable")[:MAX_CLUSTER_BARS]
    rest = int(counts.sum() - counts[largest].sum())
    shown = f"the largest {len(largest)} hold all but {rest:,}" if rest else "all shown"
    subtitle = f"{_count(counts.sum(), 'chunk')} in {_count(len(counts), 'cluster')}; {shown}"
    height_inches = 1.3 + 0.21 * max(4, len(largest))
    with _picture("Chunks per cluster", subtitle, height_inches=height_inches) as (figure, axes):
        places = range(len(largest))
        bars = axes.barh(places, counts[largest], height=0.74, color=_BLUE)
        axes.bar_label(bars, [f"{n:,}" for n in counts[largest]], padding=3, fontsize=8)
        axes.set_yticks(places, [_legible(labels[cluster]) for cluster in largest])
        axes.set_ylim(max(4, len(largest)) - 0.4, -0.6)
        axes.margins(x=0.08)
        _count_axis(axes, "x")
        return _png(figure)


def pool_map(table: pa.Table, *, titles: Mapping[int, str], title: str) -> bytes:
    """The pool as a map: a colour for each cluster, noise in grey, names on the largest.

    Args:
        table: rows of `schemas.PROJECTION`.
        titles: cluster id to its label; a cluster without one is not named.
        title: of the picture.
    """
    points = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()])  # (n, 2) float32
    cluster_ids = table["cluster_id"].to_numpy()
    is_noise = table["is_noise"].to_numpy()
    places = projection.anchors(points, cluster_ids, is_noise)
    noise_share = float(is_noise.mean()) if len(is_noise) else 0.0
    subtitle = (
        f"{_count(len(points), 'chunk')}, {_count(len(places), 'cluster')}, "
        f"{noise_share:.0%} noise (grey)"
    )
    hue_of = projection.far_apart_hues(places)
    hues = [projection.HUES[hue_of[int(cluster)]] for cluster in cluster_ids[~is_noise]]
    dot = float(np.clip(30_000 / max(1, len(points)), 5, 30))  # chosen by eye
    with _picture(title, subtitle, height_inches=7.2) as (figure, axes):
        axes.set_axis_off()
        axes.margins(0.04)
        axes.scatter(points[is_noise, 0], points[is_noise, 1], s=0.6 * dot, c=_NOISE, linewidths=0)
        axes.scatter(
            points[~is_noise, 0], points[~is_noise, 1], s=dot, c=hues, linewidths=0, alpha=0.8
        )
        named = {cluster: place for cluster, place in places.items() if titles.get(cluster)}
        _name_places(figure, axes, named, titles)
        return _png(figure)


@contextmanager
def _picture(
    title: str, subtitle: str, *, height_inches: float
) -> Iterator[tuple["Figure", "Axes"]]:
    """A figure in our style with a headline, and its only axes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        top = 1 - _HEADLINE_INCHES / height_inches
        figure.set_layout_engine("constrained", rect=(0, 0, 1, top), w_pad=0.12, h_pad=0.08)
        for text, drop_inches, size, weight, colour in (
            (title, 0.12, 12, "bold", _INK),
            (subtitle, 0.37, 9, "normal", _SOFT_INK),
        ):
            figure.text(
                0.12 / WIDTH_INCHES,
                1 - drop_inches / height_inches,
                _legible(text, limit=MAX_HEADLINE_CHARS),
                fontsize=size,
                fontweight=weight,
                color=colour,
                va="top",
            )
        yield figure, figure.add_subplot()


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _count_axis(axes: "Axes", which: Literal["x", "y"]) -> None:
    """Whole numbers with separators, and a light grid."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis=which)


def _name_places(
    figure: "Figure",
    axes: "Axes",
    places: Mapping[int, tuple[float, float]],
    titles: Mapping[int, str],
) -> None:
    """Writes the titles of the largest clusters where none covers another."""
    from matplotlib.patheffects import withStroke

    figure.draw_without_rendering()  # only now is the size of the axes known
    frame = axes.get_window_extent()
    halo = withStroke(linewidth=2.6, foreground="white", alpha=0.9)
    texts, wanted = {}, {}
    for cluster, place in places.items():
        text = axes.text(
            0, 0, _legible(titles[cluster]), transform=None, ha="center", va="center", fontsize=8.5
        )
        text.set_path_effects([halo])
        extent = text.get_window_extent()
        x, y = axes.transData.transform(place)
        texts[cluster] = text
        wanted[cluster] = projection.Box(
            x - frame.x0, y - frame.y0, extent.width + 6, extent.height + 2
        )
    placed = projection.place_labels(
        wanted, width=frame.width, height=frame.height, limit=MAX_MAP_LABELS
    )
    for cluster, text in texts.items():
        if cluster not in placed:
            text.remove()
            continue
        box, anchor = placed[cluster], wanted[cluster]
        text.set_position((box.x + frame.x0, box.y + frame.y0))
        if box != anchor:
            axes.annotate(
                "",
                (anchor.x + frame.x0, anchor.y + frame.y0),
                (box.x + frame.x0, box.y + frame.y0),
                xycoords="figure pixels",
                textcoords="figure pixels",
                arrowprops={"arrowstyle": "-", "color": _SOFT_INK, "linewidth": 0.6},
            )


def _legible(text: str, *, limit: int = MAX_LABEL_CHARS) -> str:
    """One line of at most `limit` characters, all of which the font has."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    glyphs = get_font(findfont(FontProperties(family=_STYLE["font.family"]))).get_charmap()
    line = " ".join(text.split())
    if len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    return "".join(character if ord(character) in glyphs else "□" for character in line)


def _png(figure: "Figure") -> bytes:
    """The figure in 256 colours, without a date or a version in it."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    with Image.open(drawn) as picture:
        flat = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        flat.save(small, format="png", optimize=True)
    return small.getvalue()

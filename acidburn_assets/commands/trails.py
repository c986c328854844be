"""Trails of an audit as a person reads them: facts first, then what was made, then the shares.

Hashes and ids of runs are cut to their first digits; `--json` has them whole.
"""

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from acidburn_assets.core.audit import (
    ChunkTrail,
    ClusterTrail,
    DocumentTrail,
    Made,
    PassageTrail,
    ShardShare,
    ShardTrail,
)

Trail = ClusterTrail | ShardTrail | DocumentTrail | PassageTrail


def show(trail: Trail, console: Console) -> None:
    """Prints a trail.

    Args:
        trail: of an audit.
        console: where.
    """
    match trail:
        case ClusterTrail():
            _facts(
                console,
                cluster=f"{trail.cluster_id} of {trail.pool}: {trail.title}",
                keywords=", ".join(trail.keywords),
                chunks=f"{trail.n_chunks:,}, and {trail.n_noise:,} of noise nearest to it",
                fitted_on=", ".join(
                    f"{dataset} {version[:12]}" for dataset, version in trail.fitted_on.items()
                ),
            )
            show_made(trail.made, console)
            _shares(trail.shards, console, is_by_shard=True)
        case ShardTrail():
            _facts(
                console,
                shard=f"{trail.dataset}/{trail.shard}",
                rows=_rows(trail.first_row, trail.n_rows),
                revision=trail.revision,
                licence=trail.licence,
            )
            show_made(trail.made, console)
            _shares(trail.clusters, console, is_by_shard=False)
        case DocumentTrail():
            _facts(
                console,
                document=f"{trail.doc_id}: {trail.title}",
                row=f"{trail.doc_row:,} of {trail.dataset}, shard {trail.shard}",
                revision=trail.revision,
            )
            _chunks(trail.chunks, console)
        case PassageTrail():
            _facts(
                console,
                passage=trail.chunk.chunk_id,
                document=f"{trail.doc_id}: {trail.title}",
                row=f"{trail.doc_row:,} of {trail.dataset}, shard {trail.shard}",
                revision=trail.revision,
                licence=trail.licence,
            )
            _chunks([trail.chunk], console)
            show_made(trail.made, console)
            console.print(trail.text, markup=False)


def show_made(made: Iterable[Made], console: Console) -> None:
    """One line per materialization.

    Args:
        made: in the order of the graph.
        console: where.
    """
    rows = [
        (
            one.asset,
            one.run_id[:8],
            one.data_version[:10],
            one.made_at[5:16].replace("T", " "),
            ", ".join(one.stale_because),
        )
        for one in made
    ]
    _print_table(console, ("made", "run", "version", "UTC", "stale by"), rows)


def _facts(console: Console, **facts: str) -> None:
    width = max(map(len, facts))
    for name, value in facts.items():
        console.print(f"{name.replace('_', ' '):<{width}}  {value}", markup=False, soft_wrap=True)


def _shares(shares: Sequence[ShardShare], console: Console, *, is_by_shard: bool) -> None:
    columns = ("shard", "rows", "embeddings") if is_by_shard else ("cluster",)
    rows = []
    for share in shares:
        facts: tuple[str, ...] = (f"{share.cluster_id} {share.cluster_title}",)
        if is_by_shard:
            shard = f"{share.dataset}/{share.shard}"
            facts = (shard, _rows(share.first_row, share.n_rows), share.embeddings_sha256[:12])
        rows.append((f"{share.n_chunks:,}", f"{share.n_noise:,}", *facts))
    _print_table(console, ("chunks", "noise", *columns), rows)


def _chunks(chunks: Sequence[ChunkTrail], console: Console) -> None:
    rows = []
    for chunk in chunks:
        mark = " (noise)" if chunk.is_noise else ""
        rows.append(
            (
                chunk.chunk_id,
                f"{chunk.char_start:,}-{chunk.char_end:,}",
                f"{chunk.n_tokens:,}",
                "" if chunk.strength is None else f"{chunk.strength:.2f}{mark}",
                "" if chunk.cluster_id is None else f"{chunk.cluster_id} {chunk.cluster_title}",
            )
        )
    _print_table(console, ("chunk", "characters", "tokens", "strength", "cluster"), rows)


def _rows(first_row: int, n_rows: int) -> str:
    return f"{first_row:,}-{first_row + n_rows - 1:,}"


def _print_table(console: Console, columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    """What one copies into the next command stays whole; the last column may be cut."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for position, column in enumerate(columns):
        widest = max([len(column), *(len(row[position]) for row in rows)])
        is_last = position == len(columns) - 1
        table.add_column(column, no_wrap=True, min_width=None if is_last else widest)
    for row in rows:
        table.add_row(*row)
    console.print(table)

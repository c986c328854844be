"""Answers of an audit as a person reads them: facts first, then what was made, then the shares.

Hashes and ids of runs are cut to their first digits; `--json` has them whole.
"""

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from acidburn_assets.commands.presentation import format_bytes
from acidburn_assets.core.audit import (
    ChunkTrail,
    ClusterShare,
    ClusterTrail,
    DocumentTrail,
    History,
    Holdings,
    Made,
    Migration,
    PassageTrail,
    ShardShare,
    ShardTrail,
    Staleness,
)
from acidburn_assets.core.lineage import Source

_Trail = ClusterTrail | ShardTrail | DocumentTrail | PassageTrail
Answer = _Trail | History | Staleness | Holdings | Migration


def show(answer: Answer, console: Console) -> None:
    """Prints an answer.

    Args:
        answer: of an audit.
        console: where.
    """
    match answer:
        case ClusterTrail():
            _show_cluster(answer, console)
        case ShardTrail():
            _show_shard(answer, console)
        case DocumentTrail():
            _facts(
                console,
                document=f"{answer.doc_id}: {answer.title}",
                row=f"{answer.doc_row:,} of {answer.dataset}, shard {answer.shard}",
                revision=answer.revision,
                licence=answer.licence,
            )
            _chunks(answer.chunks, console)
            show_made(answer.made, console)
        case PassageTrail():
            _facts(
                console,
                passage=answer.chunk.chunk_id,
                document=f"{answer.doc_id}: {answer.title}",
                row=f"{answer.doc_row:,} of {answer.dataset}, shard {answer.shard}",
                revision=answer.revision,
                licence=answer.licence,
            )
            _chunks([answer.chunk], console)
            show_made(answer.made, console)
            console.print(answer.text, markup=False)
        case History():
            _show_history(answer, console)
        case Staleness():
            _show_staleness(answer, console)
        case Migration():
            _show_migration(answer, console)
        case Holdings():
            _show_holdings(answer, console)


def _show_cluster(trail: ClusterTrail, console: Console) -> None:
    moment = trail.moment
    when = f"{moment.made_at[:16].replace('T', ' ')} UTC, lineage event {moment.lineage_event_id}"
    _facts(
        console,
        cluster=f"{trail.cluster_id} of {trail.pool}: {trail.title}",
        keywords=", ".join(trail.keywords),
        chunks=f"{trail.n_chunks:,}, and {trail.n_noise:,} of noise nearest to it",
        counted=when if moment.asked_for is None else f"{when}, asked for {moment.asked_for}",
        fitted_on=", ".join(
            f"{dataset} {version[:12]}" for dataset, version in trail.fitted_on.items()
        ),
        **_common([share.source for share in trail.shards]),
    )
    show_made(trail.made, console)
    _shards(trail.shards, console)


def _show_shard(trail: ShardTrail, console: Console) -> None:
    _facts(
        console,
        shard=f"{trail.dataset}/{trail.shard}",
        rows=_rows(trail.first_row, trail.n_rows),
        revision=trail.revision,
        licence=trail.licence,
    )
    show_made(trail.made, console)
    if trail.source is not None:
        _facts(
            console,
            counted=f"{trail.source.n_chunks:,} chunks, {trail.source.n_noise:,} of them noise",
            **_common([trail.source]),
        )
    _clusters(trail.clusters, console)


def _common(sources: Sequence[Source]) -> dict[str, str]:
    """What the shards share, as a rule, said once."""
    revisions = sorted({(one.dataset, one.revision) for one in sources})
    models = sorted({(one.model_name, one.model) for one in sources})
    clusterings = sorted({one.cluster_model[:12] for one in sources})
    # while shards are being assigned anew
    mixed = ": a cluster has other members in each" if len(clusterings) > 1 else ""
    return {
        "revisions": ", ".join(f"{dataset} {revision[:12]}" for dataset, revision in revisions),
        "encoder": ", ".join(f"{name} {model[:12]}" for name, model in models),
        "code": ", ".join(
            sorted(
                {one.embeddings_code_version for one in sources}
                | {one.assignments_code_version for one in sources}
            )
        ),
        "clustering": ", ".join(clusterings) + mixed,
    }


def _show_migration(told: Migration, console: Console) -> None:
    counts = [f"{n:,} {kind}" for kind, n in told.counts.items() if n]
    _facts(
        console,
        clusters=f"of {told.pool}, generation {told.generation}, {told.version[:12]}",
        before="none, it is the first" if told.previous is None else told.previous[:12],
        fitted_on=", ".join(
            f"{dataset} {version[:12]}" for dataset, version in told.fitted_on.items()
        ),
        counts=", ".join(counts),
    )
    rows = [
        (
            relation.kind,
            _number(relation.old_cluster_id),
            _number(relation.new_cluster_id),
            f"{relation.n_shared:,}",
            _share(relation.share_of_old),
            _share(relation.share_of_new),
            "" if relation.cosine is None else f"{relation.cosine:.3f}",
            relation.title,
        )
        for relation in told.relations
    ]
    columns = ("became", "before", "now", "shared", "of before", "of now", "cosine", "title")
    _print_table(console, columns, rows)


def _number(cluster_id: int | None) -> str:
    return "" if cluster_id is None else str(cluster_id)


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _show_history(told: History, console: Console) -> None:
    rows = []
    for event in told.events:
        changed = "first" if event.changed is None else ", ".join(event.changed) or "nothing"
        rows.append(
            (
                str(event.event_id),
                event.asset + ("" if event.shard is None else f"/{event.shard}"),
                event.made_at[:16].replace("T", " "),
                event.run_id[:8],
                f"{changed} (reused)" if event.is_reused else changed,
                event.data_version[:12],
                "" if event.n_rows is None else f"{event.n_rows:,}",
                event.code_version,
            )
        )
    columns = ("event", "made", "UTC", "run", "changed", "version", "rows", "code")
    _print_table(console, columns, rows)
    if told.has_more:
        console.print("there are older ones: --limit shows more", markup=False)


def _show_staleness(found: Staleness, console: Console) -> None:
    rows = []
    for one in found.stale:
        name = one.asset + ("" if one.shard is None else f"/{one.shard}")
        if one.reason == "missing":
            rows.append((name, "never made", "", ""))
        for change in one.changes:
            then, now = _version(change.recorded), _version(change.current)
            rows.append((name, change.what, then, now))
    if rows:
        _print_table(console, ("stale", "by", "recorded", "now"), rows)
    console.print(
        f"{len(found.stale):,} of {found.n_partitions:,} asset partitions of {found.target} are "
        "not current",
        markup=False,
    )


def _version(version: str | None) -> str:
    # a code version ends with its hash; what is a hash alone is known by its first digits
    if version is None:
        return "none"
    return version if "-" in version else version[:12]


def _show_holdings(found: Holdings, console: Console) -> None:
    if found.wrong:
        _print_table(
            console,
            ("not as recorded", "is", "recorded", "found"),
            [(one.where, one.problem, one.recorded[:12], _short(one.found)) for one in found.wrong],
        )
    if found.left_over:
        _print_table(
            console,
            ("recorded by nothing", "holds"),
            [(one.where, _amount(one.n_bytes, one.n_rows)) for one in found.left_over],
        )
    looked = "read to the last byte" if found.is_deep else "by their checksums, not read"
    _facts(
        console,
        objects=f"{found.n_objects:,} recorded, {format_bytes(found.n_bytes)}, {looked}",
        slices=f"{found.n_slices:,} recorded in Postgres",
        wrong=f"{len(found.wrong):,}",
        left_over=f"{len(found.left_over):,}",
        own=f"{found.n_own_objects:,} caches, pictures, parts and failures, "
        f"{format_bytes(found.n_own_bytes)}",
    )


def _short(found: str) -> str:
    return found[:12] if len(found) == 64 else found


def _amount(n_bytes: int | None, n_rows: int | None) -> str:
    return f"{n_rows or 0:,} rows" if n_bytes is None else format_bytes(n_bytes)


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


def _shards(shares: Sequence[ShardShare], console: Console) -> None:
    rows = [
        (
            f"{share.n_chunks:,}",
            f"{share.n_noise:,}",
            f"{share.source.dataset}/{share.source.shard}",
            _rows(share.source.first_row, share.source.n_rows),
            share.source.embeddings_sha256[:12],
            share.source.embeddings_run_id[:8],
            share.source.assignments_sha256[:12],
            share.source.assignments_run_id[:8],
        )
        for share in shares
    ]
    columns = ("chunks", "noise", "shard", "rows", "embeddings", "run", "assignments", "run")
    _print_table(console, columns, rows)


def _clusters(shares: Sequence[ClusterShare], console: Console) -> None:
    rows = [
        (f"{share.n_chunks:,}", f"{share.n_noise:,}", f"{share.cluster_id} {share.title}")
        for share in shares
    ]
    _print_table(console, ("chunks", "noise", "cluster"), rows)


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

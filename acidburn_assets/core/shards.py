"""Units and shards: which rows of a dataset one partition holds, and how to read just those.

A unit is the smallest piece of a dataset that can be read without what stands before it (a
Parquet row group, a block of lines, a file). A shard is a contiguous run of units, so shard N
never depends on the shards before it.
"""

from collections.abc import Sequence

from acidburn_assets.core import keys
from acidburn_assets.core.records import Record


class Unit(Record):
    """A piece of a dataset that is read by itself."""

    path: str  # relative to the dataset's root; never a path of the machine
    index: int  # within its file: row group or block
    first_row: int  # in the dataset, 0-based
    n_rows: int
    n_bytes: int  # uncompressed text, or the nearest that is known without reading it
    offset: int = 0  # byte offset in the file, where the format has one
    digest: str = ""  # what must still be true when it is read: hash of footer, block or file


class Shard(Record):
    """A contiguous row range of a dataset: one partition of its assets."""

    key: str
    first_row: int
    n_rows: int
    estimated_chunks: int
    units: tuple[Unit, ...]


def cut_shards(
    units: Sequence[Unit], estimated_chunks: Sequence[float], *, chunks_per_shard: int
) -> tuple[Shard, ...]:
    """Cuts consecutive units into shards of about `chunks_per_shard` estimated chunks.

    A shard is closed at the unit border that leaves it nearest to its target; every shard has at
    least one unit. No unit, no shard.

    Args:
        units: in dataset order, rows contiguous from 0.
        estimated_chunks: of each unit, same length.
        chunks_per_shard: target, at least 1.
    """
    groups: list[list[int]] = []
    filled = 0.0
    for index, (_, expected) in enumerate(zip(units, estimated_chunks, strict=True)):
        overshoot = filled + expected - chunks_per_shard
        is_nearer_without = overshoot > chunks_per_shard - filled
        if not groups or filled >= chunks_per_shard or is_nearer_without:
            groups.append([])
            filled = 0.0
        groups[-1].append(index)
        filled += expected
    return tuple(
        Shard(
            key=keys.shard_key(number),
            first_row=units[group[0]].first_row,
            n_rows=sum(units[index].n_rows for index in group),
            estimated_chunks=round(sum(estimated_chunks[index] for index in group)),
            units=tuple(units[index] for index in group),
        )
        for number, group in enumerate(groups)
    )

"""Work inside a shard of embeddings, kept in parts: a killed run loses only the part in its hands.

A shard is encoded window by window, see `core.embeddings.plan_windows`. Whenever a minute has
passed, the windows that were finished in it are stored as one part:

    _parts/<dataset>/embeddings/<shard>/<made_by>/<first row>-<end row>.parquet

Whoever makes the shard again, from the same chunks with the same model on the same kind of device,
takes the rows of parts over and encodes only the others. A part is used if all of it proves right,
each by itself: a damaged one costs its own rows and no other's. Once the shard is stored its parts
are deleted; what cannot be deleted is left to the bucket's lifecycle rule.
"""

import hashlib
import json
import logging
import re
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from acidburn_assets.adapters import object_store
from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core import keys, schemas
from acidburn_assets.core.embeddings import Encoder, Tally
from acidburn_assets.core.errors import (
    AcidburnError,
    ObjectCorrupt,
    ObjectMissing,
    SchemaError,
    StoreError,
    StoreUnavailable,
)

PART_SECONDS = 60
"""How much work a part holds. Chosen, not measured: what a kill may cost, against one upload more
for all rows of a shard that takes longer."""

PART_BYTES = 256 << 20
"""Most that waits in memory for its part, whatever the time. Chosen, not measured: a minute of a
fast GPU, 1,000 vectors of 1,024 values a second."""

PARTS_VERSION = 2
"""Raised whenever parts of older code must not be taken over."""

_NAME = re.compile(r"(\d{9})-(\d{9})\.parquet")
_TOKENS = "tokens"
_TRUNCATED = "truncated"

_logger = logging.getLogger(__name__)


class Windows:
    """The chunks of a shard in windows: ids in memory, texts read when a window asks for them."""

    def __init__(self, file: pq.ParquetFile, *, batch_tokens: int) -> None:
        """Reads the ids and lengths of all chunks.

        Args:
            file: a table of `schemas.CHUNKS`, open as long as texts are asked for.
            batch_tokens: of the encoder, see `Encoder.batch_tokens`.
        """
        rows = file.read(["chunk_id", "n_tokens"])
        self.ids: pa.Array = rows["chunk_id"].combine_chunks()  # (n,) 16 bytes each
        self.ranges = embedding.plan_windows(
            rows["n_tokens"].to_numpy(), window_tokens=embedding.WINDOW_BATCHES * batch_tokens
        )
        self._starts = [0]  # row at which each row group starts, and the end
        for group in range(file.num_row_groups):
            self._starts.append(self._starts[-1] + file.metadata.row_group(group).num_rows)
        # windows follow on each other: a row group is read once, and one is in memory
        self._read = lru_cache(maxsize=1)(
            lambda group: file.read_row_group(group, ["text"])["text"]
        )

    def texts(self, window: range) -> list[str]:
        """What is to be encoded, in order."""
        first = bisect_right(self._starts, window.start) - 1
        texts: list[str] = []
        for group in range(first, bisect_left(self._starts, window.stop)):
            start = max(window.start - self._starts[group], 0)
            end = window.stop - self._starts[group]
            texts += self._read(group).slice(start, end - start).to_pylist()
        return texts


class _Part(NamedTuple):
    """A part that proved right."""

    rows: pa.Table  # of `schemas.embeddings`
    n_tokens: int
    n_truncated: int


class _Unsaved:
    """Finished windows that are in no part yet; they follow on each other."""

    def __init__(self, first_row: int, part_seconds: float) -> None:
        self.first_row = first_row
        self._part_seconds = part_seconds
        self.batches: list[pa.RecordBatch] = []
        self.tally = Tally()
        self._since = time.monotonic()

    @property
    def end_row(self) -> int:
        """One past the last row."""
        return self.first_row + self.tally.n_rows

    @property
    def is_due(self) -> bool:
        """True when it is time for a part."""
        n_bytes = sum(batch.nbytes for batch in self.batches)
        is_time = time.monotonic() - self._since >= self._part_seconds
        return is_time or n_bytes >= PART_BYTES


class Parts:
    """The parts of one shard: what an earlier run left, and what this one adds.

    Attributes:
        n_written: parts that were stored by this one.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: dg.AssetKey,
        shard: str,
        model: Encoder,
        *,
        made_by: str,
        part_seconds: float | None = None,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            store: where the shard itself will be.
            key: of the asset.
            shard: its partition.
            model: encodes what is in no part.
            made_by: see `made_by`.
            part_seconds: how much work a part holds; `PART_SECONDS` where it is left out.
        """
        owner, asset = key.path
        self.n_written = 0
        self._store = store
        self._model = model
        self._part_seconds = PART_SECONDS if part_seconds is None else part_seconds
        self._schema = schemas.embeddings(model.card.dim)
        self._of_shard = keys.PARTS_FOLDER + keys.object_key(owner, asset, shard, suffix="/")
        self._folder = f"{self._of_shard}{made_by}/"
        self._known: set[str] = set()  # keys of the shard's parts, whoever made them

    def embed(self, windows: Windows, tally: Tally) -> Iterator[pa.RecordBatch]:
        """The rows of `schemas.embeddings` of a shard, from parts where there are.

        Memory: one part, and what `Encoder.embed_iter` takes for the windows that it is ahead.
        An error of ours that ends the encoding comes after the windows that were finished are
        stored as a part.

        Args:
            windows: of the shard.
            tally: counts what is encoded and what is taken over, each as what it is.

        Raises:
            ModelError: as `Encoder.embed_iter`, or a vector is not of unit length.
            ProcessLost, ServiceUnavailable: what encodes is gone.
            StoreError, StoreUnavailable: parts cannot be listed or written.
        """
        self._known = {listed.key for listed in self._store.list(self._of_shard)}
        unsaved = _Unsaved(0, self._part_seconds)
        ranges = deque(windows.ranges)
        while ranges:
            part = self._take(ranges[0].start, windows)
            if part is None:
                # what lies before the next part is encoded in one go
                unknown = [ranges.popleft()]
                while ranges and not self._of_row(ranges[0].start):
                    unknown.append(ranges.popleft())
                unsaved = yield from self._encode(unknown, windows, unsaved, tally)
                continue
            self._write(unsaved)
            unsaved = _Unsaved(ranges[0].start + part.rows.num_rows, self._part_seconds)
            while ranges and ranges[0].start < unsaved.first_row:
                ranges.popleft()  # a part holds several windows
            tally.resume(
                n_rows=part.rows.num_rows, n_tokens=part.n_tokens, n_truncated=part.n_truncated
            )
            yield from part.rows.to_batches()

    def _encode(
        self, ranges: Sequence[range], windows: Windows, unsaved: "_Unsaved", tally: Tally
    ) -> Generator[pa.RecordBatch, None, "_Unsaved"]:
        """The rows of windows; returns what of them is in no part yet."""
        encoded = self._model.embed_iter(map(windows.texts, ranges), "document")
        for window in ranges:
            ids = windows.ids.slice(window.start, len(window))
            try:
                made = next(encoded)
                batch = embedding.record_batch(ids, made.vectors)
            except AcidburnError:
                self._write(unsaved)  # what is finished is kept
                raise
            tally.add(made)
            unsaved.tally.add(made)
            unsaved.batches.append(batch)
            # after the last window the shard itself is stored
            if unsaved.is_due and window.stop < len(windows.ids):
                self._write(unsaved)
                unsaved = _Unsaved(window.stop, self._part_seconds)
            yield batch
        return unsaved

    def delete(self) -> None:
        """Removes all parts of the shard, once it is stored."""
        try:
            for key in sorted(self._known):
                self._store.delete(key)
        except (StoreError, StoreUnavailable) as error:
            # the shard is there: that is no failure, and a box's key may not delete
            _logger.warning(
                "the parts below %r are not deleted, a lifecycle rule of the bucket for '_parts/' "
                "removes them: %s",
                self._store.uri(self._of_shard.removesuffix("/")),
                error,
            )

    def _take(self, first_row: int, windows: Windows) -> _Part | None:
        """The longest part from this row on that proves right."""
        for end_row, key in self._of_row(first_row):
            try:
                part = self._read(key, range(first_row, end_row), windows)
            except (ObjectMissing, ObjectCorrupt, SchemaError) as error:
                _logger.warning("a part is not used, its rows are encoded again: %s", error)
                continue
            _logger.info("rows %d to %d are taken from %r", first_row, end_row, key)
            return part
        return None

    def _of_row(self, first_row: int) -> list[tuple[int, str]]:
        """End row and key of the parts that claim to begin there, the longest first."""
        found = []
        for key in self._known:
            name = _NAME.fullmatch(key.removeprefix(self._folder))
            if name and int(name[1]) == first_row:
                found.append((int(name[2]), key))
        return sorted(found, reverse=True)

    def _read(self, key: str, rows: range, windows: Windows) -> _Part:
        """A part, compared with its checksum and with the chunks that it claims to be of.

        Raises:
            ObjectMissing: another run, which finished the shard, deleted it.
            ObjectCorrupt: it is damaged, or not of these chunks.
            SchemaError: it holds something else.
        """
        stored = self._store.head(key)
        if stored is None:
            raise ObjectMissing(f"the part {key!r} is gone")
        if not {_TOKENS, _TRUNCATED} <= stored.metadata.keys():
            raise ObjectCorrupt(f"the part {key!r} does not say how many tokens were read for it")
        table = object_store.read_table(self._store, key)
        schemas.check(table, self._schema, key=key)
        ids = windows.ids.slice(rows.start, len(rows))
        if not table["chunk_id"].combine_chunks().equals(ids):
            raise ObjectCorrupt(f"the part {key!r} holds other chunks than its name says")
        if not any(rows.stop == window.stop for window in windows.ranges):
            raise ObjectCorrupt(f"the part {key!r} ends within a window")
        return _Part(table, int(stored.metadata[_TOKENS]), int(stored.metadata[_TRUNCATED]))

    def _write(self, unsaved: _Unsaved) -> None:
        if not unsaved.batches:
            return
        key = f"{self._folder}{unsaved.first_row:09d}-{unsaved.end_row:09d}.parquet"
        self._known.add(key)
        object_store.write_parquet(
            self._store,
            key,
            self._schema,
            unsaved.batches,
            metadata={
                _TOKENS: str(unsaved.tally.n_tokens),
                _TRUNCATED: str(unsaved.tally.n_truncated),
            },
            column_encoding=embedding.COLUMN_ENCODING,
        )
        self.n_written += 1


def made_by(code_version: str, chunks_sha256: str, model: Encoder) -> str:
    """16 hex digits over all that decides the bytes of a shard.

    But for the last bits that other hardware of the same kind, another release of torch, or padding
    where it is needed gives the same product: a part is worth more than those.

    Args:
        code_version: of the asset.
        chunks_sha256: of the object that holds the shard's chunks.
        model: that encodes them.
    """
    facts: Sequence[object] = (
        PARTS_VERSION,
        schemas.SCHEMA_VERSION,
        code_version,
        chunks_sha256,
        model.card.fingerprint,
        model.device.partition(":")[0],  # which of several GPUs makes no difference
        model.dtype,
        model.batch_tokens,
        embedding.WINDOW_BATCHES,
        embedding.WINDOW_ROWS,
    )
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

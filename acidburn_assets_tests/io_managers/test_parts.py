"""Parts of a shard: whatever is cut off, the shard comes out the same, and little is done twice."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from acidburn_assets.adapters import object_store
from acidburn_assets.adapters.encoder import load_encoder
from acidburn_assets.adapters.object_store import ObjectStore, open_store
from acidburn_assets.core import embeddings, schemas
from acidburn_assets.core.embeddings import Encoded, Encoder, InputType, Tally
from acidburn_assets.core.errors import ProcessLost, StoreUnavailable
from acidburn_assets.io_managers import parts
from acidburn_assets.io_managers.base import Made
from acidburn_assets.io_managers.objects import Batches, ParquetIOManager
from acidburn_assets.io_managers.parts import Parts, Windows, made_by
from acidburn_assets_tests.fakes import FakeEncoder, FakeTokenizer
from acidburn_assets_tests.s3_server import BUCKET, S3Key

EMBEDDINGS = dg.AssetKey(["notes", "embeddings"])
SHARD = "000000"
CHUNKS_KEY = f"notes/chunks/{SHARD}.parquet"
OBJECT_KEY = f"notes/embeddings/{SHARD}.parquet"
PARTS_FOLDER = f"_parts/notes/embeddings/{SHARD}/"
WORDS = "a shard is a range of the rows of a dataset and clusters are found in embeddings"
PROJECT_ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """What no code of ours may catch, as it cannot catch `kill -9`."""


class MortalEncoder(FakeEncoder):
    """Remembers what it was asked for, and is killed by the window after the last that it may."""

    def __init__(self, *, n_windows: float = float("inf"), batch_tokens: int = 1) -> None:
        super().__init__(batch_tokens=batch_tokens)
        self.asked: list[str] = []
        self._n_left = n_windows

    def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
        self._n_left -= 1
        if self._n_left < 0:
            raise Killed
        self.asked += texts
        return super().encode(texts, input_type)


def sentences(n_texts: int, *, seed: int = 0) -> list[str]:
    """Texts of 1 to 40 words, each of its own."""
    rng = np.random.default_rng(seed)
    return [
        " ".join([f"text{row}", *rng.choice(WORDS.split(), size=rng.integers(40))])
        for row in range(n_texts)
    ]


TEXTS = sentences(120)
TOKENS = FakeTokenizer().count(TEXTS)


def write_chunks(
    store: ObjectStore, texts: Sequence[str] = TEXTS, *, row_group_rows: int = 50
) -> None:
    """Stores the chunks of the shard."""
    rows = [
        {
            "chunk_id": row.to_bytes(16),
            "doc_id": "d",
            "doc_row": 0,
            "title": "",
            "chunk_index": row,
            "char_start": 0,
            "char_end": len(text),
            "n_tokens": n_tokens,
            "text": text,
        }
        for row, (text, n_tokens) in enumerate(
            zip(texts, FakeTokenizer().count(texts), strict=True)
        )
    ]
    batch = pa.RecordBatch.from_pylist(rows, schema=schemas.CHUNKS)
    object_store.write_parquet(
        store, CHUNKS_KEY, schemas.CHUNKS, [batch], row_group_rows=row_group_rows
    )


class Shard:
    """A shard as it was made, or was being made."""

    def __init__(self, store: ObjectStore, model: Encoder, *, code_version: str = "1") -> None:
        chunks = store.head(CHUNKS_KEY)
        assert chunks is not None
        self.store = store
        self.model = model
        self.tally = Tally()
        self.author = made_by(code_version, chunks.sha256, model)
        self.parts = Parts(store, EMBEDDINGS, SHARD, model, made_by=self.author)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """As the asset makes them."""
        with self.store.open_parquet(CHUNKS_KEY) as file:
            windows = Windows(file, batch_tokens=self.model.batch_tokens)
            yield from self.parts.embed(windows, self.tally)

    def make(self) -> str:
        """Stores the shard, and returns its sha256."""
        table = Batches(
            schemas.embeddings(self.model.card.dim),
            self.batches(),
            embeddings.COLUMN_ENCODING,
            after_store=self.parts.delete,
        )
        return (
            ParquetIOManager(self.store)
            .store(EMBEDDINGS, SHARD, Made(table), made_from="", run_id="run-1", is_forced=False)
            .data_version
        )

    def make_until_killed(self) -> None:
        """Leaves what a killed run leaves."""
        with pytest.raises(Killed):
            self.make()
        assert self.store.head(OBJECT_KEY) is None


def part_keys(store: ObjectStore) -> list[str]:
    """What lies in the bucket of parts of the shard."""
    return [listed.key for listed in store.list(PARTS_FOLDER)]


def rows_of(keys: Sequence[str]) -> list[int]:
    """The rows that parts hold, by their names."""
    rows = []
    for key in keys:
        start, end = Path(key).stem.split("-")
        rows += list(range(int(start), int(end)))
    return rows


def planned(model: Encoder) -> list[range]:
    """The windows of `TEXTS`."""
    return embeddings.plan_windows(
        TOKENS, window_tokens=embeddings.WINDOW_BATCHES * model.batch_tokens
    )


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A folder with the chunks of the shard."""
    folder = open_store((tmp_path / "objects").as_uri())
    write_chunks(folder)
    return folder


@pytest.fixture
def bucket(moto_endpoint: str, tmp_path: Path) -> ObjectStore:
    """A bucket with the chunks of the shard."""
    found = open_bucket(moto_endpoint, tmp_path.name, S3Key("any", "any"))
    write_chunks(found)
    return found


def open_bucket(endpoint: str, prefix: str, key: S3Key) -> ObjectStore:
    """A prefix of the test server's bucket."""
    return open_store(
        f"s3://{BUCKET}/{prefix}",
        endpoint=endpoint,
        key_id=key.key_id,
        app_key=SecretStr(key.secret),
        patience_seconds=2,
    )


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every window is a part."""
    monkeypatch.setattr(parts, "PART_SECONDS", 0)


@pytest.fixture(scope="module")
def uninterrupted() -> str:
    """sha256 of the shard made in one go, by a run that wrote no part."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder).as_uri())
        write_chunks(store)
        shard = Shard(store, FakeEncoder(batch_tokens=1))
        sha256 = shard.make()
        assert shard.parts.n_written == 0
        return sha256


# ---- interruptions --------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["store", "bucket"])
def test_a_killed_run_is_taken_up_where_its_parts_end(
    place: str, request: pytest.FixtureRequest, hasty: None, uninterrupted: str
) -> None:
    store: ObjectStore = request.getfixturevalue(place)
    first = MortalEncoder(n_windows=5)
    Shard(store, first).make_until_killed()
    left = part_keys(store)
    assert len(left) == 5
    assert rows_of(left) == list(range(len(first.asked)))

    second = MortalEncoder()
    shard = Shard(store, second)
    assert shard.make() == uninterrupted
    assert second.asked == TEXTS[len(first.asked) :]
    assert part_keys(store) == []
    assert store.head(OBJECT_KEY) is not None


@hypothesis_settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(0, 12), max_size=4), st.integers(1, 5), st.randoms())
def test_whenever_it_is_killed_the_shard_comes_out_the_same(
    uninterrupted: str, lives: list[int], part_windows: int, rng: random.Random
) -> None:
    """Several runs one after the other, each killed, some parts lost in between."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        store = open_store(Path(folder).as_uri())
        write_chunks(store)
        clock = Clock()
        patch.setattr(parts, "time", SimpleNamespace(monotonic=clock.tick))
        patch.setattr(parts, "PART_SECONDS", part_windows)
        for n_more in lives:
            encoder = MortalEncoder(n_windows=n_more, batch_tokens=2)
            known = set(rows_of(part_keys(store)))
            list(_until_killed(Shard(store, encoder)))
            assert not known & {TEXTS.index(text) for text in encoder.asked}
            if part_keys(store) and rng.random() < 0.3:
                store.delete(rng.choice(part_keys(store)))
        last = MortalEncoder(batch_tokens=2)
        known = set(rows_of(part_keys(store)))
        shard = Shard(store, last)
        assert shard.make() == uninterrupted
        asked = {TEXTS.index(text) for text in last.asked}
        assert asked | known == set(range(len(TEXTS)))
        assert not asked & known
        assert len(last.asked) == len(asked)
        assert shard.tally.n_tokens == TOKENS.sum()
        assert part_keys(store) == []


def _until_killed(shard: Shard) -> Iterator[pa.RecordBatch]:
    try:
        yield from shard.batches()
    except Killed:
        return


_HANGS = """
import sys, time
from pathlib import Path
from acidburn_assets.adapters.object_store import open_store
from acidburn_assets.io_managers import parts
from acidburn_assets_tests.io_managers import test_parts

class Hanging(test_parts.MortalEncoder):
    def encode(self, texts, input_type):
        try:
            return super().encode(texts, input_type)
        except test_parts.Killed:
            Path("hangs").touch()
            time.sleep(300)

parts.PART_SECONDS = 0
test_parts.Shard(open_store(sys.argv[1]), Hanging(n_windows=7)).make()
"""
"""Makes the shard, and hangs in the eighth window."""


def test_after_kill_9_only_the_window_in_its_hands_is_made_again(
    store: ObjectStore, tmp_path: Path, uninterrupted: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _HANGS, store.url],
        cwd=tmp_path,
        env={"PATH": os.defpath, "PYTHONPATH": str(PROJECT_ROOT), "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "hangs").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    finally:
        process.kill()
        process.communicate()
    assert store.head(OBJECT_KEY) is None
    encoder = MortalEncoder()
    assert Shard(store, encoder).make() == uninterrupted
    assert encoder.asked == TEXTS[planned(encoder)[6].stop :]


def test_the_real_encoder_makes_the_same_bytes_in_one_go_and_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    """In windows of its own; in one batch with others the same texts get other last bits."""
    monkeypatch.setattr(embeddings, "WINDOW_BATCHES", 2)
    model = load_encoder("minilm", device="cpu", batch_tokens=128)
    texts = sentences(40, seed=1)

    def new_store(name: str) -> ObjectStore:
        store = open_store((tmp_path / name).as_uri())
        write_chunks(store, texts)
        return store

    class Mortal:
        """The model, killed in its fourth window."""

        card, device, dtype, batch_tokens = (
            model.card,
            model.device,
            model.dtype,
            model.batch_tokens,
        )
        n_left = 3

        def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
            self.n_left -= 1
            if self.n_left < 0:
                raise Killed
            return model.encode(texts, input_type)

        def embed_iter(
            self, windows: Iterable[Sequence[str]], input_type: InputType
        ) -> Iterator[Encoded]:
            for texts in windows:
                yield self.encode(texts, input_type)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "PART_SECONDS", 60)
        whole = Shard(new_store("whole"), model)
        sha256 = whole.make()
        assert whole.parts.n_written == 0
    cut = new_store("cut")
    Shard(cut, Mortal()).make_until_killed()
    assert len(part_keys(cut)) == 3
    resumed = Shard(cut, model)
    assert resumed.make() == sha256
    assert 0 < resumed.tally.n_resumed_rows < len(texts)
    assert resumed.tally.n_tokens == whole.tally.n_tokens
    stored = object_store.read_table(cut, OBJECT_KEY)
    together = model.encode(texts, "document").vectors
    # a vector does not depend on its window: these are the same but for the rounding to fp16
    rounded = embeddings.matrix(embeddings.to_storage(together))
    assert (embeddings.matrix(stored["embedding"]) == rounded).all()


# ---- when parts are written -----------------------------------------------------------------


class Clock:
    """A second passes whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def tick(self) -> float:
        self.now += 1
        return self.now


def test_a_part_holds_the_windows_of_its_time(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, uninterrupted: str
) -> None:
    clock = Clock()
    monkeypatch.setattr(parts, "time", SimpleNamespace(monotonic=clock.tick))
    monkeypatch.setattr(parts, "PART_SECONDS", 4)
    encoder = MortalEncoder(n_windows=13)
    windows = planned(encoder)
    shard = Shard(store, encoder)
    shard.make_until_killed()
    expected = [(windows[4 * i].start, windows[4 * i + 3].stop) for i in range(3)]
    names = [f"{shard.author}/{start:09d}-{end:09d}.parquet" for start, end in expected]
    assert part_keys(store) == [PARTS_FOLDER + name for name in names]
    assert shard.parts.n_written == 3
    assert Shard(store, MortalEncoder()).make() == uninterrupted


class FailingEncoder(MortalEncoder):
    """Fails where the other is killed."""

    def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
        try:
            return super().encode(texts, input_type)
        except Killed as error:
            raise ProcessLost("'cuda:0' failed") from error


def test_what_was_finished_before_the_device_failed_is_kept(
    store: ObjectStore, uninterrupted: str
) -> None:
    encoder = FailingEncoder(n_windows=5)
    with pytest.raises(ProcessLost):
        Shard(store, encoder).make()
    (key,) = part_keys(store)
    assert rows_of([key]) == list(range(planned(encoder)[4].stop))
    second = MortalEncoder()
    assert Shard(store, second).make() == uninterrupted
    assert second.asked == TEXTS[planned(encoder)[4].stop :]


def test_a_shard_of_less_than_a_minute_writes_no_part(store: ObjectStore) -> None:
    Shard(store, MortalEncoder(n_windows=5)).make_until_killed()
    assert part_keys(store) == []


def test_nothing_is_written_after_the_last_window(store: ObjectStore, hasty: None) -> None:
    encoder = MortalEncoder()
    shard = Shard(store, encoder)
    list(shard.batches())
    assert rows_of(part_keys(store)) == list(range(planned(encoder)[-1].start))
    assert shard.parts.n_written == len(planned(encoder)) - 1


def test_what_waits_for_its_part_is_bounded(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 20 * (16 + 16 * 4))  # 20 rows, ids and vectors
    encoder = MortalEncoder()
    list(Shard(store, encoder).batches())
    longest = max(map(len, planned(encoder)))
    sizes = [len(rows_of([key])) for key in part_keys(store)]
    assert len(sizes) > 1
    assert all(20 <= size < 20 + longest for size in sizes)


def test_a_shard_without_a_chunk_is_made(store: ObjectStore, hasty: None) -> None:
    write_chunks(store, [])
    shard = Shard(store, MortalEncoder())
    shard.make()
    assert object_store.read_table(store, OBJECT_KEY).num_rows == 0
    assert shard.tally == Tally()


# ---- counting -------------------------------------------------------------------------------


def test_what_was_taken_over_counts_but_makes_nothing_faster(
    store: ObjectStore, hasty: None
) -> None:
    Shard(store, MortalEncoder(n_windows=5)).make_until_killed()
    left = rows_of(part_keys(store))
    shard = Shard(store, MortalEncoder())
    shard.make()
    n_encoded = len(TEXTS) - len(left)
    n_windows = len(planned(shard.model)) - 5
    tally = shard.tally
    assert (tally.n_rows, tally.n_resumed_rows) == (len(TEXTS), len(left))
    assert (tally.n_tokens, tally.n_truncated) == (TOKENS.sum(), 0)
    assert tally.seconds == pytest.approx(0.001 * n_windows)  # what the fake says of each call
    assert tally.rows_per_second == pytest.approx(n_encoded / tally.seconds)
    expected = TOKENS[len(left) :].sum() / tally.seconds
    assert tally.tokens_per_second == pytest.approx(expected)
    assert shard.parts.n_written == n_windows - 1


def test_truncated_texts_of_parts_are_not_forgotten(store: ObjectStore, hasty: None) -> None:
    class Cutting(MortalEncoder):
        def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
            return super().encode(texts, input_type)._replace(n_truncated=len(texts))

    Shard(store, Cutting(n_windows=5)).make_until_killed()
    shard = Shard(store, Cutting())
    shard.make()
    assert shard.tally.n_truncated == len(TEXTS)


# ---- parts that are not trusted -------------------------------------------------------------


def _overwrite(store: ObjectStore, key: str) -> None:
    path = Path(store.uri(key).removeprefix("file://"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    status = path.stat()
    path.write_bytes(bytes(content))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace(
    store: ObjectStore,
    key: str,
    change: Callable[[pa.Table], pa.Table],
    metadata: dict[str, str] | None = None,
) -> None:
    info = store.head(key)
    assert info is not None
    table = change(object_store.read_table(store, key))
    object_store.write_parquet(
        store,
        key,
        table.schema,
        table.to_batches(),
        metadata=info.metadata if metadata is None else metadata,
    )


def _of_other_chunks(store: ObjectStore, key: str) -> None:
    """The same number of rows, all there, of texts that are none of these."""

    def change(table: pa.Table) -> pa.Table:
        ids = [bytes([255 - byte for byte in row]) for row in table["chunk_id"].to_pylist()]
        return table.set_column(0, table.schema.field(0), pa.array(ids, schemas.CHUNK_ID))

    _replace(store, key, change)


def _swapped(store: ObjectStore, key: str) -> None:
    _replace(store, key, lambda table: table.take([1, 0, *range(2, table.num_rows)]))


def _short(store: ObjectStore, key: str) -> None:
    _replace(store, key, lambda table: table.slice(1))


def _of_another_schema(store: ObjectStore, key: str) -> None:
    _replace(store, key, lambda table: table.rename_columns(["chunk_id", "vector"]))


def _without_its_tally(store: ObjectStore, key: str) -> None:
    _replace(store, key, lambda table: table, metadata={})


def _no_table(store: ObjectStore, key: str) -> None:
    store.put_bytes(key, b"no table", metadata={"tokens": "1", "truncated": "0"})


@pytest.mark.parametrize(
    "spoil",
    [
        _overwrite,
        _of_other_chunks,
        _swapped,
        _short,
        _of_another_schema,
        _without_its_tally,
        _no_table,
    ],
)
def test_a_part_that_does_not_prove_right_is_made_again(
    spoil: Callable[[ObjectStore, str], None],
    store: ObjectStore,
    hasty: None,
    uninterrupted: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Shard(store, MortalEncoder(n_windows=6)).make_until_killed()
    left = part_keys(store)
    spoil(store, left[2])
    assert rows_of(left[2:3])[1:]  # else nothing could be swapped
    encoder = MortalEncoder()
    assert Shard(store, encoder).make() == uninterrupted
    # the parts behind it prove right by themselves
    good = rows_of([*left[:2], *left[3:]])
    assert encoder.asked == [text for row, text in enumerate(TEXTS) if row not in good]
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("a part is not used, its rows are encoded again: ")
    assert left[2] in line
    assert part_keys(store) == []


def test_a_hole_between_parts_is_filled_before_the_parts_behind_it_are_used(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, uninterrupted: str
) -> None:
    """Else it would be encoded once more by whoever comes after the next kill."""
    with monkeypatch.context() as patch:
        patch.setattr(parts, "PART_SECONDS", 0)
        Shard(store, MortalEncoder(n_windows=6)).make_until_killed()
    left = part_keys(store)
    store.delete(left[2])
    encoder = MortalEncoder(n_windows=1)
    Shard(store, encoder).make_until_killed()
    assert part_keys(store) == left
    assert encoder.asked == [TEXTS[row] for row in rows_of(left[2:3])]
    assert Shard(store, MortalEncoder()).make() == uninterrupted


def test_a_part_that_ends_within_a_window_is_not_used(
    store: ObjectStore, hasty: None, uninterrupted: str, caplog: pytest.LogCaptureFixture
) -> None:
    Shard(store, MortalEncoder(n_windows=1)).make_until_killed()
    (key,) = part_keys(store)
    n_rows = len(rows_of([key]))
    shorter = key.replace(f"-{n_rows:09d}", f"-{n_rows - 1:09d}")
    table = object_store.read_table(store, key).slice(0, n_rows - 1)
    metadata = {"tokens": "1", "truncated": "0"}
    object_store.write_parquet(store, shorter, table.schema, table.to_batches(), metadata=metadata)
    store.delete(key)
    encoder = MortalEncoder()
    assert Shard(store, encoder).make() == uninterrupted
    assert encoder.asked == TEXTS
    assert "ends within a window" in caplog.text


def test_a_part_that_is_gone_before_it_is_read_is_made_again(
    store: ObjectStore, hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Another run stored the shard and deleted its parts since they were listed."""
    Shard(store, MortalEncoder(n_windows=2)).make_until_killed()
    _, second = part_keys(store)
    encoder = MortalEncoder()
    shard = Shard(store, encoder)
    batches = shard.batches()
    made = [next(batches)]
    store.delete(second)
    made += batches
    assert encoder.asked == TEXTS[made[0].num_rows :]
    assert f"the part '{second}' is gone" in caplog.text
    assert sum(batch.num_rows for batch in made) == len(TEXTS)


def test_of_two_parts_from_one_row_the_longer_is_used(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, uninterrupted: str
) -> None:
    """Two machines were at the shard, at their own pace."""
    with monkeypatch.context() as patch:
        patch.setattr(parts, "PART_SECONDS", 0)
        Shard(store, MortalEncoder(n_windows=2)).make_until_killed()
    kept = {key: store.get_bytes(key) for key in part_keys(store)}
    facts = {key: store.head(key) for key in kept}
    for key in kept:
        store.delete(key)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "time", SimpleNamespace(monotonic=Clock().tick))
        patch.setattr(parts, "PART_SECONDS", 4)
        Shard(store, MortalEncoder(n_windows=4)).make_until_killed()
    (longer,) = part_keys(store)
    for key, content in kept.items():
        info = facts[key]
        assert info is not None
        store.put_bytes(key, content, metadata=info.metadata)
    encoder = MortalEncoder()
    assert Shard(store, encoder).make() == uninterrupted
    assert encoder.asked == TEXTS[rows_of([longer])[-1] + 1 :]
    assert part_keys(store) == []


# ---- whose parts ----------------------------------------------------------------------------


def test_parts_of_another_author_are_ignored_and_deleted_with_the_others(
    store: ObjectStore, hasty: None, uninterrupted: str
) -> None:
    Shard(store, MortalEncoder(n_windows=3), code_version="0").make_until_killed()
    assert len(part_keys(store)) == 3
    neighbor = "_parts/notes/embeddings/000001/0/000000000-000000001.parquet"
    store.put_bytes(neighbor, b"of another shard")
    encoder = MortalEncoder()
    shard = Shard(store, encoder)
    assert shard.make() == uninterrupted
    assert encoder.asked == TEXTS
    assert shard.tally.n_resumed_rows == 0
    assert part_keys(store) == []
    assert [listed.key for listed in store.list("_parts/")] == [neighbor]


class Described:
    """An encoder as far as `made_by` looks."""

    def __init__(self, **changes: Any) -> None:
        fake = FakeEncoder()
        self.card = fake.card.model_copy(update=changes.pop("card", {}))
        self.device = changes.get("device", "cuda")
        self.dtype = changes.get("dtype", "float16")
        self.batch_tokens = changes.get("batch_tokens", 8192)

    def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
        raise AssertionError(f"a {input_type} is encoded: {texts[:1]}")


def test_whatever_decides_the_bytes_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    base = made_by("1", "a", Described())
    others = [
        made_by("2", "a", Described()),
        made_by("1", "b", Described()),
        made_by("1", "a", Described(card={"dim": 17})),
        made_by("1", "a", Described(device="cpu")),
        made_by("1", "a", Described(dtype="float32")),
        made_by("1", "a", Described(batch_tokens=4096)),
    ]
    for module, name in (
        (parts, "PARTS_VERSION"),
        (embeddings, "WINDOW_BATCHES"),
        (embeddings, "WINDOW_ROWS"),
        (schemas, "SCHEMA_VERSION"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, 7)
            others.append(made_by("1", "a", Described()))
    assert len({base, *others}) == len(others) + 1
    assert all(len(author) == 16 for author in others)
    assert made_by("1", "a", Described()) == base
    assert made_by("1", "a", Described(device="cuda:1")) == base


# ---- cleaning up ----------------------------------------------------------------------------


def test_a_key_that_may_not_delete_makes_the_shard_and_says_so_once(
    bucket: ObjectStore,
    tmp_path: Path,
    moto_endpoint: str,
    limited_key: S3Key,
    hasty: None,
    uninterrupted: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limited = open_bucket(moto_endpoint, tmp_path.name, limited_key)
    Shard(limited, MortalEncoder(n_windows=5)).make_until_killed()
    encoder = MortalEncoder()
    assert Shard(limited, encoder).make() == uninterrupted
    assert len(encoder.asked) < len(TEXTS)
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "a lifecycle rule of the bucket for '_parts/' removes them" in line
    assert len(part_keys(limited)) == len(planned(encoder)) - 1


def test_a_shard_that_took_less_than_a_part_deletes_nothing(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(key: str) -> None:
        raise AssertionError(f"{key} was deleted")

    monkeypatch.setattr(store, "delete", refuse)
    Shard(store, MortalEncoder()).make()


def test_a_store_that_goes_away_while_cleaning_up_fails_no_shard(
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    hasty: None,
    uninterrupted: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(key: str) -> None:
        raise StoreUnavailable("no answer from the store")

    monkeypatch.setattr(store, "delete", fail)
    assert Shard(store, MortalEncoder()).make() == uninterrupted
    assert "no answer from the store" in caplog.text


# ---- windows --------------------------------------------------------------------------------


@pytest.mark.parametrize("row_group_rows", [1, 7, 50, 1000])
def test_windows_read_each_row_group_once_and_only_when_asked(
    tmp_path: Path, row_group_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store((tmp_path / "objects").as_uri())
    write_chunks(store, row_group_rows=row_group_rows)
    with store.open_parquet(CHUNKS_KEY) as file:
        read: list[int] = []
        whole = file.read_row_group

        def read_row_group(group: int, columns: Sequence[str]) -> pa.Table:
            read.append(group)
            return whole(group, columns)

        monkeypatch.setattr(file, "read_row_group", read_row_group)
        windows = Windows(file, batch_tokens=1)
        assert read == []
        assert windows.texts(windows.ranges[-1]) == TEXTS[windows.ranges[-1].start :]
        assert file.num_row_groups - 1 in read
        assert row_group_rows == 1000 or 0 not in read
        read.clear()
        assert [text for window in windows.ranges for text in windows.texts(window)] == TEXTS
        expected = range(file.num_row_groups)
        assert read == [group for group in expected if file.num_row_groups > 1]
    assert [window.start for window in windows.ranges[1:]] == [
        window.stop for window in windows.ranges[:-1]
    ]
    assert windows.ids.to_pylist() == [row.to_bytes(16) for row in range(len(TEXTS))]


def test_a_part_is_as_small_as_its_shard(store: ObjectStore, hasty: None) -> None:
    Shard(store, MortalEncoder(n_windows=1)).make_until_killed()
    (key,) = part_keys(store)
    with store.open_parquet(key) as file:
        column = file.metadata.row_group(0).column(1)
    assert "BYTE_STREAM_SPLIT" in column.encodings

"""`D/manifest`: what is sealed is what was recorded, or nothing is."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from acidburn_assets.adapters.object_store import write_parquet
from acidburn_assets.core.manifest import Manifest
from acidburn_assets_tests import samples
from acidburn_assets_tests.adapters import tiny_model
from acidburn_assets_tests.worlds import World, acidburn

SHARD = "notes/embeddings/000001.parquet"


def test_every_shard_is_sealed_with_what_it_was_made_of(world: World) -> None:
    key = "notes/manifest.json"
    manifest = Manifest.from_bytes(world.store.get_bytes(key), key=key)
    assert [entry.shard for entry in manifest.entries] == samples.SHARDS["notes"]
    for entry in manifest.entries:
        for asset, sealed in (("embeddings", entry.sha256), ("chunks", entry.chunks_sha256)):
            stored = world.store.head(f"notes/{asset}/{entry.shard}.parquet")
            assert stored is not None
            assert stored.sha256 == sealed
        file = pq.read_metadata(world.object_path(f"notes/embeddings/{entry.shard}.parquet"))
        assert file.num_rows == entry.n_chunks


def test_a_shard_that_is_not_the_recorded_one_is_not_sealed(copied_world: World) -> None:
    before = copied_world.snapshot()
    table = pq.read_table(copied_world.object_path(SHARD))
    write_parquet(copied_world.store, SHARD, table.schema, table.slice(1).to_batches())
    finished = acidburn("materialize", "notes", "--only", "manifest", "--force")
    assert finished.code == 1
    (line, _) = finished.err.splitlines()
    assert line.startswith(f"notes/manifest: '{SHARD}' holds ")
    assert "materialize the shard again" in line
    assert copied_world.snapshot().rewritten_since(before) == {SHARD}


def test_a_shard_that_is_gone_is_not_sealed(copied_world: World) -> None:
    copied_world.object_path(SHARD).unlink()
    finished = acidburn("materialize", "notes", "--only", "manifest", "--force")
    assert finished.code == 1
    (line, _) = finished.err.splitlines()
    assert line.startswith("notes/manifest: ")
    assert f"{SHARD} is not there: materialize notes/embeddings first" in line


def test_shards_of_another_model_are_named_with_what_would_mend_it(
    copied_world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tiny_model.write(tmp_path / "tiny")
    monkeypatch.setenv("ACIDBURN_MODEL", str(folder))
    before = copied_world.snapshot()
    finished = acidburn("materialize", "notes", "--only", "manifest", "--force")
    assert finished.code == 1
    line = next(line for line in finished.err.splitlines() if line.startswith("notes/manifest: "))
    shards = samples.SHARDS["notes"]
    assert f"{len(shards)} of {len(shards)} shards of 'notes' were embedded by another" in line
    assert f"(384-d) made {len(shards)}: {', '.join(shards)}" in line
    assert "Materialize notes/embeddings of these shards again, or set ACIDBURN_MODEL" in line
    assert copied_world.snapshot().rewritten_since(before) == set()

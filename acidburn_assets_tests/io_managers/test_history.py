"""What assets were: contents under their own hash, and the events that name them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from acidburn_assets.adapters.object_store import ObjectStore, open_store
from acidburn_assets.core.errors import ObjectMissing
from acidburn_assets.io_managers import history

MAP = dg.AssetKey(["library", "cluster_map"])
CHUNKS = dg.AssetKey(["notes", "chunks"])
CURRENT = "library/cluster_map.json"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "objects").as_uri())


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def report(instance: dg.DagsterInstance, shard: str | None, number: int) -> int:
    """Reports a materialization of the chunks; its storage id."""
    instance.report_runless_asset_event(
        dg.AssetMaterialization(CHUNKS, partition=shard, metadata={"number": number})
    )
    (record,) = instance.fetch_materializations(CHUNKS, limit=1).records
    return int(record.storage_id)


def test_what_was_replaced_is_found_by_its_hash(store: ObjectStore) -> None:
    for content in (b"old", b"new"):
        store.put_bytes(CURRENT, content)
        history.keep(store, MAP)
    assert store.get_bytes(CURRENT) == b"new"
    for content in (b"old", b"new"):
        found = history.find(store, MAP, sha256(content))
        assert found == f"library/history/cluster_map/{sha256(content)}.json"
        assert store.get_bytes(found) == content


def test_what_is_kept_already_is_not_written_again(store: ObjectStore) -> None:
    store.put_bytes(CURRENT, b"old")
    history.keep(store, MAP)
    before = list(store.list("library/history/"))
    history.keep(store, MAP)
    assert list(store.list("library/history/")) == before
    assert len(before) == 1


def test_what_is_stored_now_is_found_though_nobody_kept_it(store: ObjectStore) -> None:
    store.put_bytes(CURRENT, b"now")
    assert history.find(store, MAP, sha256(b"now")) == CURRENT


def test_what_was_not_kept_is_named(store: ObjectStore) -> None:
    store.put_bytes(CURRENT, b"now")
    with pytest.raises(ObjectMissing, match=f"{sha256(b'old')}.json is not there"):
        history.find(store, MAP, sha256(b"old"))


def test_nothing_stored_is_nothing_to_keep(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing, match=r"library/cluster_map\.json"):
        history.keep(store, MAP)
    assert list(store.list("")) == []


def test_events_come_newest_first_however_many_pages(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_EVENTS_PER_PAGE", 2)
    made = [report(instance, "000000", number) for number in range(6)]
    assert [one.storage_id for one in history.events(instance, CHUNKS)] == made[::-1]
    earlier = history.events(instance, CHUNKS, "000000", before=made[4])
    assert [one.storage_id for one in earlier] == made[3::-1]
    assert list(history.events(instance, CHUNKS, "000001")) == []


def test_an_event_is_read_by_its_number(instance: dg.DagsterInstance) -> None:
    first, second = report(instance, "000000", 1), report(instance, "000001", 2)
    found = history.event(instance, CHUNKS, first)
    assert found is not None
    assert found.partition_key == "000000"
    assert history.event(instance, MAP, first) is None
    assert history.event(instance, CHUNKS, second + 1_000) is None
    assert list(history.read_events(instance, CHUNKS, [second, first])) != []


def test_the_latest_events_are_those_of_the_plan(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("notes_shards", ["000000", "000001"])
    report(instance, "000000", 1)
    newest = report(instance, "000000", 2)
    report(instance, "000007", 3)  # of an earlier plan
    latest = history.latest_events(instance, CHUNKS)
    assert {shard: record.storage_id for shard, record in latest.items()} == {"000000": newest}

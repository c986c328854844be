"""Versions of a partition: what is recorded, what holds now, and how the two are compared."""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.definitions.data_version import (
    NULL_EVENT_POINTER,
    get_input_event_pointer_tag,
)

from acidburn_assets.core.errors import NotMaterialized
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.versions import Versions
from acidburn_assets.partitions import register_shards, shard_keys

PLAN = dg.AssetKey(["notes", "plan"])
CHUNKS = dg.AssetKey(["notes", "chunks"])
SOURCE = dg.AssetKey(["notes", "source"])

CURRENT = Versions("chunks-1", {PLAN: "p1", CHUNKS: "c1"}, {PLAN: 7, CHUNKS: None})


@pytest.fixture
def instance(quick_records: None) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


def report(instance: dg.DagsterInstance, shard: str, version: str) -> None:
    """A materialization of a shard of chunks."""
    instance.report_runless_asset_event(
        dg.AssetMaterialization(CHUNKS, partition=shard, tags=CURRENT.tags(version))
    )


def test_tags_hold_what_they_were_made_of() -> None:
    tags = CURRENT.tags("d1")
    assert versions.data_version(tags) == "d1"
    assert versions.code_version(tags) == "chunks-1"
    assert versions.input_version(tags, PLAN) == "p1"
    assert tags[get_input_event_pointer_tag(PLAN)] == "7"
    assert tags[get_input_event_pointer_tag(CHUNKS)] == NULL_EVENT_POINTER
    assert CURRENT.are_recorded_in(tags)


@pytest.mark.parametrize(
    ("current", "changed"),
    [
        (CURRENT._replace(code="chunks-2"), ("code",)),
        (CURRENT._replace(inputs={PLAN: "p2", CHUNKS: "c1"}), ("notes/plan",)),
        (CURRENT._replace(inputs={PLAN: "p1"}), ("notes/chunks",)),
        (CURRENT._replace(inputs={PLAN: "p1", CHUNKS: "c1", SOURCE: "s"}), ("notes/source",)),
        (CURRENT._replace(code="x", inputs={PLAN: "p2", CHUNKS: "c2"}),
         ("code", "notes/chunks", "notes/plan")),
        (CURRENT._replace(pointers={PLAN: 9, CHUNKS: 9}), ()),
    ],
)  # fmt: skip
def test_what_changed_is_named_and_changes_the_fingerprint(
    current: Versions, changed: tuple[str, ...]
) -> None:
    assert current.changed_since(CURRENT.tags("d1")) == changed
    assert (current.fingerprint() == CURRENT.fingerprint()) == (changed == ())


def test_an_input_counts_as_it_was_read() -> None:
    read = CURRENT.with_inputs({PLAN: "p0"})
    assert dict(read.inputs) == {PLAN: "p0", CHUNKS: "c1"}
    assert CURRENT.changed_since(read.tags("d1")) == ("notes/plan",)


def test_an_event_that_is_not_ours_has_no_versions() -> None:
    assert versions.data_version({}) == versions.MISSING_VERSION
    assert versions.input_version({}, PLAN) == versions.MISSING_VERSION
    assert versions.code_version({}) == ""
    assert not CURRENT.are_recorded_in({})


def test_the_latest_event_of_each_present_shard_counts(instance: dg.DagsterInstance) -> None:
    register_shards(instance, "notes", ["000000", "000001"])
    report(instance, "000000", "old")
    report(instance, "000001", "one")
    report(instance, "000000", "new")
    latest = versions.latest_shards(instance, CHUNKS)
    assert {shard: version for shard, (_, version) in latest.items()} == {
        "000000": "new",
        "000001": "one",
    }
    register_shards(instance, "notes", ["000001"])
    assert set(versions.latest_shards(instance, CHUNKS)) == {"000001"}
    assert shard_keys(instance, "notes") == ["000001"]


def test_what_was_never_made_is_named_with_its_shard(instance: dg.DagsterInstance) -> None:
    with pytest.raises(NotMaterialized, match="notes/chunks, shard '000007' has not been made"):
        versions.require_materialization(instance, CHUNKS, "000007")
    with pytest.raises(NotMaterialized, match="notes/plan has not been made: materialize it first"):
        versions.require_materialization(instance, PLAN, None)


def test_a_revision_is_observed_when_it_is_new(instance: dg.DagsterInstance) -> None:
    for revision in ("r1", "r1", "r2", "r1"):
        versions.observe_revision(instance, SOURCE, revision)
    records = instance.fetch_observations(SOURCE, limit=10).records
    assert len(records) == 3

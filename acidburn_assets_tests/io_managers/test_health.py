"""What is wrong with an asset, told in bulk: the same as asked partition by partition."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

from acidburn_assets.definitions import build_defs
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.base import Managers
from acidburn_assets.io_managers.health import Examiner, Finding
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World, acidburn


class Clinic:
    """Examines the assets of the world that the settings name."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        definitions = build_defs()
        self.instance = instance
        self.graph = definitions.resolve_asset_graph()
        self.managers = Managers(definitions.resources or {})
        self.examiner = Examiner()

    def findings(self, owner: str, asset: str) -> Mapping[str | None, Finding]:
        key = dg.AssetKey([owner, asset])
        manager = self.managers.of(self.graph, key)
        return self.examiner.examine(self.instance, self.graph, key, manager).findings


def test_everything_of_a_made_world_is_sound(world: World) -> None:
    with world.instance() as instance:
        clinic = Clinic(instance)
        keys = sorted(clinic.graph.materializable_asset_keys)
        found = {key: clinic.findings(*key.path) for key in keys}
    assert len(keys) > 20
    assert {key: one for key, one in found.items() if one} == {}


def test_versions_in_bulk_are_those_of_single_partitions(world: World) -> None:
    with world.instance() as instance:
        clinic = Clinic(instance)
        for key in sorted(clinic.graph.materializable_asset_keys):
            bulk = versions.all_versions(instance, clinic.graph, key)
            partitions: list[str | None] = [None]
            if clinic.graph.get(key).is_partitioned:
                partitions = list(samples.SHARDS[key.path[0]])
            assert sorted(bulk, key=str) == partitions
            for partition, found in bulk.items():
                single = versions.current_versions(instance, clinic.graph, key, partition)
                assert found.fingerprint() == single.fingerprint(), (key, partition)


def test_each_kind_of_trouble_is_named(copied_world: World, monkeypatch: Any) -> None:
    copied_world.object_path("notes/chunks/000000.parquet").unlink()
    cut = copied_world.object_path("notes/chunks/000001.parquet")
    cut.write_bytes(cut.read_bytes()[:-1])
    with copied_world.instance() as instance:
        instance.add_dynamic_partitions("notes_shards", ["000002"])
        assert Clinic(instance).findings("notes", "chunks") == {
            "000000": Finding("gone"),
            "000001": Finding("changed"),
            "000002": Finding("missing"),
        }
        monkeypatch.setenv("ACIDBURN_MODEL_REVISION", "another")
        clinic = Clinic(instance)
        assert clinic.findings("notes", "chunks") == {
            "000000": Finding("gone", "code changed"),
            "000001": Finding("changed", "code changed"),
            "000002": Finding("missing"),
        }
        stale = clinic.findings("articles", "embeddings")
        assert set(stale) == set(samples.SHARDS["articles"])
        assert {str(one) for one in stale.values()} == {"stale: code changed"}


def test_a_new_version_of_an_input_is_named(copied_world: World) -> None:
    with copied_world.instance() as instance:
        key = dg.AssetKey(["notes", "chunks"])
        record = versions.require_materialization(instance, key, "000000")
        tags = {**versions.tags_of(record), "dagster/data_version": "other"}
        figures = versions.figures_of(record)
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                key, partition="000000", tags=tags, metadata={"etag": figures["etag"]}
            )
        )
        clinic = Clinic(instance)
        assert clinic.findings("notes", "chunks") == {}
        assert clinic.findings("notes", "embeddings") == {
            "000000": Finding("stale", "notes/chunks changed")
        }


def test_a_plan_that_lost_a_shard_asks_for_nothing_of_it(copied_world: World) -> None:
    with copied_world.instance() as instance:
        instance.delete_dynamic_partition("notes_shards", "000001")
        assert Clinic(instance).findings("notes", "chunks") == {}


def test_what_was_read_of_an_event_is_not_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.instance() as instance:
        clinic = Clinic(instance)
        assert clinic.findings("manual", "chunks") == {}

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("events were read again")

        monkeypatch.setattr(Examiner, "_fetch", refuse)
        assert clinic.findings("manual", "chunks") == {}


def test_a_billed_listing_is_kept_and_what_was_reported_since_is_believed(
    copied_world: World,
) -> None:
    key = dg.AssetKey(["manual", "chunks"])
    with copied_world.instance() as instance:
        clinic = Clinic(instance)
        clinic.examiner = Examiner(listing_seconds=1_000)
        manager = clinic.managers.of(clinic.graph, key)
        manager.is_listing_billed = True
        assert clinic.findings("manual", "chunks") == {}
        copied_world.object_path("manual/chunks/000001.parquet").unlink()
        assert clinic.findings("manual", "chunks") == {}  # not looked for yet
        clinic.examiner.forget_listings()
        assert clinic.findings("manual", "chunks") == {"000001": Finding("gone")}
        assert acidburn("materialize", "manual/chunks").code == 0
        # the listing is from before it was made again; its event is not
        assert clinic.findings("manual", "chunks") == {}

"""`P/cluster_model`: clusters take in what is new, and stay who they are when found anew."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from acidburn_assets import settings
from acidburn_assets.adapters import clusterer
from acidburn_assets.adapters.embedded_postgres import EmbeddedPostgres
from acidburn_assets.asset_checks import build
from acidburn_assets.core.cluster_model import ClusterModel
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.objects import load_record
from acidburn_assets.resources import StoreResource
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import Snapshot, World, acidburn, copy_world

MODEL = dg.AssetKey(["library", "cluster_model"])
MODEL_OBJECT = "library/cluster_model.npz"

COOKING = [
    f"{verb} the {noun} in {fat} until it is {end}, then serve it with {side}."
    for verb, end in (("Fry", "crisp"), ("Braise", "tender"), ("Roast", "golden"))
    for noun in ("lamb shank", "chicken thigh", "duck breast")
    for fat, side in (("butter", "boiled potatoes"), ("olive oil", "steamed rice"))
]
"""A topic that the library has nothing of."""


def add_dataset(world: World, name: str, texts: list[str], *, pool: str = "") -> None:
    """Adds a dataset to the pool `library`, and settings of the pool."""
    folder = world.folder / "data" / name
    folder.mkdir()
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    samples.write_jsonl(folder / "all.jsonl.gz", rows)
    registry = world.folder / "datasets.yaml"
    entry = (
        f"\n  - {{name: {name}, source: jsonl, path: data/{name}, id_column: id, licence: CC0-1.0,"
        " may_redistribute_text: true, pool: library}\n"
    )
    content = registry.read_text().replace("\npools:", f"{entry}pools:")
    registry.write_text(content.replace("min_samples: 2}", f"min_samples: 2{pool}}}"))


def read_model(world: World) -> ClusterModel:
    model: ClusterModel = load_record(world.store, MODEL)
    return model


def read_cards(world: World) -> dict[int, dict[str, Any]]:
    content = json.loads(world.store.get_bytes("library/cluster_map.json"))
    return {card["cluster_id"]: card for card in content["cards"]}


def figures(world: World, asset: str) -> dict[str, Any]:
    """Of the newest materialization of an asset of the pool."""
    with world.instance() as instance:
        key = dg.AssetKey(["library", asset])
        return versions.figures_of(versions.require_materialization(instance, key, None))


def does_fit(world: World) -> bool:
    """What the check of the cluster model says."""
    (check,) = [
        one
        for one in build(settings.load().registry.pool("library"))
        if next(iter(one.check_specs)).name == "clusters_fit_the_corpus"
    ]
    result = check(store=StoreResource(url=settings.load().store_url))
    assert isinstance(result, dg.AssetCheckResult)
    return bool(result.passed)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("clusters were looked for")


# ---- more of the same -----------------------------------------------------------------------


class Grown:
    """A world to which a dataset on its own topics was added."""

    def __init__(self, world: World, before: Snapshot, after: Snapshot) -> None:
        self.world = world
        self.before = before
        self.after = after


@pytest.fixture(scope="module")
def grown(
    made_world: World, postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Grown]:
    folder = tmp_path_factory.mktemp("grown") / "world"
    with (
        copy_world(made_world, postgres_server, folder) as world,
        pytest.MonkeyPatch.context() as patch,
    ):
        world.enter(patch)
        before = world.snapshot()
        texts = [samples.text(topic, number) for topic in samples.TOPICS for number in (1, 2)]
        add_dataset(world, "letters", texts)
        with pytest.MonkeyPatch.context() as closed:
            closed.setattr(clusterer, "fit", refuse)
            finished = acidburn("materialize", "library")
        assert finished.code == 0, finished.err
        grown = Grown(world, before, world.snapshot())
        patch.undo()
        yield grown


def test_a_new_dataset_is_assigned_by_the_clusters_of_now(
    grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MODEL_OBJECT not in grown.after.changed_since(grown.before)
    assigned = {key for key in grown.after.rewritten_since(grown.before) if "/assignments/" in key}
    assert assigned == {"letters/assignments/000000.parquet"}
    world = grown.world.enter(monkeypatch)
    told = figures(world, "cluster_model")
    assert told["new_chunks"] == 12
    assert told["refit_proposed"] is False
    assert does_fit(world)
    assert set(told["fitted_on"]) == {"notes", "articles"}
    trail = json.loads(acidburn("audit", "cluster", "0", "--pool", "library", "--json").out)
    assert set(trail["fitted_on"]) == {"notes", "articles"}
    assert "letters" in {share["source"]["dataset"] for share in trail["shards"]}


def test_labels_are_carried_over_where_clusters_only_grew(
    grown: Grown, made_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_cards(made_world.enter(monkeypatch))
    after = read_cards(grown.world.enter(monkeypatch))
    assert figures(grown.world, "cluster_map")["labels_carried_over"] == len(after)
    for cluster, card in after.items():
        assert card["title"] == before[cluster]["title"]
        assert card["label_size"] == before[cluster]["size"]
        assert card["size"] >= before[cluster]["size"]


def test_a_fit_that_is_asked_for_keeps_ids_and_labels(
    grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it made is put back where it is lost, whoever may not fit then."""
    world = grown.world.enter(monkeypatch)
    first, titles = read_model(world), read_cards(world)
    assert acidburn("materialize", "library/cluster_model", "--force").code == 0
    finished = acidburn("materialize", "library")
    assert finished.code == 0, finished.err
    second = read_model(world)
    assert (second.meta.generation, second.meta.previous) == (1, first.content_version())
    assert set(second.meta.fitted_on.manifests) == {"notes", "articles", "letters"}
    told = json.loads(acidburn("audit", "migration", "--pool", "library", "--json").out)
    kept = {row["new_cluster_id"] for row in told["relations"] if row["kind"] == "kept"}
    assert len(kept) >= 4
    assert kept <= set(first.cluster_ids.tolist())
    cards = read_cards(world)
    assert set(cards) == set(second.cluster_ids.tolist())
    carried = {one for one, card in cards.items() if card["label_generation"] == 0}
    assert carried <= kept
    assert len(carried) >= 3
    assert {cards[one]["title"] for one in carried} == {titles[one]["title"] for one in carried}

    shown = acidburn("audit", "migration", "--pool", "library")
    assert "generation 1" in shown.out
    earlier = acidburn("audit", "migration", "--pool", "library", "--generation", "0", "--json")
    assert json.loads(earlier.out)["version"] == first.content_version()
    beyond = acidburn("audit", "migration", "--pool", "library", "--generation", "2")
    assert "no generation 2; the one in use is 1" in beyond.err

    before = world.snapshot()
    monkeypatch.setattr(clusterer, "fit", refuse)
    world.object_path(MODEL_OBJECT).unlink()
    assert acidburn("materialize", "library").code == 0
    assert world.snapshot().changed_since(before) == set()
    world.object_path(MODEL_OBJECT).write_bytes(b"garbage" * 100)
    assert acidburn("materialize", "library").code == 0
    assert world.snapshot().changed_since(before) == set()


def test_a_fit_of_the_same_gives_the_same_bytes(copied_world: World) -> None:
    before = copied_world.snapshot()
    finished = acidburn("materialize", "library/cluster_model", "--force")
    assert finished.code == 0, finished.err
    after = copied_world.snapshot()
    assert MODEL_OBJECT in after.rewritten_since(before)
    assert after.changed_since(before) == set()


# ---- something else -------------------------------------------------------------------------


def test_a_topic_that_no_cluster_holds_has_a_fit_proposed(copied_world: World) -> None:
    add_dataset(copied_world, "recipes", COOKING)
    before = copied_world.snapshot()
    finished = acidburn("materialize", "library")
    assert finished.code == 0, finished.err
    assert MODEL_OBJECT not in copied_world.snapshot().changed_since(before)
    told = figures(copied_world, "cluster_model")
    assert told["refit_proposed"] is True
    assert told["novel_mass"] > 0.1
    assert not does_fit(copied_world)


def test_a_pool_that_says_so_is_fitted_anew_when_it_drifts(copied_world: World) -> None:
    first = read_model(copied_world)
    add_dataset(copied_world, "recipes", COOKING, pool=", refit: drift")
    finished = acidburn("materialize", "library")
    assert finished.code == 0, finished.err
    second = read_model(copied_world)
    assert second.meta.generation == 1
    assert set(second.cluster_ids.tolist()) & set(first.cluster_ids.tolist())
    assert does_fit(copied_world)
    new = set(second.cluster_ids.tolist()) - set(first.cluster_ids.tolist())
    assert min(new) >= first.meta.next_id

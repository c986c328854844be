"""A world with a past: made, then made again from another corpus."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from acidburn_assets.adapters.embedded_postgres import EmbeddedPostgres
from acidburn_assets.core.audit import ClusterTrail
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World, acidburn, copy_world


@dataclass(frozen=True)
class Remade:
    """The world as it is now, and what an audit said of the pool `library` before."""

    world: World
    before: Mapping[int, ClusterTrail]
    between: datetime


@pytest.fixture(scope="session")
def remade_once(
    made_world: World,
    postgres_server: EmbeddedPostgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Remade]:
    """`articles` lost two thirds of its documents since; not to be changed."""
    folder = tmp_path_factory.mktemp("remade") / "copy"
    with copy_world(made_world, postgres_server, folder) as world:
        with pytest.MonkeyPatch.context() as patch:
            world.enter(patch)
            cards = json.loads(world.object_path("library/cluster_map.json").read_bytes())["cards"]
            before = {}
            for card in cards:
                told = acidburn("audit", "cluster", str(card["cluster_id"]), "--json")
                assert told.code == 0, told.err
                before[card["cluster_id"]] = ClusterTrail.model_validate_json(told.out)
            between = datetime.now(UTC)
            path = world.folder / "data/articles.parquet"
            samples.write_parquet(path, samples.documents(samples.TOPICS, [1]))
            assert acidburn("plan", "articles").code == 0
            finished = acidburn("materialize", "library")
            assert finished.code == 0, finished.err
        yield Remade(world, before, between)


@pytest.fixture
def remade(remade_once: Remade, monkeypatch: pytest.MonkeyPatch) -> Remade:
    """The same, entered, to be read."""
    remade_once.world.enter(monkeypatch)
    return remade_once

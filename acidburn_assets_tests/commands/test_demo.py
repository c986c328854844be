"""`acidburn demo`: only a demo's registry is made unasked, and all of it is shown."""

import json
from pathlib import Path

import pytest
import yaml

from acidburn_assets.commands import demo
from acidburn_assets.commands.demo import check_registry
from acidburn_assets.core.datasets import parse_registry
from acidburn_assets.settings import PROJECT_ROOT
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World, acidburn


@pytest.mark.parametrize("name", ["datasets.yaml", "datasets.small.yaml"])
def test_the_shipped_registries_are_demos(name):
    content = yaml.safe_load((PROJECT_ROOT / "deploy" / name).read_text())
    check_registry(parse_registry(content, origin=name))


def test_a_registry_of_ones_own_is_not_made_unasked(blank_world: World):
    finished = acidburn("demo")
    assert finished.code == 1
    assert "articles" in finished.err
    assert "unset ACIDBURN_DATASETS" in finished.err
    assert not (blank_world.home / "objects").exists()


def test_people_see_what_was_made_and_programs_one_line(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(demo, "POOL", "library")
    monkeypatch.setattr(demo, "check_registry", lambda _: None)
    finished = acidburn("demo", "--question", samples.QUESTION)
    assert finished.code == 0, finished.err
    figures = json.loads(finished.out)
    n_shards = sum(map(len, samples.SHARDS.values()))
    expected = {"documents": 60, "shards": n_shards, "clusters": 6, "materialized": 0}
    assert {name: figures[name] for name in expected} == expected
    assert figures["passages"][0]["document"].startswith("roses-")
    assert Path(figures["map"]).read_bytes().startswith(b"<!doctype html>")
    chunk_id = figures["passages"][0]["chunk_id"]
    for word in ("notes/embeddings", samples.QUESTION, f"audit passage {chunk_id}"):
        assert word in finished.err

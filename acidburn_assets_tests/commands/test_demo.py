"""`acidburn demo`: only a demo's registry is made unasked."""

import pytest
import yaml

from acidburn_assets.commands.demo import check_registry
from acidburn_assets.core.datasets import parse_registry
from acidburn_assets.settings import PROJECT_ROOT
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

"""`P/cluster_map`: a service that labels is an upgrade, never a condition."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from acidburn_assets_tests.label_service import Answer, Service, always, completion
from acidburn_assets_tests.worlds import Finished, World, acidburn


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    running = Service()
    yield running
    running.close()


def label(world: World, service: Service, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """Makes the map of `reference` with a key."""
    monkeypatch.setenv("XAI_API_KEY", "xai-key")
    monkeypatch.setenv("ACIDBURN_LABEL_BASE_URL", service.url)
    return acidburn("materialize", "reference", "--only", "cluster_map")


def read_map(world: World) -> dict[str, Any]:
    """The map of `reference`."""
    content: dict[str, Any] = json.loads(world.store.get_bytes("reference/cluster_map.json"))
    return content


def test_a_spent_budget_leaves_keyless_labels(
    copied_world: World, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_map(copied_world)
    monkeypatch.setenv("ACIDBURN_LABEL_BUDGET_USD", "0.000001")
    finished = label(copied_world, service, monkeypatch)
    assert finished.code == 0, finished.err
    made = read_map(copied_world)
    assert (made["status"], made["n_llm"], made["usd"]) == ("capped", 0, 0.0)
    assert service.requests == []
    titles = [[card["title"] for card in content["cards"]] for content in (before, made)]
    assert titles[0] == titles[1]


def test_a_refused_key_is_named_and_the_old_map_stays(
    copied_world: World, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = copied_world.snapshot()
    service.behave = always(Answer({"code": "x", "error": "Incorrect API key: xai-key"}, 401))
    finished = label(copied_world, service, monkeypatch)
    assert finished.code == 1
    (line, _) = finished.err.splitlines()
    assert line.startswith("reference/cluster_map: ")
    assert "XAI_API_KEY" in line
    assert "xai-key" not in finished.err
    assert copied_world.snapshot().objects == before.objects


def test_answers_are_paid_for_once(
    copied_world: World, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.behave = lambda number, _: completion(
        json.dumps({"title": f"Subject {number}", "summary": "Of it.", "keywords": ["it"]})
    )
    assert label(copied_world, service, monkeypatch).code == 0
    made = read_map(copied_world)
    n_asked = len(service.requests)
    assert made["n_llm"] == n_asked == len(made["cards"])
    copied_world.object_path("reference/cluster_map.json").unlink()
    assert label(copied_world, service, monkeypatch).code == 0
    again = read_map(copied_world)
    assert len(service.requests) == n_asked
    assert again["usd"] == 0.0
    assert [card["title"] for card in again["cards"]] == [card["title"] for card in made["cards"]]

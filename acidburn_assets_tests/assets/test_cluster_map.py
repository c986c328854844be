"""`P/cluster_map`: a service that labels is an upgrade, never a condition."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from acidburn_assets_tests.label_service import Answer, Service, always, completion, keywords_of
from acidburn_assets_tests.worlds import Finished, World, acidburn


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    running = Service()
    yield running
    running.close()


def label(
    world: World, service: Service, monkeypatch: pytest.MonkeyPatch, *options: str
) -> Finished:
    """Makes the map of `reference` with a key."""
    monkeypatch.setenv("XAI_API_KEY", "xai-key")
    monkeypatch.setenv("ACIDBURN_LABEL_BASE_URL", service.url)
    return acidburn("materialize", "reference", "--only", "cluster_map", *options)


def echo(_number: int, body: dict[str, Any]) -> Answer:
    """Names a cluster by the keywords it is told."""
    words = keywords_of(body).split(", ")
    return completion(
        json.dumps({"title": ", ".join(words[:2]), "summary": "Of it.", "keywords": words[:1]})
    )


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
    service.behave = echo
    assert label(copied_world, service, monkeypatch).code == 0
    made = read_map(copied_world)
    n_asked = len(service.requests)
    assert n_asked == len(made["cards"])
    assert made["n_llm"] + made["n_failed"] == n_asked
    assert made["n_llm"] > 0
    assert made["usd"] == pytest.approx(service.billed_usd)
    copied_world.object_path("reference/cluster_map.json").unlink()
    assert label(copied_world, service, monkeypatch).code == 0
    again = read_map(copied_world)
    assert len(service.requests) == n_asked
    assert again["usd"] == 0.0
    assert [card["title"] for card in again["cards"]] == [card["title"] for card in made["cards"]]


def test_a_model_that_obeys_a_passage_names_no_cluster_and_changes_no_other(
    copied_world: World, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyless = read_map(copied_world)
    service.behave = echo
    assert label(copied_world, service, monkeypatch).code == 0
    honest = read_map(copied_world)
    taken = next(card for card in honest["cards"] if card["label_source"] == "llm")
    number = taken["cluster_id"]
    target = ", ".join(keyless["cards"][number]["keywords"])
    other = next(card for card in honest["cards"] if card["cluster_id"] != number)

    def obey(asked: int, body: dict[str, Any]) -> Answer:
        if keywords_of(body) != target:
            return echo(asked, body)
        # the name of another cluster, as a passage may order
        return completion(
            json.dumps({"title": other["title"], "summary": "Buy now.", "keywords": ["buy"]})
        )

    service.behave = obey
    for path in copied_world.object_path("reference/labels").glob("*.json"):
        path.unlink()
    # forced: else labels of clusters that did not change are carried over
    assert label(copied_world, service, monkeypatch, "--force").code == 0
    obeyed = read_map(copied_world)
    demoted = obeyed["cards"].pop(number)
    honest["cards"].pop(number)
    assert obeyed["cards"] == honest["cards"]
    assert demoted["label_source"] == "heuristic"
    assert demoted["title"] == keyless["cards"][number]["title"]
    assert "finds this cluster as number" in demoted["label_failure"]
    assert obeyed["n_failed"] == honest["n_failed"] + 1


def test_what_was_spent_is_forgotten_once_the_map_is_stored(
    copied_world: World, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.behave = echo
    journal = copied_world.object_path("reference/labels/begun")
    journal.mkdir(parents=True)
    copied_world.store.put_bytes(
        "reference/labels/begun/000000.json",
        b'{"key":null,"reserved_usd":0.0,"settled_usd":0.125}',
    )
    assert label(copied_world, service, monkeypatch).code == 0
    assert read_map(copied_world)["usd"] == pytest.approx(0.125 + service.billed_usd)
    assert list(journal.glob("*.json")) == []

"""`acidburn plan`: what a dataset comes to, and what is wrong with it before money is spent."""

import json
from collections.abc import Callable

import pytest

from acidburn_assets.core.plan import Plan
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World, acidburn

ENTRY = """
datasets:
  - name: posts
    source: {source}
    path: data/{path}
    licence: MIT
    may_redistribute_text: true
    tier: none
    {more}
"""


def declare(world: World, *, source: str, path: str, more: str = "") -> None:
    """Makes the registry one dataset, `posts`."""
    content = ENTRY.format(source=source, path=path, more=more)
    (world.folder / "datasets.yaml").write_text(content)


def test_json_is_the_plan_and_nothing_else(world: World) -> None:
    finished = acidburn("plan", "articles", "--json")
    assert finished.code == 0, finished.err
    plan = Plan.model_validate_json(finished.out)
    assert plan.to_bytes() == world.object_path("articles/plan.json").read_bytes()


def test_a_plan_counts_cuts_and_prices_without_embedding(blank_world: World) -> None:
    finished = acidburn("plan", "notes", "--json")
    assert finished.code == 0, finished.err
    plan = Plan.model_validate_json(finished.out)
    assert [shard.key for shard in plan.shards] == samples.SHARDS["notes"]
    assert plan.n_documents == sum(shard.n_rows for shard in plan.shards) == 24
    assert [gpu.usd for gpu in plan.estimate.gpus] == sorted(gpu.usd for gpu in plan.estimate.gpus)
    assert list(blank_world.snapshot().objects) == ["notes/plan.json"]


def test_a_plan_is_what_chunking_then_makes(world: World) -> None:
    for dataset in samples.SHARDS:
        key = f"{dataset}/plan.json"
        plan = Plan.from_bytes(world.store.get_bytes(key), key=key)
        n_chunks = 0
        for shard in plan.shards:
            with world.store.open_parquet(f"{dataset}/chunks/{shard.key}.parquet") as file:
                n_chunks += file.metadata.num_rows
        assert plan.estimate.n_chunks == n_chunks  # small datasets are counted whole


def test_a_person_sees_shards_tokens_and_prices(world: World) -> None:
    finished = acidburn("plan", "notes")
    assert finished.code == 0, finished.err
    lines = [line.split("│") for line in finished.out.splitlines()]
    facts = {cells[1].strip(): cells[2].strip() for cells in lines if len(cells) > 3}
    assert facts["documents"] == "24"
    assert facts["shards"] == "2"
    assert facts["chunks"].startswith("27 of 254 tokens")
    assert facts["budget"] == "$10.00"
    for word in ("bucket", "Postgres", "$/h", "RTX 4090"):
        assert word in finished.out


def test_a_plan_needs_no_postgres(blank_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACIDBURN_POSTGRES", "host=127.0.0.1 port=1 dbname=nowhere")
    assert acidburn("plan", "manual").code == 0


def test_a_changed_file_is_planned_again(blank_world: World) -> None:
    before = json.loads(acidburn("plan", "manual", "--json").out)
    again = json.loads(acidburn("plan", "manual", "--json").out)
    assert again == before
    (blank_world.folder / "data/manual/chess-9.md").write_text("A rook likes open files.\n")
    after = json.loads(acidburn("plan", "manual", "--json").out)
    assert after["n_documents"] == before["n_documents"] + 1
    assert after["revision"] != before["revision"]


# ---- what is wrong --------------------------------------------------------------------------


def _missing_key(world: World) -> None:
    samples.write_jsonl(world.folder / "data/posts.jsonl", [{"body": "a", "title": "b"}])
    declare(world, source="jsonl", path="posts.jsonl")


def _missing_column(world: World) -> None:
    samples.write_parquet(world.folder / "data/posts.parquet", [{"body": "a", "title": "b"}])
    declare(world, source="parquet", path="posts.parquet")


def _no_rows(world: World) -> None:
    (world.folder / "data/posts.jsonl").write_bytes(b"\n\n")
    declare(world, source="jsonl", path="posts.jsonl")


def _no_files(world: World) -> None:
    declare(world, source="parquet", path="nowhere/*.parquet")


def _same_ids(world: World) -> None:
    rows = [{"id": "one", "text": "a"}, {"id": "two", "text": "b"}, {"id": "one", "text": "c"}]
    samples.write_jsonl(world.folder / "data/posts.jsonl", rows)
    declare(world, source="jsonl", path="posts.jsonl", more="id_column: id")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_missing_key, ["'posts.jsonl'", "'text'", "['body', 'title']", "text_column"]),
        (_missing_column, ["'posts.parquet'", "'text'", "['body', 'title']", "text_column"]),
        (_no_rows, ["has no row", "'data/posts.jsonl'", "datasets.yaml"]),
        (_no_files, ["data/nowhere/*.parquet'", "datasets.yaml"]),
        (_same_ids, ["'one'", "id_column"]),
    ],
)
def test_a_dataset_that_cannot_be_planned_is_named_in_one_line(
    blank_world: World, spoil: Callable[[World], None], expected: list[str]
) -> None:
    spoil(blank_world)
    finished = acidburn("plan", "posts", "--json")
    assert finished.code == 1
    assert finished.out == ""
    line, last = finished.err.splitlines()
    assert line.startswith("posts/plan: dataset 'posts'")
    assert [word for word in expected if word not in line] == []
    assert last == "Error: the plan could not be made"
    assert blank_world.snapshot().objects == {}


def test_an_unknown_dataset_names_those_that_are_known(blank_world: World) -> None:
    finished = acidburn("plan", "library")
    assert finished.code == 1
    assert finished.err == (
        "acidburn: no dataset 'library'; datasets.yaml has ['articles', 'manual', 'notes']\n"
    )


def test_an_unknown_key_names_those_that_are_known(blank_world: World) -> None:
    declare(blank_world, source="text", path="manual", more="chunk_per_shard: 5")
    finished = acidburn("plan", "posts")
    assert finished.code == 1
    (line,) = finished.err.splitlines()
    assert line.startswith("acidburn: datasets.yaml: dataset 'posts' has the unknown key")
    assert "'chunk_per_shard'" in line
    assert "'chunks_per_shard'" in line

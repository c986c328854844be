"""`acidburn plan`: counts and prices, and spends nothing."""

from acidburn_assets.core.plan import Plan
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World, acidburn


def test_a_plan_counts_cuts_and_prices_without_embedding(blank_world: World):
    finished = acidburn("plan", "notes", "--json")
    assert finished.code == 0, finished.err
    plan = Plan.model_validate_json(finished.out)
    assert [shard.key for shard in plan.shards] == list(samples.SHARDS["notes"])
    assert plan.n_documents == sum(shard.n_rows for shard in plan.shards)
    assert [gpu.usd for gpu in plan.estimate.gpus] == sorted(gpu.usd for gpu in plan.estimate.gpus)
    assert list(blank_world.snapshot().objects) == ["notes/plan.json"]


def test_people_see_money_sizes_and_time(blank_world: World):
    finished = acidburn("plan", "articles")
    assert finished.code == 0, finished.err
    for word in ("documents", "chunks", "shards", "bucket", "Postgres", "RTX 4090", "budget"):
        assert word in finished.out


def test_a_plan_is_what_chunking_then_makes(world: World):
    for dataset in ("notes", "articles", "manual"):
        key = f"{dataset}/plan.json"
        plan = Plan.from_bytes(world.store.get_bytes(key), key=key)
        n_chunks = 0
        for shard in plan.shards:
            with world.store.open_parquet(f"{dataset}/chunks/{shard.key}.parquet") as file:
                n_chunks += file.metadata.num_rows
        assert plan.estimate.n_chunks == n_chunks  # small datasets are counted whole


def test_an_unknown_dataset_names_those_that_are_known(world: World):
    finished = acidburn("plan", "nowhere")
    assert finished.code == 1
    assert "no dataset 'nowhere'; datasets.yaml has ['articles', 'manual', 'notes']" in finished.err

"""The graph as a whole: what is made is made once, the same everywhere, and mended where it broke.

Real Postgres, a real S3 server, the real small encoder; only the labelling service is a stand-in.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import dagster as dg
import pyarrow.parquet as pq
import pytest
from psycopg.conninfo import make_conninfo

from acidburn_assets import asset_checks, settings
from acidburn_assets.adapters.embedded_postgres import EmbeddedPostgres
from acidburn_assets.adapters.object_store import write_parquet
from acidburn_assets.adapters.postgres import Postgres, count_vectors
from acidburn_assets.commands.instance import open_instance
from acidburn_assets.commands.materialize import materialize
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.failures import QUARANTINE_CHECK
from acidburn_assets.io_managers.objects import Tables
from acidburn_assets.resources import PostgresResource, StoreResource
from acidburn_assets.runtime import backends
from acidburn_assets_tests import samples
from acidburn_assets_tests.label_service import Answer, Service, completion, keywords_of
from acidburn_assets_tests.postgres_server import new_database
from acidburn_assets_tests.worlds import SECRETS, Finished, World, acidburn, copy_world

BUCKET = "acidburn-world"
POSTGRES_PASSWORD = "s3cretPostgres%word"


# ---- a second time --------------------------------------------------------------------------


def test_a_second_time_makes_nothing(world: World) -> None:
    before = world.snapshot()
    finished = acidburn("materialize", "all")
    assert finished.code == 0, finished.err
    assert "everything was up to date" in finished.out
    assert world.snapshot() == before


def test_every_shard_of_every_dataset_is_there(world: World) -> None:
    tables = ("chunks", "embeddings", "term_weights", "assignments")
    expected = {
        f"{name}/{table}/{shard}.parquet"
        for name, shards in samples.SHARDS.items()
        for table in tables
        for shard in shards
    }
    found = {key for key in world.snapshot().objects if key.split("/")[1] in tables}
    assert found == expected


# ---- elsewhere ------------------------------------------------------------------------------


class Cloud:
    """A world whose objects are in a bucket and whose passages are in a Postgres of somebody's."""

    def __init__(self, made: World, finished: Finished, labels: Service) -> None:
        self.made = made
        self.finished = finished
        self.labels = labels


@pytest.fixture(scope="module")
def cloud(
    moto_endpoint: str, postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cloud]:
    """`articles` and its pool made there, with a key for everything."""
    client = boto3.client(
        "s3",
        endpoint_url=moto_endpoint,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    client.create_bucket(Bucket=BUCKET)
    folder = tmp_path_factory.mktemp("cloud")
    samples.write_world(folder, ["articles"])
    labels = Service()
    labels.behave = _label
    with new_database(postgres_server) as dsn, pytest.MonkeyPatch.context() as patch:
        world = World(
            folder,
            {
                "B2_BUCKET": BUCKET,
                "B2_ENDPOINT": moto_endpoint,
                "B2_KEY_ID": "any-key-id",
                "ACIDBURN_POSTGRES": make_conninfo(dsn, password=POSTGRES_PASSWORD),
                "ACIDBURN_LABEL_BASE_URL": labels.url,
                **SECRETS,
            },
        )
        world.enter(patch)
        finished = acidburn("materialize", "all")
        patch.undo()
        yield Cloud(world, finished, labels)
    labels.close()


def _label(_: int, body: dict[str, Any]) -> Answer:
    """Every cluster gets a title of its own, which says as much as the keyless one."""
    label = {
        "title": "Subject: " + ", ".join(keywords_of(body).split(", ")[:2]),
        "summary": "What the service says of it.",
        "keywords": ["subject"],
    }
    return completion(json.dumps(label))


def test_a_bucket_and_a_dsn_give_the_same_chunks_and_vectors(
    cloud: Cloud, made_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cloud.finished.code == 0, cloud.finished.err

    def hashes(world: World) -> dict[str, str]:
        world.enter(monkeypatch)
        return {
            key: sha256
            for key, (sha256, _) in world.snapshot().objects.items()
            if key.startswith(("articles/chunks/", "articles/embeddings/"))
        }

    here = hashes(made_world)
    assert len(here) == 2 * len(samples.SHARDS["articles"])
    assert hashes(cloud.made) == here
    assert cloud.made.store.url == f"s3://{BUCKET}"


def test_labels_of_the_service_replace_the_keyless_ones(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.made.enter(monkeypatch)
    content = json.loads(cloud.made.store.get_bytes("library/cluster_map.json"))
    assert {card["label_source"] for card in content["cards"]} == {"llm"}
    assert all(card["title"].startswith("Subject: ") for card in content["cards"])
    assert content["usd"] == pytest.approx(len(content["cards"]) * 0.001)


def test_a_new_home_over_a_full_bucket_adopts_everything(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine, or a lost DAGSTER_HOME: nothing is paid for twice."""
    cloud.made.enter(monkeypatch)
    before = cloud.made.snapshot()
    n_asked = len(cloud.labels.requests)
    elsewhere = World(cloud.made.folder, {**cloud.made.variables, "ACIDBURN_HOME": "elsewhere"})
    elsewhere.enter(monkeypatch)

    def refuse(_: settings.Settings) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(backends, "load_encoder", refuse)
    finished = acidburn("materialize", "all")
    assert finished.code == 0, finished.err
    assert "made 0 asset partitions" in finished.out
    after = elsewhere.snapshot()
    assert after.objects == before.objects
    assert len(cloud.labels.requests) == n_asked
    with elsewhere.instance() as instance:
        shards = versions.latest_shards(instance, dg.AssetKey(["articles", "embeddings"]))
        assert sorted(shards) == samples.SHARDS["articles"]
    assert acidburn("materialize", "all").code == 0
    assert elsewhere.snapshot() == after


def test_no_secret_is_written_or_shown(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.made.enter(monkeypatch)
    shown = [
        cloud.finished,
        acidburn("doctor", "--json"),
        acidburn("doctor"),
        acidburn("ask", samples.QUESTION, "--json"),
        acidburn("audit", "cluster", "0", "--json"),
    ]
    assert [finished.code for finished in shown] == [0] * len(shown), shown
    written = [path.read_bytes() for path in cloud.made.folder.rglob("*") if path.is_file()]
    store = cloud.made.store
    written += [store.get_bytes(listed.key) for listed in store.list("")]
    # the search can find something
    assert any(b"dagster" in content for content in written)
    everything = b"\n".join(written) + "\n".join(map(str, shown)).encode()
    for secret in (*SECRETS.values(), POSTGRES_PASSWORD):
        assert secret.encode() not in everything


# ---- behind our back ------------------------------------------------------------------------


def test_what_was_lost_or_damaged_is_made_again_and_nothing_else(copied_world: World) -> None:
    before = copied_world.snapshot()
    lost = "notes/embeddings/000001.parquet"
    overwritten = "articles/assignments/000002.parquet"
    cut = "library/cluster_map.json"
    copied_world.object_path(lost).unlink()
    copied_world.object_path(overwritten).write_bytes(b"garbage" * 100)
    path = copied_world.object_path(cut)
    path.write_bytes(path.read_bytes()[:-100])
    finished = acidburn("materialize", "all")
    assert finished.code == 0, finished.err
    assert "made 3 asset partitions" in finished.out
    after = copied_world.snapshot()
    assert after.rewritten_since(before) == {lost, overwritten, cut}
    assert after.changed_since(before) == set()  # the same bytes again
    assert after.n_runs == before.n_runs + 3


def test_rows_that_were_deleted_in_postgres_are_loaded_again(copied_world: World) -> None:
    before = copied_world.snapshot()
    with _database().connect(purpose="spoiling") as connection:
        connection.execute(
            "delete from acidburn.chunk_embeddings where shard_id ="
            " (select shard_id from acidburn.shards where dataset = 'notes' and shard = '000001')"
        )
    finished = acidburn("materialize", "all")
    assert finished.code == 0, finished.err
    assert "notes/chunk_embeddings 000001" in finished.err
    assert "made 1 asset partitions" in finished.out
    assert _served("library") == _sealed(copied_world, "notes", "articles")
    assert copied_world.snapshot().objects == before.objects


# ---- a source that changes ------------------------------------------------------------------


class Change:
    """A world before and after one of its sources changed."""

    def __init__(self, changed: World, finished: Finished, removed: str) -> None:
        self.changed = changed
        self.finished = finished
        self.removed = removed


@pytest.fixture(scope="module")
def change(
    made_world: World, postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Change]:
    """Of `notes` one file is gone, and one document of the other has another text."""
    folder = tmp_path_factory.mktemp("changed") / "world"
    with (
        copy_world(made_world, postgres_server, folder) as changed,
        pytest.MonkeyPatch.context() as patch,
    ):
        changed.enter(patch)
        notes = folder / "data" / "notes"
        removed = json.loads(
            gzip.decompress((notes / "first.jsonl.gz").read_bytes()).split(b"\n")[0]
        )
        (notes / "first.jsonl.gz").unlink()
        rows = list(
            map(json.loads, gzip.decompress((notes / "second.jsonl.gz").read_bytes()).splitlines())
        )
        rows[0]["text"] = "A new sentence: sourdough starters are fed twice a day in summer."
        samples.write_jsonl(notes / "second.jsonl.gz", rows)
        finished = acidburn("materialize", "all")
        patch.undo()
        yield Change(changed, finished, removed["id"])


def test_a_changed_source_is_planned_and_made_again(
    change: Change, made_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert change.finished.code == 0, change.finished.err
    before = made_world.enter(monkeypatch).snapshot()
    after = change.changed.enter(monkeypatch).snapshot()
    plans = [
        json.loads((world.home / "objects/notes/plan.json").read_bytes())
        for world in (made_world, change.changed)
    ]
    assert plans[0]["revision"] != plans[1]["revision"]
    assert [len(plan["shards"]) for plan in plans] == [2, 1]
    changed = after.changed_since(before)
    assert {"notes/chunks/000000.parquet", "notes/embeddings/000000.parquet"} <= changed
    assert {"library/centroids.parquet", "library/cluster_map.json"} <= changed


def test_what_does_not_depend_on_a_changed_source_stays(
    change: Change, made_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = made_world.enter(monkeypatch).snapshot()
    after = change.changed.enter(monkeypatch).snapshot()
    touched = {key.split("/")[0] for key in after.rewritten_since(before)}
    assert touched == {"notes", "library"}
    # the clusters take in what is new; nothing else is assigned again
    assert "library/cluster_model.npz" not in after.changed_since(before)


def test_a_changed_source_leaves_nothing_of_its_old_shards_to_be_found(
    change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = change.changed.enter(monkeypatch)
    assert _served("library") == _sealed(world, "notes", "articles")
    question = "How often are sourdough starters fed in summer?"
    answer = json.loads(acidburn("ask", question, "--passages", "200", "--json").out)
    assert answer["passages"][0]["text"].startswith("A new sentence")
    found = {(passage["dataset"], passage["doc_id"]) for passage in answer["passages"]}
    assert ("notes", change.removed) not in found
    with open_instance(settings.load()) as instance:
        assert instance.get_dynamic_partitions("notes_shards") == ["000000"]
    audited = acidburn("audit", "document", change.removed, "--dataset", "notes")
    assert audited.code == 1
    assert f"no document {change.removed!r}" in audited.err


def test_a_file_that_changed_after_planning_is_refused_and_says_how_to_go_on(
    blank_world: World,
) -> None:
    assert acidburn("plan", "manual").code == 0
    (blank_world.folder / "data/manual/chess-0.md").write_text("Something else entirely.\n")
    outcome = materialize("manual", only={"chunks"})
    (reason,) = outcome.failures.values()
    assert "'chess-0.md'" in reason
    assert "is not what was planned" in reason
    assert "acidburn materialize manual" in reason
    # the other shards are made all the same
    tables = Tables(blank_world.store, dg.AssetKey(["manual", "chunks"]))
    assert [len(tables.read(shard)) for shard in ("000000", "000002", "000003")] == [3, 3, 3]
    finished = acidburn("materialize", "manual")
    assert finished.code == 0, finished.err


# ---- checks ---------------------------------------------------------------------------------


def _run_checks(world: World) -> dict[str, bool]:
    """Every check of the pool `library`, run on what the world holds now."""
    configured = settings.load()
    resources = {
        "store": StoreResource(url=configured.store_url),
        "postgres": PostgresResource(target=configured.postgres_target),
    }
    found = {}
    for check in asset_checks.build(configured.registry.pool("library")):
        (spec,) = check.check_specs
        needed = {
            name: resources[name] for name in check.required_resource_keys if name in resources
        }
        result = check(**needed)
        assert isinstance(result, dg.AssetCheckResult)
        found[spec.name] = bool(result.passed)
    return found


def test_checks_pass_on_a_good_world(world: World) -> None:
    assert _run_checks(world) == {
        "every_chunk_has_a_cluster": True,
        "clusters_fit_the_corpus": True,
        "titles_find_their_clusters": True,
        "every_chunk_is_served": True,
    }


def test_checks_ran_with_the_assets_that_they_are_of(world: World) -> None:
    with world.instance() as instance:
        evaluations = [
            entry.dagster_event.asset_check_evaluation_data
            for run in instance.get_runs()
            for entry in instance.all_logs(
                run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
            )
            if entry.dagster_event is not None
        ]
    of_pools = {
        (pool, name, True)
        for pool in ("library", "reference")
        for name in (
            "every_chunk_has_a_cluster",
            "clusters_fit_the_corpus",
            "titles_find_their_clusters",
            "every_chunk_is_served",
        )
    }
    owners = [*samples.SHARDS, *set(samples.POOL_OF.values())]
    of_all = {(name, QUARANTINE_CHECK, True) for name in owners}
    found = {(one.asset_key.path[0], one.check_name, one.passed) for one in evaluations}
    assert found == of_pools | of_all


def _forget_a_cluster(world: World) -> None:
    lineage = Tables(world.store, dg.AssetKey(["library", "lineage"]))
    table = lineage.read(None)
    write_parquet(world.store, lineage.object_key(None), table.schema, table.slice(1).to_batches())


def _delete_vectors(_: World) -> None:
    with _database().connect(purpose="spoiling") as connection:
        connection.execute(
            "delete from acidburn.chunk_embeddings where chunk_id in"
            " (select chunk_id from acidburn.chunk_embeddings limit 1)"
        )


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (_forget_a_cluster, "every_chunk_has_a_cluster"),
        (_delete_vectors, "every_chunk_is_served"),
    ],
)
def test_a_check_fails_where_rows_are_missing(
    copied_world: World, spoil: Callable[[World], None], check: str
) -> None:
    spoil(copied_world)
    assert [name for name, passed in _run_checks(copied_world).items() if not passed] == [check]


# ---- looking --------------------------------------------------------------------------------


def _database() -> Postgres:
    return backends.connect_postgres(settings.load())


def _served(pool: str) -> int:
    return count_vectors(_database(), pool)


def _sealed(world: World, *datasets: str) -> int:
    """Chunks in the objects that the plans name."""
    total = 0
    for dataset in datasets:
        folder = world.home / "objects" / dataset
        plan = json.loads((folder / "plan.json").read_bytes())
        for shard in plan["shards"]:
            path = folder / "embeddings" / f"{shard['key']}.parquet"
            total += pq.read_metadata(path).num_rows
    return total

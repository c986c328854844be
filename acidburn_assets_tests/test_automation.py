"""What heals by itself, what waits, and what is left to a person: one look at a real graph."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.repository_definition import RepositoryDefinition

from acidburn_assets import automation
from acidburn_assets.automation import Policy, ranged_requests
from acidburn_assets.core.failures import Failures
from acidburn_assets.definitions import build_defs
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.failures import QUARANTINE_CHECK, FailureLog, LeftOutShards
from acidburn_assets.io_managers.health import Finding
from acidburn_assets.partitions import RANGE_END_TAG, RANGE_START_TAG
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World, acidburn

Wanted = dict[str, list[tuple[str, str] | None]]
"""Asset to the ranges that are requested of it; None where it has no partitions."""


def repository() -> RepositoryDefinition:
    return build_defs().get_repository_def()


def look(world: World, defined: RepositoryDefinition | None = None) -> Wanted:
    """What the sensor requests when it looks at the world now."""
    defined = defined or repository()
    sensor = defined.get_sensor_def("healing")
    wanted: Wanted = {}
    with world.instance() as instance:
        context = dg.build_sensor_context(instance=instance, repository_def=defined)
        for request in sensor.evaluate_tick(context).run_requests or ():
            (key,) = request.asset_selection
            ends = (request.tags.get(RANGE_START_TAG), request.tags.get(RANGE_END_TAG))
            assert request.tags[automation.ORIGIN_TAG] == "automation"
            wanted.setdefault(key.to_user_string(), []).append(
                None if ends == (None, None) else ends
            )
    return wanted


def allow(world: World, policy: str, *, only: str = "") -> None:
    """Sets the policy of all datasets, or of one."""
    path = world.folder / "datasets.yaml"
    lines = [
        line for line in path.read_text().splitlines() if not line.startswith("    automation:")
    ]
    named = [f"  - name: {name}" for name in ([only] if only else samples.SHARDS)]
    path.write_text(
        "\n".join(f"{line}\n    automation: {policy}" if line in named else line for line in lines)
    )


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait between attempts."""
    monkeypatch.setenv("ACIDBURN_RETRY_SECONDS", "0.001")


# ---- what is unsound ------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["manual", "approve", "all"])
def test_a_sound_graph_wants_nothing(copied_world: World, policy: str) -> None:
    allow(copied_world, policy)
    assert look(copied_world) == {}


@pytest.mark.parametrize("policy", ["approve", "all"])
def test_what_is_gone_or_changed_is_wanted_and_made_the_same(
    copied_world: World, policy: str
) -> None:
    allow(copied_world, policy)
    before = copied_world.snapshot()
    copied_world.object_path("notes/chunks/000001.parquet").unlink()
    cut = copied_world.object_path("articles/embeddings/000000.parquet")
    cut.write_bytes(cut.read_bytes()[:100])
    flipped = copied_world.object_path("manual/assignments/000002.parquet")
    content = bytearray(flipped.read_bytes())
    content[200] ^= 1
    flipped.write_bytes(content)
    copied_world.object_path("library/cluster_map.json").unlink()
    expected: Wanted = {
        "notes/chunks": [("000001", "000001")],
        "articles/embeddings": [("000000", "000000")],
        "manual/assignments": [("000002", "000002")],
    }
    assert look(copied_world) == expected
    for asset in expected:
        assert acidburn("materialize", asset).code == 0
    # it quotes chunks, and waited for them
    assert look(copied_world) == {"library/cluster_map": [None]}
    assert acidburn("materialize", "library/cluster_map").code == 0
    assert look(copied_world) == {}
    assert copied_world.snapshot().changed_since(before) == set()


def test_nothing_is_wanted_unasked_where_the_policy_is_manual(copied_world: World) -> None:
    allow(copied_world, "manual", only="manual")
    copied_world.object_path("manual/chunks/000000.parquet").unlink()
    copied_world.object_path("reference/cluster_map.json").unlink()
    copied_world.object_path("notes/chunks/000000.parquet").unlink()
    assert look(copied_world) == {"notes/chunks": [("000000", "000000")]}


def test_what_is_made_from_something_lost_waits_for_it(copied_world: World) -> None:
    for asset in ("chunks", "embeddings", "term_weights", "assignments"):
        copied_world.object_path(f"notes/{asset}/000001.parquet").unlink()
    assert look(copied_world) == {"notes/chunks": [("000001", "000001")]}
    assert acidburn("materialize", "notes/chunks").code == 0
    assert look(copied_world) == {
        f"notes/{asset}": [("000001", "000001")] for asset in ("embeddings", "term_weights")
    }
    assert acidburn("materialize", "notes/embeddings").code == 0
    assert acidburn("materialize", "notes/term_weights").code == 0
    # the manifest is what it was: the shard has its old content
    assert look(copied_world) == {"notes/assignments": [("000001", "000001")]}


def test_what_reads_further_up_waits_for_all_that_heals_above(copied_world: World) -> None:
    """A cluster model has its manifests for parents, and reads the shards that they name: begun too
    early it failed again and again, and was quarantined while a lost shard was embedded."""
    copied_world.object_path("library/cluster_model.npz").unlink()
    copied_world.object_path("notes/embeddings/000001.parquet").unlink()
    assert look(copied_world) == {"notes/embeddings": [("000001", "000001")]}
    assert acidburn("materialize", "notes/embeddings").code == 0
    assert look(copied_world) == {"library/cluster_model": [None]}


def test_rows_that_the_ledger_lost_are_wanted(copied_world: World) -> None:
    from acidburn_assets import settings
    from acidburn_assets.adapters.postgres import forget_load
    from acidburn_assets.runtime import backends

    postgres = backends.open_postgres(settings.load())
    forget_load(postgres, "chunk_clusters", "articles", "000001")
    forget_load(postgres, "cluster_headers", "library", None)
    assert look(copied_world) == {
        "articles/chunk_clusters": [("000001", "000001")],
        "library/cluster_headers": [None],
    }


def test_a_back_end_that_is_away_holds_up_only_what_needs_it(
    copied_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied_world.object_path("notes/chunks/000000.parquet").unlink()
    monkeypatch.setenv("ACIDBURN_POSTGRES", "host=127.0.0.1 port=1 dbname=none user=none")
    assert look(copied_world) == {"notes/chunks": [("000000", "000000")]}


# ---- what waits for a person ----------------------------------------------------------------


def test_a_new_dataset_is_planned_and_waits(blank_world: World) -> None:
    planned = {f"{name}/plan": [None] for name in samples.SHARDS}
    assert look(blank_world) == planned
    for name in samples.SHARDS:
        assert acidburn("materialize", f"{name}/plan").code == 0
    assert look(blank_world) == {}
    allow(blank_world, "all", only="manual")
    assert look(blank_world) == {"manual/chunks": [("000000", "000003")]}


def test_what_a_person_began_goes_on_by_itself(blank_world: World) -> None:
    assert acidburn("materialize", "manual").code == 0
    assert look(blank_world) == {
        "reference/cluster_model": [None],
        "manual/term_weights": [("000000", "000003")],
        **{f"{name}/plan": [None] for name in ("notes", "articles")},
    }


def test_another_model_waits_for_a_person_unless_all_is_allowed(
    copied_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACIDBURN_MODEL_REVISION", "another")
    assert look(copied_world) == {}
    # made again now, a lost shard would be of another model than its neighbours
    copied_world.object_path("notes/embeddings/000001.parquet").unlink()
    assert look(copied_world) == {}
    allow(copied_world, "all", only="manual")
    assert look(copied_world) == {"manual/plan": [None]}


def test_an_old_plan_that_waits_does_not_hold_up_healing(copied_world: World) -> None:
    """A dataset has changed upstream; what was made of it is still kept whole."""
    path = next((copied_world.folder / "data/manual").iterdir())
    path.write_text(path.read_text() + " One more sentence.")
    with copied_world.instance() as instance:
        key = dg.AssetKey(["manual", "source"])
        instance.report_runless_asset_event(
            dg.AssetObservation(key, tags={"dagster/data_version": "newer"})
        )
    assert look(copied_world) == {}
    copied_world.object_path("manual/assignments/000001.parquet").unlink()
    assert look(copied_world) == {"manual/assignments": [("000001", "000001")]}


@pytest.mark.parametrize(
    ("automation_policy", "asset", "reason", "was_asked_for", "is_held"),
    [
        ("manual", "manifest", "gone", True, True),
        ("all", "embeddings", "stale", False, False),
        ("approve", "plan", "missing", False, False),
        ("approve", "plan", "stale", False, True),
        ("approve", "chunks", "missing", False, True),
        ("approve", "chunks", "missing", True, False),
        ("approve", "embeddings", "gone", False, False),
        ("approve", "embeddings", "gone, outdated", False, True),
        ("approve", "assignments", "gone, outdated", False, False),
        ("approve", "embeddings", "stale", False, True),
        ("approve", "embeddings", "stale", True, True),
        ("approve", "manifest", "stale", False, False),
        ("approve", "cluster_map", "stale", False, True),
        ("approve", "cluster_map", "gone", False, False),
    ],
)
def test_the_policy_says_what_waits(
    automation_policy: automation.Automation,
    asset: str,
    reason: str,
    was_asked_for: bool,
    is_held: bool,
) -> None:
    policy = Policy({"d": automation_policy}, is_labelling_paid=True)
    detail = "code changed" if reason in ("stale", "gone, outdated") else ""
    finding = Finding(reason.split(",")[0], detail)  # type: ignore[arg-type]  # known ones
    held = policy.holds(dg.AssetKey(["d", asset]), finding, was_asked_for=was_asked_for)
    assert held is is_held


def test_keyless_labels_cost_nothing_and_do_not_wait() -> None:
    policy = Policy({"p": "approve"}, is_labelling_paid=False)
    key = dg.AssetKey(["p", "cluster_map"])
    assert not policy.holds(key, Finding("stale", "centroids changed"), was_asked_for=False)


# ---- failures -------------------------------------------------------------------------------


POISON = " Changed since it was planned."


def poison_path(world: World) -> Path:
    """The file of `manual` that is changed after it was planned."""
    return sorted((world.folder / "data/manual").glob("chess-*"))[0]


def poison(world: World) -> None:
    """Changes it."""
    path = poison_path(world)
    path.write_text(path.read_text() + POISON)


def failures_of(world: World, owner: str, asset: str) -> dict[str | None, Failures]:
    return dict(FailureLog(world.store).all_of(dg.AssetKey([owner, asset])))


def is_check_passed(world: World, key: dg.AssetKey) -> bool:
    with world.instance() as instance:
        check = dg.AssetCheckKey(key, QUARANTINE_CHECK)
        storage = instance.event_log_storage
        record = storage.get_latest_asset_check_execution_by_key([check])[check]
        evaluation = record.event.dagster_event.asset_check_evaluation_data
        return bool(evaluation.passed)


@pytest.fixture
def poisoned(blank_world: World, quick_retries: None) -> World:
    """`manual` planned, one of its four shards poisoned, everything allowed."""
    allow(blank_world, "all", only="manual")
    assert acidburn("materialize", "manual/plan").code == 0
    poison(blank_world)
    return blank_world


def test_a_poison_shard_is_quarantined_and_the_rest_goes_on(poisoned: World) -> None:
    chunks = dg.AssetKey(["manual", "chunks"])
    for attempt in (1, 2, 3):
        wanted = look(poisoned)["manual/chunks"]
        assert wanted, attempt
        acidburn("materialize", "manual/chunks")
    (bad,) = failures_of(poisoned, "manual", "chunks").values()
    assert bad.is_quarantined()
    assert [one.kind for one in bad.attempts] == ["refused"] * 3
    assert "is not what was planned" in bad.last_reason()
    assert not is_check_passed(poisoned, chunks)

    others = [shard for shard in samples.SHARDS["manual"] if shard != bad.shard]
    wanted = look(poisoned)
    assert "manual/chunks" not in wanted
    ranges = wanted["manual/embeddings"]
    assert ranges[0] is not None
    covered = [shard for shard in others for ends in ranges if ends and ends[0] <= shard <= ends[1]]
    assert covered == others

    acidburn("materialize", "manual/embeddings")
    assert look(poisoned)["manual/manifest"] == [None]
    assert acidburn("materialize", "manual/manifest").code == 0
    from acidburn_assets.io_managers.objects import load_record

    sealed = load_record(poisoned.store, dg.AssetKey(["manual", "manifest"]))
    assert [entry.shard for entry in sealed.entries] == others
    assert [(one.shard, one.asset) for one in sealed.left_out] == [(bad.shard, "manual/chunks")]
    assert look(poisoned)["reference/cluster_model"] == [None]

    # to the end: everything else is made, and nothing asks for the poison shard
    assert acidburn("materialize", "reference/cluster_model").code == 0
    acidburn("materialize", "manual/assignments")
    for asset in ("centroids", "lineage", "cluster_map"):
        assert acidburn("materialize", f"reference/{asset}").code == 0, asset
    wanted = look(poisoned)
    assert not any(asset.startswith(("manual/chunks", "manual/manifest")) for asset in wanted)

    # mended and released, it is made, and the manifest is sealed with it
    path = poison_path(poisoned)
    path.write_text(path.read_text().replace(POISON, ""))
    assert acidburn("release", f"manual/chunks/{bad.shard}").code == 0
    for asset in ("chunks", "embeddings"):
        assert look(poisoned)[f"manual/{asset}"] == [(bad.shard, bad.shard)]
        assert acidburn("materialize", f"manual/{asset}").code == 0
    assert look(poisoned)["manual/manifest"] == [None]
    assert acidburn("materialize", "manual/manifest").code == 0
    sealed = load_record(poisoned.store, dg.AssetKey(["manual", "manifest"]))
    assert len(sealed.entries) == 4
    assert sealed.left_out == ()


def test_a_released_shard_is_tried_again(poisoned: World) -> None:
    for _ in range(3):
        acidburn("materialize", "manual/chunks")
    (bad,) = failures_of(poisoned, "manual", "chunks").values()
    assert "manual/chunks" not in look(poisoned)
    shown = acidburn("release")
    assert f"manual/chunks/{bad.shard}: quarantined, 3 failures" in shown.out
    released = acidburn("release", f"manual/chunks/{bad.shard}")
    assert released.code == 0, released.err
    assert look(poisoned)["manual/chunks"] == [(bad.shard, bad.shard)]
    assert is_check_passed(poisoned, dg.AssetKey(["manual", "chunks"]))
    again = acidburn("release", f"manual/chunks/{bad.shard}")
    assert again.code == 1
    assert "nothing of" in again.err


def test_a_new_plan_forgives_what_failed_under_the_old_one(poisoned: World) -> None:
    for _ in range(3):
        acidburn("materialize", "manual/chunks")
    assert "manual/chunks" not in look(poisoned)
    assert acidburn("materialize", "manual/plan").code == 0
    assert look(poisoned)["manual/chunks"] == [("000000", "000003")]
    assert acidburn("materialize", "manual/chunks").code == 0
    assert failures_of(poisoned, "manual", "chunks") == {}


def test_an_attempt_waits_its_time(poisoned: World, monkeypatch: pytest.MonkeyPatch) -> None:
    acidburn("materialize", "manual/chunks")
    (bad,) = failures_of(poisoned, "manual", "chunks").values()
    assert look(poisoned)["manual/chunks"] == [(bad.shard, bad.shard)]
    monkeypatch.setenv("ACIDBURN_RETRY_SECONDS", "600")
    assert "manual/chunks" not in look(poisoned)


def test_a_budget_that_is_raised_lets_it_go_on(blank_world: World) -> None:
    """A person mends it for all shards at once: none of them spent its attempts."""
    allow(blank_world, "all", only="manual")
    for asset in ("plan", "chunks"):
        assert acidburn("materialize", f"manual/{asset}").code == 0
    path = blank_world.folder / "datasets.yaml"
    dear = path.read_text()
    path.write_text(dear.replace("chunks_per_shard: 3", "chunks_per_shard: 3\n    budget_usd: 0"))
    for _ in range(3):
        assert acidburn("materialize", "manual/embeddings").code == 1
    look(blank_world)
    known = failures_of(blank_world, "manual", "embeddings").values()
    assert known
    assert {attempt.kind for one in known for attempt in one.attempts} == {"held"}
    assert not any(one.is_quarantined() for one in known)
    path.write_text(dear)
    assert acidburn("materialize", "manual/embeddings").code == 0
    assert failures_of(blank_world, "manual", "embeddings") == {}


def test_a_record_of_failures_that_cannot_be_read_holds_up_nothing(copied_world: World) -> None:
    copied_world.store.put_bytes("_failures/manual/chunks/000001.json", b"{}")
    copied_world.object_path("manual/chunks/000000.parquet").unlink()
    assert look(copied_world) == {"manual/chunks": [("000000", "000000")]}
    assert failures_of(copied_world, "manual", "chunks") == {}


def test_a_sound_shard_is_not_left_out_for_what_failed_once(copied_world: World) -> None:
    """Three forced runs failed; what they were to replace is as good as ever."""
    key = dg.AssetKey(["manual", "embeddings"])
    with copied_world.instance() as instance:
        graph = build_defs().resolve_asset_graph()
        made_from = versions.current_versions(instance, graph, key, "000001").fingerprint()
        log = FailureLog(copied_world.store)
        for number in range(3):
            log.add(
                key,
                "000001",
                run_id=str(number),
                made_from=made_from,
                kind="refused",
                reason="bad",
            )
        assert LeftOutShards(instance, graph, log, copied_world.store)("manual") == {}
    assert look(copied_world) == {}
    assert failures_of(copied_world, "manual", "embeddings") == {}


def test_an_empty_store_is_not_a_lost_corpus(
    copied_world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder that is not mounted, a mistyped prefix: nothing is made and paid for again."""
    allow(copied_world, "all")
    monkeypatch.setenv("ACIDBURN_STORE", (tmp_path / "empty").as_uri())
    assert look(copied_world) == {}
    # who means it makes something there by hand
    assert acidburn("materialize", "manual/plan").code == 0
    assert look(copied_world)["manual/chunks"] == [("000000", "000003")]


# ---- runs that ended without a word ---------------------------------------------------------


def planned_run(
    instance: dg.DagsterInstance,
    key: str,
    shards: tuple[str, str] | None,
    *,
    n_retries: int = 0,
) -> dg.DagsterRun:
    """A run of one asset as the daemon creates it, not started."""
    job = repository().get_implicit_global_asset_job_def()
    asset = dg.AssetKey(key.split("/"))
    subset = job.get_subset(asset_selection={asset})
    tags = {RANGE_START_TAG: shards[0], RANGE_END_TAG: shards[1]} if shards else {}
    tags["dagster/max_retries"] = str(n_retries)
    return instance.create_run_for_job(subset, asset_selection=frozenset([asset]), tags=tags)


def start_step(instance: dg.DagsterInstance, run: dg.DagsterRun, key: str) -> None:
    from dagster._core.events import DagsterEvent, DagsterEventType

    instance.report_dagster_event(
        DagsterEvent(
            event_type_value=DagsterEventType.STEP_START.value,
            job_name=run.job_name,
            step_key=key.replace("/", "__"),
        ),
        run.run_id,
    )


def test_a_process_that_died_is_blamed_on_the_shard_in_its_hands(
    copied_world: World, quick_retries: None
) -> None:
    shards = samples.SHARDS["manual"]
    for shard in shards[1:]:
        copied_world.object_path(f"manual/embeddings/{shard}.parquet").unlink()
    with copied_world.instance() as instance:
        run = planned_run(instance, "manual/embeddings", (shards[1], shards[3]))
        assert look(copied_world) == {}  # under way
        start_step(instance, run, "manual/embeddings")
        instance.report_run_failed(run, "its process is gone")
    assert look(copied_world)["manual/embeddings"] == [(shards[1], shards[3])]
    (only,) = failures_of(copied_world, "manual", "embeddings").items()
    assert only[0] == shards[1]
    assert [attempt.kind for attempt in only[1].attempts] == ["crashed"]
    # a second look blames nobody again
    look(copied_world)
    assert dict([only]) == failures_of(copied_world, "manual", "embeddings")


def test_what_a_person_stopped_stays_stopped(
    copied_world: World, quick_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied_world.object_path("manual/embeddings/000002.parquet").unlink()
    with copied_world.instance() as instance:
        run = planned_run(instance, "manual/embeddings", ("000002", "000002"))
        instance.report_run_canceled(run)
    assert look(copied_world) == {}  # nor is the manifest sealed without it
    monkeypatch.setenv("ACIDBURN_MODEL_REVISION", "another")
    assert look(copied_world) == {}
    monkeypatch.delenv("ACIDBURN_MODEL_REVISION")
    assert acidburn("release", "manual/embeddings/000002").code == 0
    assert look(copied_world) == {"manual/embeddings": [("000002", "000002")]}


def test_a_run_that_dagster_starts_again_is_left_to_it(
    copied_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied_world.object_path("manual/embeddings/000002.parquet").unlink()
    with copied_world.instance() as instance:
        run = planned_run(instance, "manual/embeddings", ("000002", "000002"), n_retries=2)
        instance.report_run_failed(run, "its process is gone")
    assert look(copied_world) == {}
    assert failures_of(copied_world, "manual", "embeddings") == {}
    # where no daemon came to start it again, it is not waited for: nobody was to blame
    monkeypatch.setattr(automation, "_RETRY_BEGINS_SECONDS", 0)
    assert look(copied_world) == {"manual/embeddings": [("000002", "000002")]}
    assert failures_of(copied_world, "manual", "embeddings") == {}


def test_the_command_line_leaves_to_a_run_what_it_is_at_work_on(copied_world: World) -> None:
    """A run of the UI, queued or started: two would pay for the same shards."""
    with copied_world.instance() as instance:
        run = planned_run(instance, "manual/embeddings", ("000001", "000002"))
    finished = acidburn("materialize", "manual/embeddings", "--force")
    assert finished.code == 0, finished.err
    assert "made 2 asset partitions" in finished.out
    assert f"manual/embeddings: run {run.run_id} is at work on it" in finished.err


# ---- how it is requested --------------------------------------------------------------------


def test_requests_are_joined_into_ranges_that_a_run_takes(quick_records: None) -> None:
    shards = dg.DynamicPartitionsDefinition(name="d_shards")
    keys = [f"{number:06d}" for number in range(10)]

    @dg.asset(
        key=["d", "a"],
        partitions_def=shards,
        backfill_policy=dg.BackfillPolicy.multi_run(3),
    )
    def a() -> None: ...

    @dg.asset(
        key=["d", "b"],
        partitions_def=shards,
        backfill_policy=dg.BackfillPolicy.multi_run(64),
    )
    def b() -> None: ...

    graph = dg.Definitions(assets=[a, b]).resolve_asset_graph()
    requests = [
        *(
            dg.RunRequest(asset_selection=[a.key, b.key], partition_key=key, tags={"x": "y"})
            for key in [*keys[:5], keys[7]]
        ),
        dg.RunRequest(asset_selection=[dg.AssetKey(["p", "whole"])], tags={"x": "y"}),
    ]
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("d_shards", keys)
        found = ranged_requests(requests, graph, instance)
    shown = [
        (
            request.asset_selection[0].path[-1],
            request.tags.get(RANGE_START_TAG),
            request.tags.get(RANGE_END_TAG),
        )
        for request in found
    ]
    assert shown == [
        ("whole", None, None),
        ("a", keys[0], keys[2]),
        ("a", keys[3], keys[4]),
        ("a", keys[7], keys[7]),
        ("b", keys[0], keys[4]),
        ("b", keys[7], keys[7]),
    ]
    assert all(request.tags["x"] == "y" for request in found)
    assert all(request.partition_key is None for request in found)


def test_the_times_of_attempts_are_this_moment(poisoned: World) -> None:
    began = datetime.now(UTC)
    acidburn("materialize", "manual/chunks")
    (bad,) = failures_of(poisoned, "manual", "chunks").values()
    assert began <= bad.attempts[0].at <= datetime.now(UTC)

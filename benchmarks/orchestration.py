"""What Dagster costs at the size of a whole corpus, with its records in a Postgres of its own.

The graph is recorded in full (`graphs`), then asked for what it must answer every few seconds or
when a person waits: the automation's look at it, the UI's queries, an audit; then a backfill of
all shards of one asset is submitted by Dagster's own daemon. The code is served by a process of
its own, as in production; GraphQL runs in this one, as the web server would run it. What Dagster
and the I/O manager add to a shard is told by the same vectors written by both (`shard_costs`).
"""

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import dagster as dg
import psycopg
from dagster._core.definitions.repository_definition import RepositoryDefinition
from dagster._core.remote_representation.grpc_server_registry import GrpcServerRegistry
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.tags import BACKFILL_ID_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.controller import create_daemon_grpc_server_registry
from dagster_graphql.schema import create_schema
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.engine import URL

from acidburn_assets import settings
from acidburn_assets.adapters import embedded_postgres
from acidburn_assets.commands.auditor import Auditor
from acidburn_assets.commands.instance import limit_pools, prepare_home
from acidburn_assets.definitions import build_defs, build_resources
from acidburn_assets.io_managers.base import Managers
from acidburn_assets.partitions import RANGE_END_TAG, RANGE_START_TAG
from acidburn_assets.runtime import backends
from acidburn_assets.settings import PROJECT_ROOT, Settings
from benchmarks import corpora, graphs, report, shard_costs, timing
from benchmarks.timing import Lap

STORAGE = PROJECT_ROOT / "deploy" / "dagster.postgres.yaml"
STORAGE_VARIABLE = "ACIDBURN_DAGSTER_POSTGRES"

BACKFILLED = dg.AssetKey([corpora.DATASET, "embeddings"])
ALSO_BACKFILLED, N_ALSO = dg.AssetKey([corpora.DATASET, "chunks"]), 640
DAMAGED = dg.AssetKey([corpora.DATASET, "assignments"])

N_CLUSTERS, N_TOUCHED = 20_000, 100
"""A shard draws from few clusters here: an audit at full size is `benchmarks.audit`'s."""

WEB_SERVER = (15_000, 3_600, 20)
"""Milliseconds of a statement, seconds of a connection, connections besides the first.
Source: the defaults of dagster-webserver 1.13.27."""

LIVE_QUERY = """
query AssetGraphLiveQuery($assetKeys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $assetKeys, loadMaterializations: true) {
    id opNames repository { id } assetKey { path }
    assetMaterializations(limit: 1) { timestamp runId stepKey }
    assetObservations(limit: 1) { timestamp runId stepKey }
    assetChecksOrError { ... on AssetChecks { checks {
      name canExecuteIndividually
      executionForLatestMaterialization {
        id runId status timestamp stepKey evaluation { severity }
      }
    } } }
    partitionStats { numMaterialized numMaterializing numPartitions numFailed }
  }
  assetsLatestInfo(assetKeys: $assetKeys) {
    id assetKey { path } unstartedRunIds inProgressRunIds
    latestRun { id status startTime endTime }
  }
}
"""
"""What the UI asks for a graph, at most every few seconds. Source: Dagster 1.13.27's web page."""

PAGE_QUERY = """
query AssetPartitions($assetKey: AssetKeyInput!) {
  assetNodeOrError(assetKey: $assetKey) { ... on AssetNode { assetPartitionStatuses {
    ... on DefaultPartitionStatuses {
      materializedPartitions materializingPartitions failedPartitions unmaterializedPartitions
    }
  } } }
}
"""

BACKFILL_MUTATION = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


@click.command()
@click.option("--shards", "n_shards", default=5_000, show_default=True, type=click.IntRange(4))
@click.option("--gone", "n_gone", default=600, show_default=True, type=click.IntRange(1))
@click.option(
    "--backfill", "n_backfill", type=click.IntRange(1), help="Shards submitted; all by default."
)
@click.option("--vectors", "n_vectors", default=50_000, show_default=True, type=click.IntRange(1))
@click.option("--rounds", "n_rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(
    n_shards: int,
    n_gone: int,
    n_backfill: int | None,
    n_vectors: int,
    n_rounds: int,
    is_json: bool,
) -> None:
    """Time Dagster with thousands of shards, in seconds; recording them takes minutes first."""
    size = corpora.Size(n_shards, 50_000, N_CLUSTERS, N_TOUCHED)
    n_gone, n_backfill = min(n_gone, n_shards), min(n_backfill or n_shards, n_shards)
    with _world() as world:
        began = time.perf_counter()
        n_partitions = graphs.record(world.graph, size)
        world.settle()
        set_up_seconds = time.perf_counter() - began
        laps = {
            **_ticks(world, n_gone, n_rounds),
            **_audits(world, size, n_rounds),
        }
        with (
            create_daemon_grpc_server_registry(world.graph.instance) as code,
            dg.DagsterInstance.from_config(str(world.settings.dagster_home)) as web,
        ):
            with _workspace(web, code, keeps_connections=True) as workspace:
                laps |= _statuses(world, workspace, n_rounds)
                laps["tick, all sound, connections kept"] = _rounds(_look_again(web), n_rounds)
                kept = _submit(world, workspace, ALSO_BACKFILLED, min(n_backfill, N_ALSO))
            with _workspace(world.graph.instance, code, keeps_connections=False) as workspace:
                submitted = _submit(world, workspace, BACKFILLED, n_backfill)
        laps["tick, all of it under way"] = _rounds(_look_again(world.graph.instance), n_rounds)
        costs = shard_costs.measure(
            world.graph.instance, world.folder, n_rows=n_vectors, n_rounds=n_rounds
        )
    rows = [
        {
            "what": name,
            "seconds": timing.spread([lap.wall for lap in of]),
            "CPU seconds, this process": timing.spread([lap.cpu for lap in of]),
        }
        for name, of in laps.items()
    ]
    facts = {
        "tick_seconds": _median(laps[f"tick, {n_gone} gone"]),
        "submit_seconds": round(submitted.seconds, 3),
        "status_seconds": _median(laps["status of all assets"]),
        "audit_seconds": _median(laps["audit: cluster"]),
        "overhead_seconds_per_shard": round(costs.overhead_seconds.median, 3),
        "tick_cold_seconds": _median(laps["tick, first of a process"]),
        "status_cold_seconds": _median(laps["status of all assets, first"]),
        "planned_event_share_of_submit": round(submitted.event_seconds / submitted.seconds, 3),
        "milliseconds_per_event": _per_event(submitted),
        "milliseconds_per_event_connections_kept": _per_event(kept),
        "submit_shards_per_second": round(n_backfill / submitted.seconds, 1),
        "submit_shards_per_second_connections_kept": round(
            min(n_backfill, N_ALSO) / kept.seconds, 1
        ),
        "first_run_queued_seconds": round(submitted.first_seconds, 3),
        "launch_seconds": round(submitted.launch_seconds, 3),
        "overhead_seconds_low_high": [
            round(costs.overhead_seconds.low, 3),
            round(costs.overhead_seconds.high, 3),
        ],
        "difference_to_bare_seconds_low_high": [
            round(costs.difference_seconds.low, 3),
            round(costs.difference_seconds.high, 3),
        ],
        "bare_write_seconds_per_shard": round(costs.bare_seconds.median, 3),
        "run_start_seconds": round(costs.start_seconds.median, 3),
        "shards": n_shards,
        "partitioned assets": len(graphs.partitioned(world.graph)),
        "asset partitions": n_partitions,
        "events": world.n_events,
        "gone": n_gone,
        "shards submitted": n_backfill,
        "runs submitted": submitted.n_runs,
        "vectors per shard": n_vectors,
        "rounds": n_rounds,
        "set-up seconds": round(set_up_seconds, 1),
        "load average": [round(one, 1) for one in os.getloadavg()],
        "dagster": dg.__version__,
    }
    report.show("orchestration", rows, facts=facts, is_json=is_json)


class _World:
    """A home, an instance and a store that live as long as the block."""

    def __init__(self, graph: graphs.Graph, configured: Settings, folder: Path, dsn: str) -> None:
        self.graph = graph
        self.settings = configured
        self.folder = folder
        self.n_events = 0
        self._dsn = dsn

    def settle(self) -> None:
        """After the set-up: the planner knows the tables, and commits wait for the disk again."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute("vacuum analyze")
            connection.execute("alter database dagster reset synchronous_commit")
            found = connection.execute("select count(*) from event_logs").fetchone()
        assert found is not None, "a count has a value"
        self.n_events = int(found[0])


@contextmanager
def _world() -> Iterator[_World]:
    with ExitStack() as stack:
        name = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="acidburn-bench-", ignore_cleanup_errors=True)
        )
        folder = Path(name)
        server = stack.enter_context(embedded_postgres.start(folder / "postgres"))
        dsn = make_conninfo(server.dsn, dbname="dagster")
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("create database dagster")
            # nobody needs what a crash during the set-up would lose
            connection.execute("alter database dagster set synchronous_commit = off")
        os.environ |= {
            "ACIDBURN_HOME": str(folder / "home"),
            "ACIDBURN_DATASETS": str(corpora.write_registry(folder)),
            "ACIDBURN_POSTGRES": server.dsn,
            STORAGE_VARIABLE: write_url(dsn),
        }
        configured = settings.load()
        home = prepare_home(configured)
        with (home / "dagster.yaml").open("a", encoding="utf-8") as file:
            file.write(STORAGE.read_text(encoding="utf-8"))
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        assert isinstance(instance.event_log_storage, SqlEventLogStorage)
        limit_pools(instance, configured)
        nodes = build_defs().resolve_asset_graph()
        graph = graphs.Graph(
            instance,
            nodes,
            Managers(build_resources(configured)),
            backends.open_store(configured),
            configured.home / "objects",
            backends.open_postgres(configured),
        )
        yield _World(graph, configured, folder, dsn)


def write_url(dsn: str) -> str:
    """The address of a Postgres as `ACIDBURN_DAGSTER_POSTGRES` has it.

    Args:
        dsn: as libpq reads it.
    """
    parts = conninfo_to_dict(dsn)
    query = {"host": str(parts["host"]), "port": str(parts["port"])}
    url = URL.create(
        "postgresql+psycopg2",
        username=str(parts["user"]),
        database=str(parts["dbname"]),
        query=query,
    )
    return url.render_as_string(hide_password=False)


# ---- the automation's look ------------------------------------------------------------------


class _Looker:
    """The sensor as one process of the code server has it, from tick to tick."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._repository: RepositoryDefinition = build_defs().get_repository_def()
        self._cursor: str | None = None

    def look(self) -> int:
        """Ticks once; returns the number of shards that are requested."""
        context = dg.build_sensor_context(
            instance=self._instance, repository_def=self._repository, cursor=self._cursor
        )
        found = self._repository.get_sensor_def("healing").evaluate_tick(context)
        self._cursor = found.cursor
        requests = found.run_requests or ()
        ends = [(one.tags.get(RANGE_START_TAG), one.tags.get(RANGE_END_TAG)) for one in requests]
        return sum(int(last) - int(first) + 1 if first and last else 1 for first, last in ends)


def _ticks(world: _World, n_gone: int, n_rounds: int) -> dict[str, list[Lap]]:
    instance = world.graph.instance
    lookers = [_Looker(instance) for _ in range(n_rounds)]
    cold = [_rounds(partial(_expect, one, 0), 1)[0] for one in lookers]
    looker = lookers[-1]
    laps = {
        "tick, first of a process": cold,
        "tick, all sound": _rounds(partial(_expect, looker, 0), n_rounds),
    }
    gone = graphs.object_paths(world.graph, DAMAGED)
    gone = gone[:: max(1, len(gone) // n_gone)][:n_gone]
    aside = world.folder / "aside"
    aside.mkdir()
    for path in gone:
        path.rename(aside / path.name)
    laps[f"tick, {n_gone} gone"] = _rounds(partial(_expect, looker, n_gone), n_rounds)
    for path in gone:
        (aside / path.name).rename(path)
    return laps


def _look_again(instance: dg.DagsterInstance) -> Callable[[], object]:
    looker = _Looker(instance)
    looker.look()
    return looker.look


def _expect(looker: _Looker, wanted: int) -> None:
    found = looker.look()
    assert found == wanted, f"{found} shards are requested, not {wanted}"


# ---- what a person asks ---------------------------------------------------------------------


def _audits(world: _World, size: corpora.Size, n_rounds: int) -> dict[str, list[Lap]]:
    configured, instance = world.settings, world.graph.instance
    cluster, shard = str(size.n_clusters // 2), f"{corpora.DATASET}/{size.n_shards // 2:06d}"
    return timing.time_rounds(
        {
            "audit: cluster": lambda: Auditor(configured, instance).cluster(cluster, None),
            "audit: shard": lambda: Auditor(configured, instance).shard(shard),
        },
        n_rounds=n_rounds,
    )


@contextmanager
def _workspace(
    instance: dg.DagsterInstance, code: GrpcServerRegistry, *, keeps_connections: bool
) -> Iterator[WorkspaceProcessContext]:
    """What the web server and the daemon see: the records, and the code in a process of its own.

    Args:
        instance: whose records.
        code: starts that process when it is first asked for.
        keeps_connections: as the web server does; daemon and code server open one for each
            statement.
    """
    if keeps_connections:
        instance.optimize_for_webserver(*WEB_SERVER)
    target = ModuleTarget("acidburn_assets.definitions", None, str(PROJECT_ROOT), None)
    with WorkspaceProcessContext(instance, target, grpc_server_registry=code) as workspace:
        yield workspace


SCHEMA = create_schema()


def _ask(workspace: WorkspaceProcessContext, query: str, variables: Mapping[str, Any]) -> Any:
    """One request of the UI."""
    answered = asyncio.run(
        SCHEMA.execute_async(
            query,
            context_value=workspace.create_request_context(),
            variable_values=dict(variables),
        )
    )
    assert not answered.errors, answered.errors
    return answered.data


def _statuses(
    world: _World, workspace: WorkspaceProcessContext, n_rounds: int
) -> dict[str, list[Lap]]:
    n_shards = len(graphs.object_paths(world.graph, DAMAGED))
    keys = sorted(world.graph.nodes.get_all_asset_keys())
    all_assets = {"assetKeys": [{"path": list(key.path)} for key in keys]}

    def status() -> None:
        nodes = _ask(workspace, LIVE_QUERY, all_assets)["assetNodes"]
        counts = [
            node["partitionStats"]["numMaterialized"] for node in nodes if node["partitionStats"]
        ]
        assert counts == [n_shards] * len(graphs.partitioned(world.graph)), counts

    page = {"assetKey": {"path": list(BACKFILLED.path)}}
    return {
        "status of all assets, first": _rounds(status, 1),
        "status of all assets": _rounds(status, n_rounds),
        "page of one asset": _rounds(lambda: _ask(workspace, PAGE_QUERY, page), n_rounds),
    }


# ---- a backfill -----------------------------------------------------------------------------


class _Submitted(NamedTuple):
    """A backfill whose runs wait in the queue."""

    n_runs: int
    seconds: float  # from the click to the last run
    launch_seconds: float  # until the UI says that it is on its way
    first_seconds: float  # until the first run could begin
    event_seconds: float  # of all of them, spent on writing events: one for each planned shard
    n_events: int


def _submit(
    world: _World, workspace: WorkspaceProcessContext, key: dg.AssetKey, n_shards: int
) -> _Submitted:
    instance = workspace.instance
    shards = sorted(instance.get_dynamic_partitions(f"{corpora.DATASET}_shards"))[:n_shards]
    clicked, began = time.time(), time.perf_counter()
    params = {"assetSelection": [{"path": list(key.path)}], "partitionNames": shards}
    launched = _ask(workspace, BACKFILL_MUTATION, {"params": params})["launchPartitionBackfill"]
    launch_seconds = time.perf_counter() - began
    wanted = dg.RunsFilter(tags={BACKFILL_ID_TAG: launched["backfillId"]})
    n_per_run = world.graph.nodes.get(key).backfill_policy.max_partitions_per_run
    n_runs = -(-n_shards // n_per_run)
    with _timed_events(instance) as spent:
        while instance.get_runs_count(wanted) < n_runs:
            for error in execute_backfill_iteration(workspace, logging.getLogger("backfill")):
                assert error is None, error
    seconds = time.perf_counter() - began
    records = instance.get_run_records(wanted, ascending=True, limit=1)
    return _Submitted(
        instance.get_runs_count(wanted),
        seconds,
        launch_seconds,
        records[0].create_timestamp.timestamp() - clicked,
        sum(spent),
        len(spent),
    )


@contextmanager
def _timed_events(instance: dg.DagsterInstance) -> Iterator[list[float]]:
    """Seconds that each event took to be written while the block ran."""
    storage = instance.event_log_storage
    store, spent = storage.store_event, list[float]()

    def timed(event: dg.EventLogEntry) -> None:
        began = time.perf_counter()
        store(event)
        spent.append(time.perf_counter() - began)

    vars(storage)["store_event"] = timed
    try:
        yield spent
    finally:
        del vars(storage)["store_event"]


def _per_event(submitted: _Submitted) -> float:
    return round(1_000 * submitted.event_seconds / submitted.n_events, 2)


def _rounds(work: Callable[[], object], n_rounds: int) -> list[Lap]:
    return timing.time_rounds({"": work}, n_rounds=n_rounds, is_warmed=True)[""]


def _median(laps: list[Lap]) -> float:
    return round(timing.spread([lap.wall for lap in laps]).median, 3)


if __name__ == "__main__":
    command()

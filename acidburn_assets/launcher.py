"""Starts runs as Dagster does, and knows whether the process of a run is still alive.

Dagster's own launcher cannot say: after a reboot, or when a worker and the server that started it
are killed together, a run would seem to run for ever, and hold its pool and its partitions.
Source: Dagster 1.13.27, `DefaultRunLauncher` has no health check.
"""

import socket
from typing import NamedTuple

import dagster as dg
import psutil
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher

PROCESS_TAG = "acidburn/process"
"""`host:pid:start time` of the process that executes a run by itself."""

HOST_TAG = "acidburn/host"
"""Where a run was launched: a worker's pid means something only there."""


class WorkerProcess(NamedTuple):
    """A process that cannot be mistaken for a later one of the same pid."""

    host: str
    pid: int
    started_at: float  # seconds since the epoch, or the latest moment that it can be

    def is_alive(self) -> bool | None:
        """None where it is another host's: nobody here can tell."""
        if self.host != socket.gethostname():
            return None
        try:
            process = psutil.Process(self.pid)
            # 5 s: tags hold whole seconds, and an event is written after its process began
            return (
                process.create_time() <= self.started_at + 5
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False


def this_process() -> str:
    """The tag of a run that this process executes."""
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.0f}"


def process_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> WorkerProcess | None:
    """The process that executes a run; None before it has said so.

    Args:
        instance: where the run's events are.
        run: that was started.
    """
    tag = run.tags.get(PROCESS_TAG)
    # executed again, a run has its parent's tags and a process of its own
    if tag is not None and run.parent_run_id is None:
        named, pid, started_at = tag.rsplit(":", 2)
        return WorkerProcess(named, int(pid), float(started_at))
    host = run.tags.get(HOST_TAG)
    if host is None:
        return None
    events = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT
    ).records
    for record in events:
        event = record.event_log_entry.dagster_event
        metadata = event.engine_event_data.metadata if event is not None else {}
        if "pid" in metadata:
            own = int(str(metadata["pid"].value))
            return WorkerProcess(host, own, record.timestamp)
    return None


class CheckedRunLauncher(DefaultRunLauncher):
    """`run_launcher` of dagster.yaml; `run_monitoring` asks it about every started run."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """As Dagster does, and says on which host."""
        self._instance.add_run_tags(context.dagster_run.run_id, {HOST_TAG: socket.gethostname()})
        super().launch_run(context)

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Failed where the process of the run is gone."""
        worker = process_of(self._instance, run)
        if worker is None or worker.is_alive() is not False:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"its process {worker.pid} is gone")

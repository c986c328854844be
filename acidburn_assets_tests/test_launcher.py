"""Whether the process of a run is alive, as run monitoring asks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType, EngineEventData
from dagster._core.launcher.base import WorkerStatus

from acidburn_assets.launcher import (
    HOST_TAG,
    PROCESS_TAG,
    CheckedRunLauncher,
    process_of,
    this_process,
)


@pytest.fixture
def instance(quick_records: None) -> Iterator[dg.DagsterInstance]:
    launcher = {"module": "acidburn_assets.launcher", "class": "CheckedRunLauncher"}
    with dg.instance_for_test(overrides={"run_launcher": launcher}) as made:
        yield made


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def started(instance: dg.DagsterInstance, pid: int | None, **tags: str) -> dg.DagsterRun:
    """A run whose worker said that it is the process of that pid."""

    @dg.job
    def nothing() -> None: ...

    if pid is not None:
        tags = {HOST_TAG: this_process().rsplit(":", 2)[0], **tags}
    run = instance.create_run_for_job(nothing, tags=tags, status=dg.DagsterRunStatus.STARTED)
    if pid is not None:
        event = DagsterEvent(
            event_type_value=DagsterEventType.ENGINE_EVENT.value,
            job_name="nothing",
            event_specific_data=EngineEventData(metadata={"pid": dg.MetadataValue.text(str(pid))}),
        )
        instance.report_dagster_event(event, run.run_id)
    return run


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> WorkerStatus:
    assert isinstance(instance.run_launcher, CheckedRunLauncher)
    assert instance.run_launcher.supports_check_run_worker_health
    return instance.run_launcher.check_run_worker_health(run).status


def test_a_killed_worker_is_noticed(
    instance: dg.DagsterInstance, sleeper: "subprocess.Popen[bytes]"
) -> None:
    run = started(instance, sleeper.pid)
    assert status(instance, run) is WorkerStatus.RUNNING
    sleeper.send_signal(signal.SIGKILL)
    while not _is_zombie(sleeper.pid):
        time.sleep(0.01)
    # nobody has collected it yet: a zombie works no more
    assert status(instance, run) is WorkerStatus.FAILED
    sleeper.wait()
    assert status(instance, run) is WorkerStatus.FAILED


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] == "Z"


def test_a_later_process_of_the_same_pid_is_another(instance: dg.DagsterInstance) -> None:
    """After a reboot pids are given again."""
    host = this_process().rsplit(":", 2)[0]
    run = started(instance, None, **{PROCESS_TAG: f"{host}:{os.getpid()}:1000"})
    assert status(instance, run) is WorkerStatus.FAILED


def test_a_run_of_the_command_line_is_its_own_process(instance: dg.DagsterInstance) -> None:
    run = started(instance, None, **{PROCESS_TAG: this_process()})
    assert status(instance, run) is WorkerStatus.RUNNING


def test_who_cannot_be_asked_counts_as_alive(instance: dg.DagsterInstance) -> None:
    elsewhere = started(instance, None, **{PROCESS_TAG: "another-host:1:0"})
    # its pid is nobody's here, and means nothing here
    launched_elsewhere = started(instance, 2**22 - 1, **{HOST_TAG: "another-host"})
    assert status(instance, launched_elsewhere) is WorkerStatus.RUNNING
    silent = started(instance, None)
    assert process_of(instance, silent) is None
    assert status(instance, elsewhere) is WorkerStatus.RUNNING
    assert status(instance, silent) is WorkerStatus.RUNNING

"""The home: orphaned runs are told from living ones, and two materializations from one."""

import subprocess
import sys

import dagster as dg
import pytest

from acidburn_assets import settings
from acidburn_assets.commands.instance import (
    fail_orphans,
    limit_pools,
    only_one,
    open_instance,
    prepare_home,
)
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.launcher import PROCESS_TAG, this_process
from acidburn_assets.settings import PROJECT_ROOT


@pytest.fixture
def instance():
    with dg.instance_for_test() as made:
        yield made


def started_run(instance, **tags):
    @dg.job
    def nothing():
        pass

    run = instance.create_run_for_job(nothing, tags=tags, status=dg.DagsterRunStatus.STARTED)
    return run.run_id


def dead_tag():
    host, _, _ = this_process().rsplit(":", 2)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return f"{host}:{ended.pid}:0"


def test_a_run_whose_process_is_gone_is_failed(instance):
    orphan = started_run(instance, **{PROCESS_TAG: dead_tag()})
    assert fail_orphans(instance) == [orphan]
    assert instance.get_run_by_id(orphan).status is dg.DagsterRunStatus.FAILURE


def test_living_and_foreign_runs_are_left_alone(instance):
    mine = started_run(instance, **{PROCESS_TAG: this_process()})
    elsewhere = started_run(instance, **{PROCESS_TAG: "another-host:1:0"})
    from_the_ui = started_run(instance)
    assert fail_orphans(instance) == []
    for run_id in (mine, elsewhere, from_the_ui):
        assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.STARTED


def test_a_run_that_was_executed_again_from_the_ui_has_a_process_of_its_own(instance):
    """It has its parent's tags, and with them the tag of a process that is gone."""

    @dg.job
    def nothing():
        pass

    parent = nothing.execute_in_process(instance=instance)
    run = instance.create_run_for_job(
        nothing,
        tags={PROCESS_TAG: dead_tag()},
        status=dg.DagsterRunStatus.STARTED,
        parent_run_id=parent.run_id,
        root_run_id=parent.run_id,
    )
    assert fail_orphans(instance) == []
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTED


def test_a_second_materialization_of_one_home_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACIDBURN_HOME", str(tmp_path / "home"))
    configured = settings.load()
    code = (
        "from acidburn_assets import settings\n"
        "from acidburn_assets.commands.instance import only_one\n"
        "with only_one(settings.load()): pass\n"
    )
    with only_one(configured):
        other = subprocess.run(
            [sys.executable, "-c", code],
            env={"ACIDBURN_HOME": str(tmp_path / "home"), "PYTHONPATH": str(PROJECT_ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert "another acidburn materialize is at work" in other.stderr
    with only_one(configured):
        pass


def test_the_home_gets_the_projects_own_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("ACIDBURN_HOME", str(tmp_path / "home"))
    home = prepare_home(settings.load())
    assert (home / "dagster.yaml").read_bytes() == (PROJECT_ROOT / "dagster.yaml").read_bytes()


def test_a_package_without_its_checkout_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("acidburn_assets.commands.instance.PROJECT_ROOT", tmp_path)
    with pytest.raises(ConfigError, match="install Acidburn from a checkout"):
        prepare_home(settings.load())


def test_pools_have_the_limits_that_the_settings_name(tmp_path, monkeypatch):
    monkeypatch.setenv("ACIDBURN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ACIDBURN_GPU_RUNS", "3")

    def limits(instance):
        return {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}

    with open_instance(settings.load()) as made:
        assert limits(made) == {"cpu": 1, "gpu": 3, "supabase": 2, "labels": 1}
        monkeypatch.setenv("ACIDBURN_GPU_RUNS", "2")
        limit_pools(made, settings.load())
        assert limits(made)["gpu"] == 2

"""The faults of a run are drawn from its seed."""

from collections import Counter

import pytest

from acidburn_assets_tests.chaos.schedule import KINDS, plan_faults


def test_the_same_seed_gives_the_same_faults_and_another_gives_others() -> None:
    assert plan_faults(40, seed=1) == plan_faults(40, seed=1)
    assert plan_faults(40, seed=1) != plan_faults(40, seed=2)


@pytest.mark.parametrize("seed", range(5))
def test_of_forty_faults_every_kind_is_one_and_most_kill(seed: int) -> None:
    faults = plan_faults(40, seed=seed)
    kinds = Counter(fault.kind for fault in faults)
    assert len(faults) == 40
    assert set(kinds) == set(KINDS)
    assert sum(count for kind, count in kinds.items() if kind.startswith("kill_")) >= 20
    assert all(0 <= fault.draw < 1 for fault in faults)


def test_eight_faults_hit_workers_objects_the_bucket_and_postgres() -> None:
    kinds = Counter(fault.kind for fault in plan_faults(8, seed=0))
    assert kinds == dict.fromkeys(
        (
            *("kill_in_part", "kill_before_event", "kill_in_load", "kill_stack"),
            *("delete", "flip_bit", "burst_503", "restart_postgres"),
        ),
        1,
    )


def test_what_is_impossible_here_is_replaced_and_not_left_out() -> None:
    faults = plan_faults(40, seed=3, impossible=frozenset({"disk_full"}))
    assert len(faults) == 40
    assert "disk_full" not in {fault.kind for fault in faults}

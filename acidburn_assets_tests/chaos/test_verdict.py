"""Two worlds are compared, and every way to differ is told."""

import copy
from collections.abc import Callable

import pytest

from acidburn_assets_tests.chaos.records import SHARDED
from acidburn_assets_tests.chaos.verdict import Contents, judge

POISONED = ("manual", "000002")


@pytest.fixture
def whole() -> Contents:
    """Two shards, one of them poisoned."""
    present = {f"manual/{asset}/000001" for asset in SHARDED}
    return Contents(
        hashes={"manual/chunks/000001.parquet": "a", "acidburn.chunk_texts": "b"},
        ids={"manual/chunks": ["1", "2"], "acidburn.chunk_texts": ["1", "2"]},
        planned={"manual": ["000001", "000002"]},
        present=present,
        left_out={"manual": ["000002"]},
        failures={"manual/chunks/000002": ["refused", "refused", "refused"]},
    )


def test_equal_worlds_have_no_problem(whole: Contents) -> None:
    verdict = judge(copy.deepcopy(whole), whole, poisoned=POISONED)
    assert verdict == (0, 0, 0, True, [])


def lose_a_chunk(world: Contents) -> None:
    world.ids["manual/chunks"].remove("1")


def repeat_a_row(world: Contents) -> None:
    world.ids["acidburn.chunk_texts"].append("2")


def lose_a_shard(world: Contents) -> None:
    world.present.remove("manual/chunk_embeddings/000001")


def lose_a_plan(world: Contents) -> None:
    world.planned["manual"] = []


def damage_a_shard(world: Contents) -> None:
    world.corrupt.append("manual/embeddings/000001.parquet")


def change_a_hash(world: Contents) -> None:
    world.hashes["acidburn.chunk_texts"] = "c"


def forget_the_poison(world: Contents) -> None:
    world.failures.clear()


def try_the_poison_too_often(world: Contents) -> None:
    world.failures["manual/chunks/000002"].append("refused")


def quarantine_another(world: Contents) -> None:
    world.failures["manual/embeddings/000001"] = ["crashed"]


def leave_nothing_out(world: Contents) -> None:
    world.left_out["manual"] = []


@pytest.mark.parametrize(
    ("disturb", "counts", "told"),
    [
        (lose_a_chunk, (1, 0, 0, True), "manual/chunks: 1 chunks missing"),
        (repeat_a_row, (0, 1, 0, True), "acidburn.chunk_texts: 0 chunks missing, 1 too many"),
        (lose_a_shard, (0, 0, 1, True), "manual/chunk_embeddings/000001 is not there"),
        (lose_a_plan, (0, 0, 1, True), "manual is not there"),
        (damage_a_shard, (0, 0, 1, True), "manual/embeddings/000001.parquet is not what was"),
        (change_a_hash, (0, 0, 0, False), "acidburn.chunk_texts differs"),
        (forget_the_poison, (0, 0, 0, True), "manual/chunks/000002 was to be quarantined"),
        (try_the_poison_too_often, (0, 0, 0, True), "manual/chunks/000002 was to be quarantined"),
        (quarantine_another, (0, 0, 0, True), "manual/embeddings/000001 is said to have failed"),
        (leave_nothing_out, (0, 0, 0, True), "manual/manifest leaves out []"),
    ],
)
def test_every_difference_is_told(
    whole: Contents,
    disturb: Callable[[Contents], None],
    counts: tuple[int, int, int, bool],
    told: str,
) -> None:
    disturbed = copy.deepcopy(whole)
    disturb(disturbed)
    verdict = judge(disturbed, whole, poisoned=POISONED)
    assert verdict[:4] == counts
    assert any(problem.startswith(told) for problem in verdict.problems), verdict.problems

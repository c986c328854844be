"""`python -m acidburn_assets_tests.chaos`: breaks a running stack, waits, and gives a verdict."""

import json
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click
import dagster as dg

from acidburn_assets_tests.chaos import corpus, schedule, stack, verdict, work, world
from acidburn_assets_tests.chaos.faults import Injector
from acidburn_assets_tests.chaos.schedule import Fault, Kind
from acidburn_assets_tests.chaos.verdict import Verdict
from acidburn_assets_tests.chaos.work import Loss, Work
from acidburn_assets_tests.chaos.world import World

_MAX_OPEN = 2
"""Faults that may be healing at once: what heals one must not wait for many."""

_N_TRIES = 8
"""Of a fault; the last ones find a graph that is idle, and work is made for them."""

_HEAL_LIMIT_SECONDS = 300
"""After that it counts as never."""

_CALM_LIMIT_SECONDS = 1800

_REDONE_LIMIT = 0.05
"""Of a whole run; of a short one, whose every shard is a tenth of all, it is told only."""
_MEDIAN_LIMIT_SECONDS = 60.0


@click.command()
@click.option("--faults", "n_faults", default=40, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--short",
    is_flag=True,
    help="Minutes: small corpora, and faults only to what an undisturbed run has made.",
)
@click.option("--json", "is_json", is_flag=True, help="Only the last line.")
@click.option("--keep", type=click.Path(path_type=Path), help="Work here, and leave all of it.")
def main(n_faults: int, seed: int, short: bool, is_json: bool, keep: Path | None) -> None:
    """Breaks the graph in many ways and looks whether it heals by itself."""
    began = time.monotonic()
    # told to end, it must still stop the servers and unmount the disk
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    def tell(line: str) -> None:
        if not is_json:
            click.echo(f"{time.monotonic() - began:6.0f} s  {line}")

    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="acidburn-chaos-", dir=keep))
    size = corpus.SHORT if short else corpus.FULL
    with ExitStack() as opened:
        if keep is None:
            opened.callback(shutil.rmtree, folder, ignore_errors=True)
        problems, summary = _run(folder, opened, size, n_faults, seed, short, tell)
    summary["seconds"] = round(time.monotonic() - began)
    for problem in problems:
        click.echo(f"NOT AS IT SHOULD BE: {problem}")
    click.echo(json.dumps(summary))
    sys.exit(1 if problems else 0)


def _run(
    folder: Path,
    opened: ExitStack,
    size: corpus.Size,
    n_faults: int,
    seed: int,
    is_short: bool,
    tell: world.Tell,
) -> tuple[list[str], dict[str, Any]]:
    database = stack.Database(folder / "postgres")
    opened.callback(database.stop)
    endpoint = opened.enter_context(stack.bucket_server(folder / "moto.log"))
    proxy = opened.enter_context(stack.proxy(endpoint, seed=seed))

    def make(name: str) -> World:
        work_folder = opened.enter_context(closing(stack.WorkFolder(folder / f"tmp-{name}")))
        made = world.make(
            name,
            folder / name,
            endpoint=endpoint,
            proxy=proxy,
            database=database,
            work_folder=work_folder,
            size=size,
        )
        opened.callback(made.service.stop)
        return made

    calm = make("calm")
    tell("an undisturbed run begins")
    calm_began = time.monotonic()
    calm.service.start()
    problems = []
    if not calm.wait_until_made(limit_seconds=_CALM_LIMIT_SECONDS, tell=tell):
        problems.append(f"the undisturbed run did not end in {_CALM_LIMIT_SECONDS} s")
    calm_seconds = time.monotonic() - calm_began
    tell(f"the undisturbed run has made everything in {calm_seconds:.0f} s")
    if not is_short:
        problems += _leftovers(calm)
    if problems:
        return problems, {"faults": 0, "hashes_equal": False}
    undisturbed = verdict.read(calm.bucket, calm.dsn, size.shards)
    prices = work.price(calm.makings())

    broken = calm if is_short else make("chaos")
    impossible: frozenset[Kind] = (
        frozenset({"disk_full"}) if broken.work_folder.why_not else frozenset()
    )
    injector = Injector(broken, tell, random.Random(seed))  # noqa: S311 - no secret
    if not is_short:
        broken.service.start()
    missed = _inflict_all(
        injector, schedule.plan_faults(n_faults, seed=seed, impossible=impossible)
    )
    problems += [f"no moment came for {fault.kind}" for fault in missed]
    tell("all faults are done, the rest is healing")
    _wait_for_healing(injector)
    if not broken.wait_until_made(limit_seconds=600, tell=tell):
        left = broken.records.unsound(broken.records.places(broken.left_out))
        problems.append(
            f"not made in 10 minutes: {', '.join(map(str, left[:10]))} ({len(left)} in all); "
            f"{broken.records.n_unfinished()} runs unfinished"
        )
    problems += _leftovers(broken)
    found = verdict.judge(
        verdict.read(broken.bucket, broken.dsn, size.shards), undisturbed, poisoned=broken.poisoned
    )
    lost = losses(injector)
    for loss in lost:
        tell(f"{loss.seconds:.1f} s of {loss.place} may have been lost with its run")
    accounted = work.account(broken.makings(), lost, injector.destroyed, prices)
    return _sum_up(injector, found, accounted, problems, calm_seconds, is_short)


def _inflict_all(injector: Injector, faults: Sequence[Fault]) -> list[Fault]:
    """Does them in order, but what finds no moment comes later; gives what never found one."""
    waiting = deque((fault, _N_TRIES) for fault in faults)
    missed = []
    while waiting:
        fault, n_tries = waiting.popleft()
        _wait_for_room(injector)
        if injector.inflict(fault):
            continue
        if n_tries > 1:
            waiting.append((fault, n_tries - 1))
        else:
            missed.append(fault)
    return missed


def _wait_for_room(injector: Injector) -> None:
    """Until few faults are healing, and a little longer."""
    while True:
        injector.look()
        # work that was made for faults is there to be hit while it is done
        waiting = [one for one in injector.inflicted if one.healed_at is None]
        if sum(time.time() - one.at < _HEAL_LIMIT_SECONDS for one in waiting) < _MAX_OPEN:
            break
        time.sleep(1)
    time.sleep(injector.rng.random() * 3)


def _wait_for_healing(injector: Injector) -> None:
    while any(time.time() - one.at < _HEAL_LIMIT_SECONDS for one in injector.open()):
        time.sleep(1)
        injector.look()


def _leftovers(made: World) -> list[str]:
    """Stops the service; what is left then should not be."""
    left = made.service.stop()
    return [f"{made.name}: processes were left over: {left}"] if left else []


def losses(injector: Injector) -> list[Loss]:
    """What runs had in their hands when they ended before their time."""
    records = injector.world.records
    found = []
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    for record in records.instance.get_run_records(failed):
        run = record.dagster_run
        place = records.in_hand(run.run_id, records.places_of(run))
        if place is None or (place.owner, place.shard) == injector.world.poisoned:
            continue
        events = records.instance.get_records_for_run(
            run.run_id,
            of_type={
                dg.DagsterEventType.STEP_START,
                dg.DagsterEventType.ASSET_MATERIALIZATION,
            },
        ).records
        if not events:
            continue  # it never came to its work
        end = injector.killed.get(run.run_id, record.end_time or 0.0)
        since = max(event.timestamp for event in events)
        if place.asset == "embeddings":
            # the model is loaded, then the shard's chunks are looked at, then they are encoded
            key = place._replace(asset="chunks").object_key
            looked = [at for at in injector.read.get(key, ()) if since < at < end]
            since = min(looked, default=end)
        stored = [at for at in injector.safe.get(place, ()) if since < at < end]
        found.append(Loss(place, end - max(stored, default=since)))
    return found


def _sum_up(
    injector: Injector,
    found: Verdict,
    accounted: Work,
    problems: list[str],
    calm_seconds: float,
    is_short: bool,
) -> tuple[list[str], dict[str, Any]]:
    seconds = [one.seconds_to_heal for one in injector.inflicted]
    healed = sorted(taken for taken in seconds if taken is not None)
    median = statistics.median(healed) if healed else None
    never = injector.open()
    problems = [
        *problems,
        *found.problems,
        *(f"did not heal: {one.kind}, {one.detail}" for one in never),
    ]
    if accounted.share >= _REDONE_LIMIT and not is_short:
        problems.append(
            f"{accounted.share:.1%} of the work was done twice: {dict(accounted.redone_by_asset)}"
        )
    if median is None or median >= _MEDIAN_LIMIT_SECONDS:
        problems.append(f"half of the faults took more than {median} s to heal")
    kinds = [one.kind for one in injector.inflicted]
    why_not = injector.world.work_folder.why_not
    summary = {
        "faults": len(injector.inflicted),
        "kinds": {kind: kinds.count(kind) for kind in schedule.KINDS if kind in kinds},
        "deleted_to_make_work": sum(len(one.wounds) for one in injector.baits),
        "disk_full": f"not possible here: {why_not}" if why_not else "possible",
        "restarts": injector.world.service.n_restarts,
        "lost_chunks": found.lost_chunks,
        "duplicate_chunks": found.duplicate_chunks,
        "unhealed_shards": found.unhealed_shards + len(never),
        "seconds_to_heal_median": None if median is None else round(median, 1),
        "seconds_to_heal_max": round(healed[-1], 1) if healed else None,
        "redone_share": round(accounted.share, 4),
        "redone_seconds": {name: round(s, 2) for name, s in accounted.redone_by_asset.items()},
        "needed_seconds": round(accounted.needed, 1),
        "undisturbed_seconds": round(calm_seconds),
        "hashes_equal": found.is_hash_equal,
    }
    return problems, summary


if __name__ == "__main__":
    main()

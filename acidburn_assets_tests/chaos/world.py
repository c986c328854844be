"""One stack with its corpora, bucket, database and records; two of them share the servers."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from acidburn_assets.io_managers import versions
from acidburn_assets_tests.chaos import corpus
from acidburn_assets_tests.chaos.corpus import Size
from acidburn_assets_tests.chaos.records import Place, Records
from acidburn_assets_tests.chaos.stack import (
    Bucket,
    Database,
    Service,
    WatchedS3,
    WorkFolder,
    environment,
)
from acidburn_assets_tests.chaos.work import Making

Tell = Callable[[str], None]

_POISONED_SHARD = 2
"""Neither the first nor the last: a range with a hole in it."""


@dataclass
class World:
    """Everything of one stack."""

    name: str
    folder: Path
    bucket: Bucket
    database: Database
    dsn: str
    proxy: WatchedS3
    work_folder: WorkFolder
    service: Service
    records: Records
    poisoned: tuple[str, str]  # dataset and shard

    @property
    def left_out(self) -> list[tuple[str, str]]:
        """What cannot be made."""
        return [self.poisoned]

    def is_made(self) -> bool:
        """Everything planned is there and reported, and nothing is at work."""
        n_planned = len([shards for shards in self.records.planned().values() if shards])
        return (
            n_planned == len(self.records.pools)
            and not self.records.n_unfinished()
            and not self.records.unsound(self.records.places(self.left_out))
        )

    def wait_until_made(self, *, limit_seconds: float, tell: Tell) -> bool:
        """Waits until all is made; False when it took too long."""
        deadline = time.monotonic() + limit_seconds
        told = time.monotonic()
        while time.monotonic() < deadline:
            if self.is_made():
                return True
            if time.monotonic() - told > 30:
                told = time.monotonic()
                left = self.records.unsound(self.records.places(self.left_out))
                tell(
                    f"{self.name}: {len(left)} partitions to come, first "
                    f"{', '.join(map(str, left[:3])) or 'none'}; "
                    f"{self.records.n_unfinished()} runs wait or are at work"
                )
            time.sleep(2)
        return False

    def makings(self) -> list[Making]:
        """Every materialization there was."""
        found = []
        for key in sorted({place.key for place in self.records.places()}):
            cursor = None
            while True:
                page = self.records.instance.fetch_materializations(key, limit=500, cursor=cursor)
                found += [_making(key, record) for record in page.records]
                if not page.has_more:
                    break
                cursor = page.cursor
        return found


def make(
    name: str,
    folder: Path,
    *,
    endpoint: str,
    proxy: WatchedS3,
    database: Database,
    work_folder: WorkFolder,
    size: Size,
) -> World:
    """Writes corpora, plans the poisoned dataset and changes one of its files; nothing is at work
    yet.

    Args:
        name: of bucket and database too.
        folder: is made.
        endpoint: of the bucket's server, past the proxy.
        proxy: before it.
        database: where a database is made.
        work_folder: the stack's TMPDIR.
        size: of the corpora.
    """
    folder.mkdir()
    corpus.write(folder, size)
    bucket = Bucket(endpoint, f"acidburn-{name}")
    dsn = database.create(name)
    variables = environment(
        folder,
        endpoint=proxy.endpoint,
        bucket=bucket.name,
        dsn=dsn,
        work_folder=work_folder.folder,
    )
    command = [sys.executable, "-m", "acidburn_assets", "materialize", f"{corpus.POISONED}/plan"]
    with (folder / "plan.log").open("wb") as log:
        subprocess.run(
            command, cwd=folder, env=variables, check=True, stdout=log, stderr=subprocess.STDOUT
        )
    plan = json.loads(bucket.read(f"{corpus.POISONED}/plan.json")[0])
    shard = plan["shards"][_POISONED_SHARD]
    # the shard's first file: refused at once, nothing before it is chunked in vain
    corpus.poison(folder, shard["units"][0]["path"])
    return World(
        name=name,
        folder=folder,
        bucket=bucket,
        database=database,
        dsn=dsn,
        proxy=proxy,
        work_folder=work_folder,
        service=Service(folder, variables),
        records=Records(folder / "home", bucket, dsn, size.pools),
        poisoned=(corpus.POISONED, shard["key"]),
    )


def _making(key: dg.AssetKey, record: dg.EventLogRecord) -> Making:
    owner, asset = key.path
    figures = versions.figures_of(record)
    return Making(
        place=Place(owner, asset, record.partition_key),
        event=record.storage_id,
        n_rows=int(figures.get("rows") or 0),
        n_resumed_rows=int(figures.get("resumed_rows") or 0),
        seconds=float(figures.get("seconds") or 0.0),
        is_reused=bool(figures.get("reused")),
    )

"""Compares the bucket and Postgres, not Dagster's records, with those of an undisturbed run."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from acidburn_assets_tests.chaos.records import SHARDED
from acidburn_assets_tests.chaos.stack import Bucket

IN_BUCKET = ("chunks", "embeddings", "term_weights", "assignments")

_TABLES = {
    "chunk_embeddings": "cluster_id, md5(embedding::text)",
    "chunk_texts": "doc_id, doc_row, title, chunk_index, char_start, char_end, n_tokens, md5(body)",
    "chunk_clusters": "cluster_id, strength, distance, is_noise",
}
"""What must be equal, besides dataset, shard and chunk; numbers of shards and pools are Postgres's
own, in the order in which they came."""

_POOL_TABLES = {
    "cluster_headers": "cluster_id, parent, title, summary, keywords, n_chunks, n_noise, radius,"
    " centroid::text, medoid_ids, label_source",
    "lineage": "cluster_id, shard_no, n_chunks, n_noise",
}


@dataclass
class Contents:
    """Everything that a world holds."""

    hashes: dict[str, str] = field(default_factory=dict)  # object key or table -> of its content
    ids: dict[str, list[str]] = field(default_factory=dict)  # "notes/chunks" or table -> chunk ids
    corrupt: list[str] = field(default_factory=list)  # objects that are not what was stored
    planned: dict[str, list[str]] = field(default_factory=dict)  # dataset -> shards
    present: set[str] = field(default_factory=set)  # "notes/chunks/000001", tables too
    left_out: dict[str, list[str]] = field(default_factory=dict)  # dataset -> by its manifest
    failures: dict[str, list[str]] = field(default_factory=dict)  # "manual/chunks/000002" -> kinds
    n_parts: int = 0  # objects that should have been removed


class Verdict(NamedTuple):
    """What was found."""

    lost_chunks: int
    duplicate_chunks: int
    unhealed_shards: int
    is_hash_equal: bool
    problems: Sequence[str]


def read(bucket: Bucket, dsn: str, datasets: Iterable[str]) -> Contents:
    """Reads and verifies everything.

    Args:
        bucket: past the proxy.
        dsn: of the database.
        datasets: names.
    """
    found = Contents()
    for key in bucket.etags():
        if key.startswith("_parts/"):
            found.n_parts += 1
            continue
        content, metadata = bucket.read(key)
        if hashlib.sha256(content).hexdigest() != metadata.get("sha256"):
            found.corrupt.append(key)
            continue
        if key.startswith("_failures/"):
            record = json.loads(content)
            name = "/".join(filter(None, (record["asset"], record["shard"])))
            found.failures[name] = [attempt["kind"] for attempt in record["attempts"]]
        elif "/history/" not in key and not key.startswith("_"):
            found.hashes[key] = _content_hash(key, content, metadata)
            _note(found, key, content)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table, columns in _TABLES.items():
            _read_table(found, connection, table, columns)
        for table, columns in _POOL_TABLES.items():
            rows = connection.execute(
                f"select name, {columns} from acidburn.{table} join acidburn.pools using (pool_id)"
                " order by 1, 2, 3"
            ).fetchall()
            found.hashes[f"acidburn.{table}"] = _hash_of_rows(rows)
    for dataset in datasets:
        found.planned.setdefault(dataset, [])
    return found


def judge(
    disturbed: Contents, undisturbed: Contents, *, poisoned: tuple[str, str] | None
) -> Verdict:
    """Compares two worlds.

    Args:
        disturbed: after all faults.
        undisturbed: made from the same corpora.
        poisoned: dataset and shard that cannot be made.
    """
    problems: list[str] = []
    lost = duplicate = 0
    for name in sorted({*disturbed.ids, *undisturbed.ids}):
        there, wanted = (Counter(world.ids.get(name, ())) for world in (disturbed, undisturbed))
        n_lost = sum((wanted - there).values())
        n_extra = sum((there - wanted).values())
        n_twice = sum(count - 1 for count in there.values())
        lost += n_lost
        duplicate += n_twice
        if n_lost or n_extra or n_twice:
            problems.append(
                f"{name}: {n_lost} chunks missing, {n_extra} too many, {n_twice} of them twice"
            )
    missing = _missing(disturbed, poisoned)
    problems += [f"{name} is not there" for name in missing]
    problems += [f"{key} is not what was stored" for key in disturbed.corrupt]
    if _missing(undisturbed, poisoned):
        problems.append("the undisturbed run is not complete itself")
    unequal = sorted(
        key
        for key in {*disturbed.hashes, *undisturbed.hashes}
        if disturbed.hashes.get(key) != undisturbed.hashes.get(key)
    )
    problems += [f"{key} differs from the undisturbed run's" for key in unequal]
    problems += _poison_problems(disturbed, poisoned)
    return Verdict(lost, duplicate, len(missing), not unequal, problems)


def _missing(world: Contents, poisoned: tuple[str, str] | None) -> list[str]:
    wanted = {
        f"{dataset}/{asset}/{shard}"
        for dataset, shards in world.planned.items()
        for asset in SHARDED
        for shard in shards
        if (dataset, shard) != poisoned
    }
    unplanned = [dataset for dataset, shards in world.planned.items() if not shards]
    corrupt = {key.removesuffix(".parquet") for key in world.corrupt}
    return sorted({*(wanted - world.present), *(wanted & corrupt), *unplanned})


def _poison_problems(world: Contents, poisoned: tuple[str, str] | None) -> list[str]:
    problems = []
    expected = {"/".join((poisoned[0], "chunks", poisoned[1]))} if poisoned else set()
    for name in sorted({*world.failures, *expected}):
        kinds = world.failures.get(name, [])
        if name not in expected:
            problems.append(f"{name} is said to have failed ({', '.join(kinds)})")
        elif kinds.count("refused") != 3:
            problems.append(f"{name} was to be quarantined after 3 refusals, and has {kinds}")
    for dataset, shards in sorted(world.left_out.items()):
        allowed = [poisoned[1]] if poisoned and poisoned[0] == dataset else []
        if shards != allowed:
            problems.append(f"{dataset}/manifest leaves out {shards}, not {allowed}")
    return problems


def _note(found: Contents, key: str, content: bytes) -> None:
    """What single objects tell: which shards there are, and which chunks."""
    owner, _, rest = key.partition("/")
    if rest == "plan.json":
        found.planned[owner] = [shard["key"] for shard in json.loads(content)["shards"]]
    elif rest == "manifest.json":
        left_out = json.loads(content)["left_out"]
        found.left_out[owner] = [entry["shard"] for entry in left_out]
    asset, _, shard = rest.partition("/")
    if asset in IN_BUCKET:
        found.present.add(f"{owner}/{asset}/{shard.removesuffix('.parquet')}")
        table = pq.read_table(pa.BufferReader(content), columns=["chunk_id"])
        ids = (value.as_py().hex() for value in table["chunk_id"])
        found.ids.setdefault(f"{owner}/{asset}", []).extend(ids)


def _read_table(found: Contents, connection: Any, table: str, columns: str) -> None:
    rows = connection.execute(
        f"select dataset, shard, chunk_id, {columns} from acidburn.{table}"
        " join acidburn.shards using (shard_id) order by 1, 2, 3"
    ).fetchall()
    found.hashes[f"acidburn.{table}"] = _hash_of_rows(rows)
    found.ids[f"acidburn.{table}"] = [f"{row[0]} {row[2]}" for row in rows]
    if table in SHARDED:
        found.present |= {f"{row[0]}/{table}/{row[1]}" for row in rows}


def _hash_of_rows(rows: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()


def _content_hash(key: str, content: bytes, metadata: Mapping[str, str]) -> str:
    """Of what an object says, without who said it and when."""
    name = key.rpartition("/")[2]
    if name == "retrieval_report.json":
        report = json.loads(content)
        for line in report["lines"]:
            line.pop("seconds_p50")  # a measurement, not a content
        return hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()
    if name == "lineage.parquet":  # the runs that counted are in its schema's metadata
        table = pq.read_table(pa.BufferReader(content)).replace_schema_metadata()
        return _hash_of_rows(table.to_pylist())
    # records say which of their fields are content; manifests name runs
    facts = json.loads(metadata.get("acidburn", "{}"))
    return str(facts.get("content-version", metadata.get("sha256", "")))

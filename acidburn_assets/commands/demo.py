"""`acidburn demo`: the whole graph on the documentation that every Python carries.

Makes what is not there yet, shows what was made, asks a question, and says where to look. The
last line on stdout is one JSON object for programs.
"""

import json
import sys
import time
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import click
import dagster as dg
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from acidburn_assets import settings
from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.commands import ask as asking
from acidburn_assets.commands import trails
from acidburn_assets.commands.auditor import Auditor
from acidburn_assets.commands.instance import open_instance
from acidburn_assets.commands.materialize import materialize
from acidburn_assets.commands.presentation import format_bytes, format_seconds
from acidburn_assets.core import keys
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.datasets import Registry
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.objects import load_record
from acidburn_assets.runtime import backends, engines
from acidburn_assets.settings import Settings

QUESTION = "What is the difference between a shallow copy and a deep copy?"

POOL = "knowledge"

SHARDED = (
    *("chunks", "embeddings", "term_weights", "assignments"),
    *("chunk_embeddings", "chunk_clusters"),
)


@click.command()
@click.option("--question", default=QUESTION, show_default=True)
def command(question: str) -> None:
    """Run the whole graph on this machine's Python documentation, then ask a question."""
    started = time.perf_counter()
    configured = settings.load()
    check_registry(configured.registry)
    console = Console(stderr=True, highlight=False)
    outcome = materialize("all")
    if outcome.failures:
        raise click.ClickException(f"{len(outcome.failures)} assets failed, see above")
    store = backends.open_store(configured)
    with open_instance(configured) as instance:
        made = _table_of_assets(instance, configured)
        figures = _figures(instance, configured)
        answer = engines.open_engine(configured, POOL).ask(question, n_passages=3)
        trail = Auditor(configured, instance).passage(answer.passages[0].chunk_id)
    cluster_map: ClusterMap = load_record(store, dg.AssetKey([POOL, "cluster_map"]))
    map_path = _write_map(configured, store)
    console.print(made)
    console.print(_table_of_clusters(cluster_map))
    console.rule(question)
    asking.show(answer, console)
    console.print(f"the first passage: {trail.doc_id}, row {trail.doc_row:,} of {trail.dataset}")
    trails.show_made(trail.made, console)
    console.rule()
    command_name = "acidburn" if sys.argv[0].endswith("acidburn") else "python -m acidburn_assets"
    console.print(
        f"map       {map_path}   (open it in a browser)\n"
        f"graph     make ui   ({command_name} ui)\n"
        f'ask       {command_name} ask "your question"\n'
        f"lineage   {command_name} audit passage {answer.passages[0].chunk_id}",
        markup=False,
        soft_wrap=True,
    )
    click.echo(
        json.dumps(
            {
                **figures,
                "materialized": outcome.n_made,
                "seconds": round(time.perf_counter() - started, 1),
                "question": question,
                "passages": [
                    {
                        "chunk_id": passage.chunk_id,
                        "document": passage.doc_id,
                        "cluster": passage.cluster_id,
                        "score": round(passage.score, 4),
                    }
                    for passage in answer.passages
                ],
                "map": str(map_path),
            }
        )
    )


def check_registry(registry: Registry) -> None:
    """The demo makes all of a registry, so it must be a demo's: other people's corpora cost.

    Raises:
        ConfigError: it holds something else than Python documentation, or not the demo's pool.
    """
    others = [one.name for one in registry.datasets.values() if one.source != "python_docs"]
    if others or POOL not in registry.pools:
        raise ConfigError(
            f"the demo makes only Python documentation in a pool {POOL!r}, and the registry has "
            f"{others or sorted(registry.pools)}: unset ACIDBURN_DATASETS, or run acidburn "
            "materialize on what you want"
        )


def _shard_events(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[dict[str, object]]:
    return [
        versions.figures_of(versions.require_materialization(instance, key, shard))
        for shard in sorted(versions.latest_shards(instance, key))
    ]


def _table_of_assets(instance: dg.DagsterInstance, configured: Settings) -> Table:
    table = Table(
        "made", "shards", "rows", "bytes", "time", "rows/s", box=SIMPLE_HEAD, pad_edge=False
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for dataset in configured.registry.datasets:
        for asset in SHARDED:
            events = _shard_events(instance, dg.AssetKey([dataset, asset]))
            if not events:
                continue
            rows = sum(int(str(event["rows"])) for event in events)
            seconds = sum(float(str(event.get("seconds", 0))) for event in events)
            size = sum(int(str(event.get("bytes", 0))) for event in events)
            table.add_row(
                f"{dataset}/{asset}",
                f"{len(events)}",
                f"{rows:,}",
                format_bytes(size) if size else "",
                format_seconds(seconds),
                f"{rows / seconds:,.0f}" if seconds else "",
            )
    return table


def _table_of_clusters(cluster_map: ClusterMap) -> Table:
    table = Table(
        "cluster", "chunks", f"label, ten largest of {POOL}", box=SIMPLE_HEAD, pad_edge=False
    )
    largest = sorted(cluster_map.cards, key=lambda card: (-card.size, card.cluster_id))[:10]
    for card in largest:
        table.add_row(str(card.cluster_id), f"{card.size:,}", card.title)
    return table


def _figures(instance: dg.DagsterInstance, configured: Settings) -> dict[str, object]:
    documents = chunks = shards = 0
    for dataset in configured.registry.datasets:
        events = _shard_events(instance, dg.AssetKey([dataset, "chunks"]))
        documents += sum(int(str(event["documents_kept"])) for event in events)
        chunks += sum(int(str(event["rows"])) for event in events)
        shards += len(events)
    centroids = versions.figures_of(
        versions.require_materialization(instance, dg.AssetKey([POOL, "centroids"]), None)
    )
    return {
        "documents": documents,
        "chunks": chunks,
        "shards": shards,
        "clusters": centroids["clusters"],
        "noise_share": centroids["noise_share"],
    }


def _write_map(configured: Settings, store: ObjectStore) -> Path:
    key = keys.object_key(POOL, "map", suffix=".html")
    uri = store.uri(key)
    if uri.startswith("file://"):
        return Path(url2pathname(urlparse(uri).path))
    path = configured.home / f"{POOL}-map.html"
    path.write_bytes(store.get_bytes(key))
    return path

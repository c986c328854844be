"""What is no asset: the scrub that reads everything, and the release of quarantined partitions.

Both are started in the UI too; the scrub starts itself once a month.
"""

from collections.abc import Callable

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from pydantic import Field

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.core import cost
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.io_managers import scrub as scrubbing
from acidburn_assets.io_managers.base import Managers
from acidburn_assets.io_managers.failures import release as release_partition


class ScrubConfig(dg.Config):
    """How much a scrub may read."""

    limit_gb: float = Field(
        1_000, gt=0, description="Most that is read; of a larger bucket a random share."
    )


class ReleaseConfig(dg.Config):
    """What is to be tried again."""

    asset: str = Field(description="OWNER/ASSET, such as gutenberg/embeddings.")
    shard: str = Field("", description="Such as 000012; empty for an asset without shards.")


def build(
    open_managers: Callable[[], Managers],
    open_store: Callable[[], ObjectStore],
    resolve_graph: Callable[[], AssetGraph],
) -> list[dg.JobDefinition]:
    """The jobs.

    Args:
        open_managers: opens the I/O managers of the graph.
        open_store: opens the bucket.
        resolve_graph: the graph; not before a job asks, for it takes a moment.
    """

    @dg.op(description="Reads what was reported and discards what has rotted.")
    def read_everything(context: dg.OpExecutionContext, config: ScrubConfig) -> None:
        graph = resolve_graph()
        managers = open_managers()
        keys = graph.materializable_asset_keys
        every, unreadable = scrubbing.places(context.instance, graph, keys, managers)
        chosen = scrubbing.choose(
            every, limit_bytes=int(config.limit_gb * 1e9), seed=context.run_id
        )
        n_bytes = sum(place.n_bytes for place in chosen)
        context.log.info(
            f"reading {len(chosen)} of {len(every)} partitions, {n_bytes / 1e9:.3f} GB: at most "
            f"${cost.egress_usd(n_bytes):.2f} of egress, less what the bucket's plan has free"
        )
        damaged = []
        for place, verdict, error in scrubbing.scrub(chosen, graph, managers):
            if verdict == "damaged":
                damaged.append(place.name())
                context.log.warning(f"{place.name()} is damaged: discarded, to be made again")
            elif verdict == "unreadable":
                unreadable[place.name()] = error
                context.log.error(f"{place.name()} cannot be read: {error}")
        n_swept = scrubbing.sweep_parts(open_store())
        context.add_output_metadata(
            {
                "abandoned_parts": n_swept,
                "read": len(chosen),
                "of": len(every),
                "bytes": n_bytes,
                "cost_usd": cost.egress_usd(n_bytes),
                "damaged": dg.MetadataValue.json(damaged),
                "unreadable": dg.MetadataValue.json(unreadable),
            }
        )
        if unreadable:
            first, reason = next(iter(unreadable.items()))
            raise dg.Failure(f"{len(unreadable)} cannot be read, first {first}: {reason}")

    @dg.op(description="Has the automation try a partition again, with a whole budget.")
    def release_one(context: dg.OpExecutionContext, config: ReleaseConfig) -> None:
        graph = resolve_graph()
        key = dg.AssetKey(config.asset.split("/"))
        if not graph.has(key):
            raise ConfigError(f"there is no asset {config.asset!r}: say OWNER/ASSET")
        log = open_managers().of(graph, key).failures
        if not release_partition(context.instance, log, key, config.shard or None):
            raise ConfigError(
                f"nothing of {config.asset!r}, shard {config.shard!r}, has failed: look at its "
                "check no_shard_is_quarantined"
            )
        context.log.info("it is requested again at the next look")

    @dg.job(name="scrub", description="Reads everything that was reported, every byte of it.")
    def scrub() -> None:
        read_everything()

    @dg.job(name="release", description="Releases a quarantined partition.")
    def release() -> None:
        release_one()

    return [scrub, release]


def schedules() -> list[dg.ScheduleDefinition]:
    """Once a month: a bucket's plan usually lets three times what it holds be read for nothing.

    Source: backblaze.com/cloud-storage/pricing.
    """
    return [
        dg.ScheduleDefinition(
            name="monthly_scrub",
            job_name="scrub",
            cron_schedule="0 3 1 * *",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
    ]

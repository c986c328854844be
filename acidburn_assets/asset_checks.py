"""What must hold between assets, checked whenever they are made and shown in the UI.

A check that fails never hides data: it marks the asset, and says what to do.
"""

import dagster as dg
import pyarrow.compute as pc

from acidburn_assets.adapters import postgres as database
from acidburn_assets.assets import specs
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.datasets import Pool
from acidburn_assets.io_managers.failures import QUARANTINE_CHECK, FailureLog, quarantine_check
from acidburn_assets.io_managers.objects import Tables, load_record, record_figures
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.resources import PostgresResource, StoreResource

_SHOWN_OF_DRIFT = (
    *("generation", "new_chunks", "growth", "weak_excess", "novel_mass", "distance_shift"),
)


def build(pool: Pool) -> list[dg.AssetChecksDefinition]:
    """The checks of one pool."""
    lineage_key = specs.key(pool.name, "lineage")
    map_key = specs.key(pool.name, "cluster_map")
    model_key = specs.key(pool.name, "cluster_model")
    report_key = specs.key(pool.name, "retrieval_report")

    @dg.asset_check(
        asset=lineage_key,
        name="every_chunk_has_a_cluster",
        description="Members and noise of all clusters add up to the chunks of the manifests.",
    )
    def every_chunk_has_a_cluster(store: StoreResource) -> dg.AssetCheckResult:
        objects = store.create()
        tables = PoolTables(objects, pool)
        sealed = sum(manifest.n_chunks for manifest in tables.manifests().values())
        counts = Tables(objects, lineage_key).read(None, ["n_chunks", "n_noise"])
        placed = sum(pc.sum(counts[name]).as_py() or 0 for name in ("n_chunks", "n_noise"))
        return dg.AssetCheckResult(
            passed=placed == sealed, metadata={"sealed": sealed, "placed": placed}
        )

    @dg.asset_check(
        asset=model_key,
        name="clusters_fit_the_corpus",
        description=(
            "What came since the clusters were found lies in them. Where it does not, find them "
            "anew, which keeps their ids: `acidburn materialize POOL/cluster_model --force`, then "
            "`acidburn materialize POOL`."
        ),
    )
    def clusters_fit_the_corpus(store: StoreResource) -> dg.AssetCheckResult:
        figures = record_figures(store.create(), model_key)
        return dg.AssetCheckResult(
            passed=not figures["refit_proposed"],
            severity=dg.AssetCheckSeverity.WARN,
            metadata={name: figures[name] for name in _SHOWN_OF_DRIFT if name in figures},
        )

    @dg.asset_check(
        asset=map_key,
        name="titles_find_their_clusters",
        description="Encoded as a question, at least half of the titles lead to their own cluster.",
    )
    def titles_find_their_clusters(store: StoreResource) -> dg.AssetCheckResult:
        made: ClusterMap = load_record(store.create(), map_key)
        lost = [
            card.title
            for card in made.cards
            if card.faithfulness is None or card.faithfulness.title_rank > 1
        ]
        return dg.AssetCheckResult(
            passed=len(lost) * 2 <= len(made.cards),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"clusters": len(made.cards), "titles_that_lead_elsewhere": lost},
        )

    @dg.asset_check(
        asset=report_key,
        name="every_chunk_is_served",
        description="Postgres holds as many vectors of the pool as the manifests sealed.",
    )
    def every_chunk_is_served(
        store: StoreResource, postgres: PostgresResource
    ) -> dg.AssetCheckResult:
        manifests = PoolTables(store.create(), pool).manifests()
        sealed = sum(manifest.n_chunks for manifest in manifests.values())
        served = database.count_vectors(postgres.create(), pool.name)
        return dg.AssetCheckResult(
            passed=served == sealed, metadata={"sealed": sealed, "served": served}
        )

    return [
        every_chunk_has_a_cluster,
        clusters_fit_the_corpus,
        titles_find_their_clusters,
        every_chunk_is_served,
    ]


def build_quarantine(key: dg.AssetKey) -> dg.AssetChecksDefinition:
    """Shows what of an asset is left to a person, each shard with its reason.

    Args:
        key: of the asset.
    """

    @dg.asset_check(
        asset=key,
        name=QUARANTINE_CHECK,
        description=(
            "Nothing was refused so often that it is left alone. Release it with the job "
            "`release` or with `acidburn release`."
        ),
    )
    def no_shard_is_quarantined(store: StoreResource) -> dg.AssetCheckResult:
        found = quarantine_check(key, FailureLog(store.create()).all_of(key).values())
        return dg.AssetCheckResult(passed=found.passed, metadata=found.metadata)

    return no_shard_is_quarantined

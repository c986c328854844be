"""`P/cluster_map`: what every cluster is called, and how well the name fits.

Keyless labels first; where there is a key, a language model replaces them one by one within its
budget. What it did not reach keeps its keyless label, and so does what it named worse: titles of
both are held against centroids and members. A cluster that hardly changed since the map before
keeps the label that it had there.
"""

from collections.abc import Mapping, Sequence

import dagster as dg
import numpy as np
import pyarrow as pa

from acidburn_assets.adapters.labeler import Labeler, LabelRequest, LabelRun, basis_of
from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.assets import specs
from acidburn_assets.core import cluster_map as mapping
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core import hierarchy
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.cluster_model import ClusterModel
from acidburn_assets.core.datasets import Dataset, Pool
from acidburn_assets.core.embeddings import Encoder
from acidburn_assets.core.errors import SchemaError
from acidburn_assets.core.labels import (
    KEYLESS_VERSION,
    Heuristic,
    describe,
    describe_groups,
    members_wanted,
)
from acidburn_assets.io_managers import history
from acidburn_assets.io_managers.base import Made, Work, is_forced, work
from acidburn_assets.io_managers.generations import Generations
from acidburn_assets.io_managers.objects import Tables
from acidburn_assets.io_managers.pools import ClusterTexts, PoolTables
from acidburn_assets.resources import EncoderResource, LabelerResource, StoreResource
from acidburn_assets.runtime import backends
from acidburn_assets.settings import Settings

N_HELD_OUT = 10
"""Members of each cluster that no label is made from; titles are scored on them. Chosen."""


def build(pool: Pool, datasets: Sequence[Dataset], settings: Settings) -> dg.AssetsDefinition:
    """The node of one pool."""
    model_key = specs.key(pool.name, "cluster_model")
    map_key = specs.key(pool.name, "cluster_map")
    has_key = bool(settings.xai_api_key.get_secret_value())
    # keyless labels do not change with the model that would have been asked; with one, a higher
    # budget goes on where a lower one ended, and what was answered is in the cache
    asked = [settings.acidburn_label_model, settings.acidburn_label_budget_usd] if has_key else []
    basis = basis_of(settings.acidburn_label_model) if has_key else KEYLESS_VERSION

    @dg.asset(
        key=map_key,
        ins={
            "cluster_model": dg.AssetIn(model_key),
            "centroids": dg.AssetIn(specs.key(pool.name, "centroids")),
        },
        io_manager_key="records",
        code_version=specs.version(
            "cluster_map-4", basis, asked, [specs.terms(one) for one in datasets]
        ),
        group_name=pool.name,
        kinds={"json"},
        pool="labels",
        description="Title, keywords and summary of every cluster, and how well each fits.",
    )
    def cluster_map(
        context: dg.AssetExecutionContext,
        cluster_model: ClusterModel,
        centroids: Tables,
        store: StoreResource,
        encoder: EncoderResource,
        labeler: LabelerResource,
    ) -> dg.Output[Work]:
        objects = store.create()
        tables = PoolTables(objects, pool)
        generations = Generations(objects, pool.name)

        def make(_: str | None) -> Made:
            stored = centroids.info(None)
            table = centroids.read(None)
            vectors = embedding.matrix(table["centroid"])  # (k, dim) float32
            texts = tables.cluster_texts(
                tables.manifests(),
                table,
                n_members=members_wanted(len(table)),
                n_held_out=N_HELD_OUT,
            )
            ids = table["cluster_id"].to_pylist()
            heuristics = describe(texts.samples(), mapping.nearest_clusters(vectors, ids=ids))
            facts = _facts(cluster_model, table, texts)
            reader = encoder.create()
            carried = {}
            if not is_forced(context.run):
                previous = _map_before(context.instance, objects, map_key)
                if previous is not None:
                    since = generations.steady_since(cluster_model, previous.cluster_model_sha256)
                    carried = mapping.still_labelled(previous, facts, steady=since, basis=basis)
                    carried = _still_found(carried, ids, reader, vectors)
            grok = labeler.create(objects, pool.name)
            changed = [cluster for cluster in ids if cluster not in carried]
            run = _ask(grok, changed, heuristics, texts, tables, vectors) if grok else None
            if run is not None:
                context.log.info(
                    f"{len(run.labels)} labels by {settings.acidburn_label_model} for "
                    f"${run.usd:.4f}, {run.n_cached} of them cached, {run.n_failed} failed, "
                    f"{run.status} {run.stop_reason}"
                )
            rows = {cluster: row for row, cluster in enumerate(ids)}
            held_out = {rows[one]: held for one, held in tables.vectors_of(texts.held_out).items()}
            labels = run.labels if run else {}
            worse = _worse(labels, heuristics, reader, vectors, held_out) if labels else {}
            made = mapping.build_cluster_map(
                pool=pool.name,
                datasets=[specs.dataset_terms(dataset) for dataset in datasets],
                model=cluster_model.meta.model,
                cluster_model_sha256=cluster_model.content_version(),
                generation=cluster_model.meta.generation,
                centroids_key=stored.key,
                centroids_sha256=stored.sha256,
                facts=facts,
                heuristics=heuristics,
                groups=_groups(cluster_model, vectors, texts),
                carried=carried,
                labels={one: label for one, label in labels.items() if one not in worse},
                basis=basis,
                failures={**run.failures, **worse} if run else None,
                usd=run.usd if run else 0.0,
                status=run.status if run else "complete",
            )
            titles = reader.encode([card.title for card in made.cards], "query").vectors
            scores = mapping.score_titles(titles, vectors, held_out)
            made = made.with_faithfulness(scores)
            kept = dg.MetadataValue.text(history.kept_keys(objects, map_key))
            figures = {**_figures(made), "labels_carried_over": len(carried), "history": kept}
            return Made(made, figures)

        def put_to_use() -> None:
            history.keep(objects, map_key)
            if has_key:
                # until here an attempt that failed or was killed counts against the budget
                backends.label_journal(objects, pool.name).clear()

        return work(make, read={model_key: cluster_model}, before_event=put_to_use)

    return cluster_map


def _map_before(
    instance: dg.DagsterInstance, objects: ObjectStore, key: dg.AssetKey
) -> ClusterMap | None:
    """The map that is stored, or where that is lost the one that was reported last; None where
    there is none, or none that this version of Acidburn made."""
    try:
        content = history.last_content(instance, objects, key)
        return None if content is None else ClusterMap.from_bytes(content, key=key.to_user_string())
    except SchemaError:
        return None


def _still_found(
    cards: Mapping[int, mapping.Card], ids: Sequence[int], encoder: Encoder, centroids: np.ndarray
) -> dict[int, mapping.Card]:
    """Without those whose titles lead to other clusters by now."""
    if not cards:
        return {}
    titles = encoder.encode([card.title for card in cards.values()], "query").vectors
    by_row = {row: cards[one] for row, one in enumerate(ids) if one in cards}
    lost = mapping.led_astray(by_row, titles, centroids)
    return {card.cluster_id: card for row, card in by_row.items() if row not in lost}


def _facts(
    model: ClusterModel, centroids: pa.Table, texts: ClusterTexts
) -> list[mapping.ClusterFacts]:
    table = centroids.select(["cluster_id", "n_chunks", "n_noise"])
    return [
        mapping.ClusterFacts(
            cluster_id=row["cluster_id"],
            parent=int(model.parents[at]) if model.meta.n_groups else None,
            size=row["n_chunks"],
            n_noise=row["n_noise"],
            medoids=texts.quoted_medoids(row["cluster_id"]),
            stability=_share_or_none(model.persistence[at]),
        )
        for at, row in enumerate(table.to_pylist())
    ]


def _share_or_none(persistence: np.floating) -> float | None:
    return float(np.clip(persistence, 0, 1)) if np.isfinite(persistence) else None


def _groups(model: ClusterModel, vectors: np.ndarray, texts: ClusterTexts) -> list[mapping.Group]:
    levels = hierarchy.Levels(model.parents, model.group_parents)
    rows = hierarchy.clusters_below(levels)
    clusters = {group: model.cluster_ids[below].tolist() for group, below in rows.items()}
    neighbours: dict[int, tuple[int, ...]] = {}
    for groups in hierarchy.groups_by_level(levels):
        centres = np.stack([vectors[rows[group]].mean(axis=0) for group in groups])
        neighbours |= mapping.nearest_clusters(centres, ids=groups)
    # all levels at once, so that no group has the title of one that it lies in
    labels = describe_groups(texts.samples(), clusters, neighbours)
    return [
        mapping.Group(
            group_id=group,
            parent=int(above) if above >= 0 else None,
            title=labels[group].title,
            keywords=labels[group].keywords,
            clusters=tuple(clusters[group]),
        )
        for group, above in enumerate(model.group_parents)
    ]


def _ask(
    labeler: Labeler,
    clusters: Sequence[int],
    heuristics: Mapping[int, Heuristic],
    texts: ClusterTexts,
    tables: PoolTables,
    centroids: np.ndarray,
) -> LabelRun:
    """Asks for the largest clusters first: where the budget ends, the most passages are named."""
    rows = {cluster: row for row, cluster in enumerate(heuristics)}
    neighbours = mapping.nearest_clusters(centroids, ids=list(heuristics))
    vectors = tables.vectors_of({one: texts.members.get(one, ()) for one in clusters})
    requests = []
    for cluster in sorted(vectors, key=lambda one: (-len(texts.members[one]), one)):
        picked = mapping.pick_exemplars(vectors[cluster], centroids[rows[cluster]])
        members = texts.of(cluster).members
        requests.append(
            LabelRequest(
                cluster_id=cluster,
                keywords=heuristics[cluster].keywords,
                central=[members[row].text for row in picked.central],
                diverse=[members[row].text for row in picked.diverse],
                edge=[members[row].text for row in picked.edge],
                neighbours=[heuristics[other].title for other in neighbours[cluster]],
            )
        )
    return labeler.label(requests)


def _worse(
    labels: Mapping[int, mapping.Label],
    heuristics: Mapping[int, Heuristic],
    encoder: Encoder,
    centroids: np.ndarray,
    held_out: Mapping[int, np.ndarray],
) -> dict[int, str]:
    """Why the keyless title is kept, of the clusters that a model named worse."""
    asked = sorted(labels)
    rows = {cluster: row for row, cluster in enumerate(heuristics)}
    model = encoder.encode([labels[one].title for one in asked], "query").vectors
    keyless = encoder.encode([one.title for one in heuristics.values()], "query").vectors
    by_row = {rows[one]: vector for one, vector in zip(asked, model, strict=True)}
    worse = mapping.worse_titles(by_row, keyless, centroids, held_out)
    return {one: worse[rows[one]] for one in asked if rows[one] in worse}


def _figures(made: ClusterMap) -> dict[str, object]:
    scored = [card.faithfulness for card in made.cards if card.faithfulness is not None]
    shares = [score.member_share for score in scored if score.member_share is not None]
    largest = sorted(made.cards, key=lambda card: (-card.size, card.cluster_id))[:50]
    return {
        "clusters": len(made.cards),
        "labels_by_llm": made.n_llm,
        "labels_keyless": made.n_heuristic,
        "labels_failed": made.n_failed,
        "status": made.status,
        "titles_that_find_their_cluster": (
            round(float(np.mean([score.title_rank == 1 for score in scored])), 4) if scored else 0.0
        ),
        "members_nearest_to_their_title": round(float(np.mean(shares)), 4) if shares else 0.0,
        "largest": specs.table(
            [
                {
                    "cluster": card.cluster_id,
                    "chunks": card.size,
                    "title": card.title,
                    "keywords": ", ".join(card.keywords[:6]),
                }
                for card in largest
            ]
        ),
        "cost_usd": made.usd,
    }

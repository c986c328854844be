"""Clusters labelled question titles by every engine of the pools' settings.

20 tags are what people said the titles are about. AMI is agreement with them beyond chance (Vinh,
Epps, Bailey 2010), noise counted as a cluster of its own.
"""

from functools import partial

import click
import numpy as np

from acidburn_assets.adapters import clusterer
from acidburn_assets.adapters.encoder import load_encoder
from acidburn_assets.core.cluster_model import Fit
from acidburn_assets.core.datasets import PoolSettings
from benchmarks import evaluation, report, timing

COLLECTION = "stackoverflow20"


@click.command()
@click.option("--rows", "n_rows", default=6_000, show_default=True, type=click.IntRange(100))
@click.option("--min-cluster-size", default=100, show_default=True, type=click.IntRange(2))
@click.option("--min-samples", default=20, show_default=True, type=click.IntRange(1))
@click.option("--rounds", "n_rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(
    n_rows: int, min_cluster_size: int, min_samples: int, n_rounds: int, is_json: bool
) -> None:
    """Compare engines on labelled titles: clusters, noise, agreement, CPU time."""
    titles = evaluation.sample(COLLECTION, n_rows)
    tags = titles["label"].to_pylist()
    vectors = load_encoder("minilm").encode(titles["text"].to_pylist(), "document").vectors
    vectors = vectors.astype(np.float16).astype(np.float32)  # as they are stored
    clusterer.warm()
    sizes = {"min_cluster_size": min_cluster_size, "min_samples": min_samples}
    settings = {
        "graph_hdbscan": PoolSettings(engine="graph_hdbscan", **sizes),
        "hdbscan": PoolSettings(engine="hdbscan", **sizes),
        # told how many there are, which the others find out
        "kmeans": PoolSettings(engine="kmeans", n_clusters=len(set(tags)), **sizes),
    }
    fits = {name: clusterer.fit(vectors, each) for name, each in settings.items()}
    laps = timing.time_rounds(
        {name: partial(clusterer.fit, vectors, each) for name, each in settings.items()},
        n_rounds=n_rounds,
        is_warmed=True,
    )
    rows = [
        {
            "engine": name,
            **judge(fit, tags),
            "CPU s": timing.spread([lap.cpu for lap in laps[name]]),
            "speed to graph_hdbscan": timing.ratio(laps[name], laps["graph_hdbscan"], clock="cpu"),
        }
        for name, fit in fits.items()
    ]
    facts = {
        "collection": COLLECTION,
        "rows": len(tags),
        "tags": len(set(tags)),
        **sizes,
        "rounds": n_rounds,
    }
    report.show("cluster", rows, facts=facts, is_json=is_json)


def judge(fit: Fit, tags: list[str]) -> dict[str, float]:
    """Clusters, noise and agreement of a fit with what people said."""
    from sklearn.metrics import adjusted_mutual_info_score

    is_member = fit.labels >= 0
    return {
        "clusters": int(fit.labels.max()) + 1,
        "noise": float(np.mean(~is_member)),
        "AMI": float(adjusted_mutual_info_score(tags, fit.labels)),
        "AMI without noise": float(
            adjusted_mutual_info_score(np.array(tags)[is_member], fit.labels[is_member])
        ),
    }


if __name__ == "__main__":
    command()

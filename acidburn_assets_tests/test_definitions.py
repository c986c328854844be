"""The graph as a whole: it loads with nothing set, and its shape is written down."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from acidburn_assets.assets import specs
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.definitions import build_defs

REGISTRY = """
datasets:
  - {name: alpha, source: text, path: a, licence: MIT, may_redistribute_text: true, pool: p}
  - {name: beta, source: text, path: b, licence: MIT, may_redistribute_text: true, pool: p}
  - {name: loose, source: text, path: c, licence: MIT, may_redistribute_text: true, tier: none}
pools:
  p: {min_cluster_size: 5}
"""

GRAPH = """
alpha/assignments <- alpha/embeddings, p/cluster_model
alpha/chunk_clusters <- alpha/assignments
alpha/chunk_embeddings <- alpha/assignments, alpha/chunks, alpha/embeddings, alpha/term_weights
alpha/chunks <- alpha/plan, encoder/model
alpha/embeddings <- alpha/chunks, encoder/model
alpha/manifest <- alpha/embeddings, alpha/plan
alpha/plan <- alpha/source, encoder/model
alpha/source <-
alpha/term_weights <- alpha/chunks
beta/assignments <- beta/embeddings, p/cluster_model
beta/chunk_clusters <- beta/assignments
beta/chunk_embeddings <- beta/assignments, beta/chunks, beta/embeddings, beta/term_weights
beta/chunks <- beta/plan, encoder/model
beta/embeddings <- beta/chunks, encoder/model
beta/manifest <- beta/embeddings, beta/plan
beta/plan <- beta/source, encoder/model
beta/source <-
beta/term_weights <- beta/chunks
encoder/model <-
loose/chunks <- encoder/model, loose/plan
loose/embeddings <- encoder/model, loose/chunks
loose/manifest <- loose/embeddings, loose/plan
loose/plan <- encoder/model, loose/source
loose/source <-
p/cell_terms <- alpha/assignments, alpha/term_weights, beta/assignments, beta/term_weights, p/cluster_model, p/lexicon
p/centroids <- alpha/assignments, beta/assignments, p/cluster_model
p/cluster_headers <- p/centroids, p/cluster_map
p/cluster_map <- p/centroids, p/cluster_model
p/cluster_model <- alpha/manifest, beta/manifest
p/lexicon <- alpha/manifest, alpha/term_weights, beta/manifest, beta/term_weights
p/lineage <- alpha/assignments, beta/assignments
p/lineage_table <- p/lineage
p/projection <- alpha/assignments, beta/assignments, p/cluster_map
p/retrieval_report <- alpha/chunk_clusters, alpha/chunk_embeddings, beta/chunk_clusters, beta/chunk_embeddings, p/cell_terms, p/cluster_headers
"""  # noqa: E501 - a picture of the graph, one node a line


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "datasets.yaml"
    path.write_text(REGISTRY)
    monkeypatch.setenv("ACIDBURN_DATASETS", str(path))
    return path


def test_the_graph_is_as_drawn(registry):
    graph = build_defs().resolve_asset_graph()
    lines = [
        f"{key.to_user_string()} <- "
        + ", ".join(sorted(parent.to_user_string() for parent in graph.get(key).parent_keys))
        for key in sorted(graph.get_all_asset_keys())
    ]
    assert [line.strip() for line in lines] == GRAPH.strip().splitlines()


def test_every_node_says_what_it_is(registry):
    graph = build_defs().resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.group_name == key.path[0]
        assert node.kinds
        assert node.description


def test_assets_of_one_partitioning_never_share_a_run(registry):
    """Dagster puts assets of the same partitions and the same backfill size into one run, and
    with it GPU work and CPU work into one concurrency pool."""
    graph = build_defs().resolve_asset_graph()
    sizes = [
        graph.get(key).backfill_policy.max_partitions_per_run
        for key in graph.get_all_asset_keys()
        if key.path[0] == "alpha" and graph.get(key).is_partitioned
    ]
    assert len(sizes) == len(set(sizes)) == 6


def test_a_changed_model_is_new_code_for_chunks_and_embeddings_only(registry, monkeypatch):
    def versions() -> dict[str, str | None]:
        graph = build_defs().resolve_asset_graph()
        return {
            key.to_user_string(): graph.get(key).code_version for key in graph.get_all_asset_keys()
        }

    before = versions()
    monkeypatch.setenv("ACIDBURN_MODEL", "BAAI/bge-m3")
    after = versions()
    assert {key for key in before if before[key] != after[key]} == {
        f"{name}/{asset}"
        for name in ("alpha", "beta", "loose")
        for asset in ("plan", "chunks", "embeddings")
    }


def test_a_missing_registry_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("ACIDBURN_DATASETS", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"none\.yaml.*ACIDBURN_DATASETS"):
        build_defs()


def test_definitions_hold_no_secret(registry, monkeypatch):
    """Resource configuration is stored with every run and shown by the UI."""
    secret = "s3cret-value-that-must-not-show"
    for name in ("B2_APP_KEY", "SUPABASE_PASSWORD", "XAI_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("SUPABASE_HOST", "db.example.org")
    monkeypatch.setenv("ACIDBURN_POSTGRES", f"postgresql://me:{secret}@db.example.org/corpus")
    definitions = build_defs()
    shown = repr(definitions.resources) + str(
        [
            resource.configurable_resource_cls.__name__
            for resource in (definitions.resources or {}).values()
            if isinstance(resource, dg.ResourceDefinition)
        ]
    )
    configs = [
        resource.model_dump(mode="json") if hasattr(resource, "model_dump") else {}
        for resource in (definitions.resources or {}).values()
    ]
    assert secret not in shown + str(configs)


def test_definitions_load_without_a_models_framework():
    code = (
        "import sys; from acidburn_assets.definitions import build_defs; build_defs();"
        "heavy = {'torch', 'sentence_transformers', 'transformers', 'datasets', 'evoc', 'hdbscan',"
        " 'openai', 'sklearn', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": "/usr/bin"})


def test_versions_depend_on_every_fact():
    assert specs.version("chunks-1", 1) != specs.version("chunks-1", 2)
    assert specs.version("chunks-1", {"a": 1, "b": 2}) == specs.version(
        "chunks-1", {"b": 2, "a": 1}
    )

"""Answers in words: what a person must not overlook is said."""

import io

from rich.console import Console

from acidburn_assets.commands import trails
from acidburn_assets.core.audit import (
    Change,
    ClusterTrail,
    Holding,
    Holdings,
    Moment,
    ShardShare,
    Staleness,
    StalePartition,
)
from acidburn_assets.core.lineage import Source
from acidburn_assets_tests.lineage_samples import source


def words(answer: trails.Answer) -> str:
    out = io.StringIO()
    trails.show(answer, Console(file=out, width=200, highlight=False))
    return out.getvalue()


def cluster(*sources: Source) -> ClusterTrail:
    return ClusterTrail(
        pool="library",
        cluster_id=7,
        title="Bread",
        keywords=("bread", "oven"),
        n_chunks=2_000,
        n_noise=3,
        moment=Moment(
            asked_for="12",
            lineage_event_id=12,
            lineage_sha256="a" * 64,
            map_event_id=None,
            made_at="2026-11-24T12:00:00+00:00",
        ),
        made=(),
        fitted_on={"papers": "m" * 64},
        shards=tuple(ShardShare(n_chunks=1, n_noise=0, source=one) for one in sources),
    )


def test_a_cluster_says_when_it_stood_so_and_what_its_shards_share() -> None:
    told = words(cluster(source(), source("000001")))
    for expected in (
        *("7 of library: Bread", "2,000, and 3 of noise", "2026-11-24 12:00 UTC"),
        *("lineage event 12, asked for 12", "papers r1", "a-model f00d", "papers/000001"),
        *("assignments-1, embeddings-1", "papers mmmmmmmmmmmm"),
    ):
        assert expected in told
    assert "another cluster" not in told


def test_numbers_of_two_cluster_models_are_not_taken_for_one() -> None:
    told = words(cluster(source(), source("000001", cluster_model="model 2")))
    assert "model 1, model 2: a cluster has other members in each" in told


def test_what_is_stale_stands_with_both_versions() -> None:
    told = words(
        Staleness(
            target="papers",
            n_partitions=9,
            stale=(
                StalePartition(
                    asset="papers/chunks",
                    shard="000003",
                    reason="changed",
                    changes=(
                        Change(what="code", recorded="chunks-1-aa", current="chunks-2-aa"),
                        Change(what="papers/plan", recorded=None, current="b" * 64),
                    ),
                    event_id=1,
                    made_at="2026-11-24T12:00:00+00:00",
                ),
            ),
        )
    )
    for expected in (
        *("papers/chunks/000003", "chunks-1-aa", "chunks-2-aa", "papers/plan", "none"),
        *("b" * 12, "1 of 9 asset partitions of papers are not current"),
    ):
        assert expected in told
    assert "b" * 13 not in told


def test_what_is_not_as_recorded_is_told_in_whole_words() -> None:
    told = words(
        Holdings(
            target="papers",
            is_deep=False,
            n_objects=10,
            n_bytes=2_000,
            n_slices=4,
            wrong=(
                Holding(
                    where="papers/chunks/000003.parquet",
                    asset="papers/chunks",
                    shard="000003",
                    problem="missing",
                    recorded="c" * 64,
                    found="nothing",
                ),
            ),
            left_over=(),
            n_own_objects=0,
            n_own_bytes=0,
        )
    )
    for expected in ("papers/chunks/000003.parquet", "missing", "nothing", "2.0 kB", "not read"):
        assert expected in told

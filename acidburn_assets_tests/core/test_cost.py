"""Estimates agree with what was measured, and scale as arithmetic says."""

import pytest

from acidburn_assets.core import cost


def test_flop_per_chunk_of_bge_m3_agrees_with_a_flop_counter() -> None:
    """Figures of torch's FlopCounter on XLM-R large."""
    assert cost.BGE_M3.n_gemm_params == pytest.approx(301.99e6, rel=1e-4)
    for n_tokens, teraflop in ((512, 0.335), (1024, 0.722), (2048, 1.649), (8192, 11.54)):
        assert cost.flop_per_chunk(cost.BGE_M3, n_tokens) == pytest.approx(
            teraflop * 1e12, rel=2e-3
        )


@pytest.mark.parametrize("gpu", cost.GPUS, ids=lambda gpu: gpu.name)
def test_a_measured_rate_is_given_back(gpu: cost.Gpu) -> None:
    rate = cost.chunks_per_second(gpu, cost.BGE_M3, tokens_per_chunk=cost.REFERENCE_TOKENS)
    assert rate == pytest.approx(gpu.chunks_per_second)


def test_shorter_chunks_and_smaller_models_are_faster() -> None:
    gpu = cost.GPUS[0]
    reference = cost.chunks_per_second(gpu, cost.BGE_M3, tokens_per_chunk=2048)
    shorter = cost.chunks_per_second(gpu, cost.BGE_M3, tokens_per_chunk=512)
    smaller = cost.chunks_per_second(gpu, cost.MINILM, tokens_per_chunk=2048)
    assert shorter == pytest.approx(reference * 1.649 / 0.335, rel=0.01)
    assert smaller > 5 * reference


def test_no_gpu_is_faster_than_its_host_can_feed_it() -> None:
    for gpu in cost.GPUS:
        rate = cost.chunks_per_second(gpu, cost.MINILM, tokens_per_chunk=200)
        assert rate == gpu.n_gpus * cost.HOST_TOKENS_PER_SECOND / 200


def test_48_million_chunks_cost_what_they_did() -> None:
    """The whole run was about $500, GPUs the most of it."""
    prices = [
        48_000_000
        / cost.chunks_per_second(gpu, cost.BGE_M3, tokens_per_chunk=2048)
        / 3600
        * gpu.usd_per_hour
        for gpu in cost.GPUS
    ]
    assert prices == pytest.approx([186.7, 533.3, 444.4], abs=0.1)


def test_an_unknown_encoder_has_the_usual_sizes_of_its_dimension() -> None:
    assert cost.architecture_of("owner/large", dim=1024) == cost.BGE_M3
    assert cost.architecture_of("owner/base", dim=768) == cost.Architecture(12, 768, 3072)
    assert cost.architecture_of("minilm", dim=384) == cost.MINILM


def test_a_million_bge_m3_vectors_take_what_was_measured() -> None:
    without_text = cost.bucket_bytes(n_chunks=10**6, n_chunk_bytes=0, dim=1024)
    assert without_text == pytest.approx(1771e6 + (26 + 28) * 10**6)
    with_text = cost.bucket_bytes(n_chunks=10**6, n_chunk_bytes=8 * 10**9, dim=1024)
    terms = 342 * cost.TERM_BYTES * 10**6
    assert with_text - without_text == pytest.approx(8e9 * cost.TEXT_ZSTD_RATIO + terms, rel=1e-3)


@pytest.mark.parametrize(("n_bytes", "measured"), [(0, 0), (1207, 88.6), (7129, 315)])
def test_a_text_has_as_many_terms_as_were_counted(n_bytes: int, measured: float) -> None:
    assert cost.terms_in(n_bytes) == pytest.approx(measured, rel=0.01)


def test_a_terabyte_costs_six_dollars_a_month() -> None:
    assert cost.bucket_usd_per_month(10**12) == 6.0


@pytest.mark.parametrize(
    ("dim", "n_text_bytes", "measured"),
    [(1024, 6982, 4163 + 4430), (384, 1207, 1735 + 1463), (1024, 1207, 3898 + 1463)],
)
def test_postgres_rows_take_what_was_measured(dim: int, n_text_bytes: int, measured: int) -> None:
    n_bytes = cost.postgres_bytes(n_chunks=1000, n_chunk_bytes=1000 * n_text_bytes, dim=dim)
    # what was measured has no row in chunk_clusters
    assert n_bytes / 1000 - 123 == pytest.approx(measured, rel=0.05)


def test_texts_that_stay_in_the_bucket_are_searched_by_words_all_the_same() -> None:
    sizes = {"n_chunks": 1000, "n_chunk_bytes": 7 * 10**6, "dim": 1024}
    with_text = cost.postgres_bytes(**sizes)
    assert with_text - cost.postgres_bytes(**sizes, stores_text=False) == pytest.approx(4.34e6)


def test_nothing_takes_no_room() -> None:
    assert cost.postgres_bytes(n_chunks=0, n_chunk_bytes=0, dim=384) == 0
    assert cost.bucket_bytes(n_chunks=0, n_chunk_bytes=0, dim=384) == 0


@pytest.mark.parametrize(
    ("n_bytes", "name"),
    [
        (0, "Free"),
        (500 * 10**6, "Free"),
        (500 * 10**6 + 1, "Micro"),
        (133 * 10**9, "Large"),
        (10**13, "16XL"),
        (10**13 + 1, "more than 16XL"),
    ],
)
def test_the_smallest_plan_that_holds_it_is_chosen(n_bytes: int, name: str) -> None:
    assert cost.postgres_plan(n_bytes) == name

"""The benchmarks start, and their arithmetic is right; how good and fast is theirs to say."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import psycopg
import pytest
from click.testing import CliRunner

from acidburn_assets.adapters.tokenizer import load_tokenizer
from acidburn_assets.core.datasets import ChunkSizes
from acidburn_assets.core.documents import Document
from acidburn_assets.core.labels import ClusterSample, Heuristic, Passage
from acidburn_assets_tests.core.cluster_samples import blobs
from acidburn_assets_tests.fakes import FakeTokenizer

ROOT = Path(__file__).resolve().parents[1]

SCRIPTS = [
    *("ask", "audit", "chunk", "cluster", "embed", "gate", "label", "load"),
    *("map", "orchestration", "plan", "refit", "route", "store"),
]

# by name: they lie beside the package and are part of no distribution that could be declared
audit, chunk, cluster, embed, label, orchestration, plan, route, store = (
    import_module(f"benchmarks.{name}")
    for name in SCRIPTS
    if name not in ("ask", "gate", "load", "map", "refit")
)
chunkers, clusterers, evaluation, growth, report, timing = (
    import_module(f"benchmarks.{name}")
    for name in ("chunkers", "clusterers", "evaluation", "growth", "report", "timing")
)
Lap, Spread = timing.Lap, timing.Spread


class Words:
    """A tokenizer whose tokens are words."""

    name = "words"
    fingerprint = "0"
    max_tokens = 100

    def count(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(text.split()) for text in texts], np.int64)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_explains_itself(name: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "--json" in finished.stdout


def test_every_script_is_one_of_those_that_are_tested() -> None:
    with_command = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "@click.command" in path.read_text(encoding="utf-8")
    }
    assert with_command == set(SCRIPTS)


@pytest.mark.parametrize("model", ["minilm", "xlmr"])
def test_ours_cuts_without_a_fault_and_says_so_as_json(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACIDBURN_HOME", str(tmp_path))
    arguments = ["--corpus", "python", "--megabytes", "0.05", "--peer-megabytes", "0.01"]
    finished = CliRunner().invoke(
        chunk.command,
        [*arguments, "--model", model, "--rounds", "1", "--json"],
        catch_exceptions=False,
    )
    assert finished.exit_code == 0, finished.output
    *_, whole, last = finished.stdout.splitlines()
    said = json.loads(whole)
    ours, _, part = said["rows"][:3]
    assert (ours["chunker"], part["chunker"]) == ("ours", "ours, on the part")
    assert ours["chunks"] >= said["documents"] > said["documents of the part"] > 0
    assert said["engine"] == {"minilm": "tokenizers", "xlmr": "sentencepiece"}[model]
    verdict = json.loads(last)
    assert list(verdict) == [
        "mb_per_s_core",
        "vs_semantic_text_splitter",
        "over_limit",
        "wrong_spans",
        "gaps",
    ]
    assert verdict["mb_per_s_core"] > 0
    assert (verdict["over_limit"], verdict["wrong_spans"], verdict["gaps"]) == (0, 0, 0)


def test_a_plan_of_a_sample_is_compared_with_what_is_made(tmp_path: Path) -> None:
    texts = [document.text for document in evaluation.documents()[:600]]
    row = plan.measure(
        "python",
        texts,
        load_tokenizer("minilm"),
        sizes=ChunkSizes(),
        folder=tmp_path,
        row_group_rows=20,
    )
    assert row["documents"] == 600
    assert row["documents read"] < 600
    assert row["error"] == row["estimated chunks"] / row["made"] - 1
    assert abs(row["error"]) < 0.5


def test_a_map_is_made_of_so_many_points_and_used(chromium_program: str) -> None:
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.map"),
            *("--points", "300", "--points", "40", "--json"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    said = json.loads(finished.stdout.splitlines()[-1])
    assert [row["points"] for row in said["rows"]] == [300, 40]
    for row in said["rows"]:
        assert all(value > 0 for value in row.values())


def test_words_that_set_a_cluster_apart_come_first() -> None:
    clusters = [
        [["oil", "price"], ["oil", "report"]],
        [["coffee", "price"], ["coffee", "report", "report"]],
    ]
    assert label.ctfidf(clusters) == [
        ["oil", "price", "report"],
        ["coffee", "report", "price"],
    ]


def make_corpus() -> Any:
    """Three clusters of two dimensions; two of them lie close together."""
    centroids = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    samples = {
        row: ClusterSample(
            [Passage(f"{row}{n}".rjust(32, "0"), f"{row}{n}", f"{word} {n}") for n in range(4)], []
        )
        for row, word in enumerate(("oil", "gas", "coffee"))
    }
    members = {row: np.repeat(centroids[[row]], 4, axis=0) for row in range(3)}
    return label.Corpus(
        centroids, np.array([0, 0, 1], np.int32), samples, members, {0: members[0][:2]}
    )


def test_titles_are_judged_by_their_own_clusters_and_by_each_other() -> None:
    corpus = make_corpus()
    titles = ["oil price", "oil gas", "coffee"]
    judged = label.judge(titles, corpus.centroids[[0, 0, 2]], corpus)
    assert judged.own_first == pytest.approx(2 / 3)
    assert judged.unique == pytest.approx(1 / 3)
    assert judged.own_words == pytest.approx(1 / 3)
    assert judged.coverage == 0.0  # the title of the second is as near to members of the first
    apart = label.judge(["oil", "gas", "coffee"], corpus.centroids, corpus)
    assert apart == label.Judgement(own_first=1.0, unique=1.0, own_words=1.0, coverage=1.0)


def test_plain_titles_come_from_words_and_from_vectors() -> None:
    corpus = make_corpus()
    known = {"oil": [1, 0], "gas": [0.8, 0.6], "coffee": [0, 1]}
    titles = label.plain_titles(
        corpus, lambda words: np.array([known[word] for word in words], np.float32)
    )
    assert titles == {
        "c-TF-IDF": ["oil", "gas", "coffee"],
        "c-TF-IDF, embedded": ["oil", "gas", "coffee"],
    }


def test_a_model_is_priced_by_requests_that_are_not_sent() -> None:
    corpus = make_corpus()
    labels = {row: Heuristic(f"Title {row}", (f"word{row}",), "", None) for row in range(3)}
    requests = label.requests_of(corpus, labels)
    assert [request.cluster_id for request in requests] == [0, 1, 2]
    assert requests[0].neighbours == ["Title 1", "Title 2"]
    assert sorted(requests[2].central) == [f"coffee {n}" for n in range(4)]
    longer = [requests[0]._replace(edge=["word " * 80] * 2), *requests[1:]]
    assert 0 < label.price(requests) < label.price(longer) < 0.01


def test_an_audit_of_a_made_up_corpus_answers_every_question() -> None:
    arguments = ["--shards", "3", "--chunks", "50", "--clusters", "10", "--touched", "4"]
    finished = CliRunner().invoke(
        audit.command, [*arguments, "--rounds", "1", "--json"], catch_exceptions=False
    )
    assert finished.exit_code == 0, finished.output
    said = json.loads(finished.stdout.splitlines()[-1])
    assert said["chunks"] == 150
    assert 3 <= said["lineage rows"] <= 12
    assert len(said["rows"]) == 7
    assert all(row["seconds"]["median"] > 0 for row in said["rows"])


@pytest.mark.parametrize(
    ("pieces", "faults"),
    [
        ([(0, 7, "one two"), (8, 18, "three four")], (0, 0, 0)),
        ([(8, 18, "three four"), (0, 7, "one two")], (0, 0, 0)),
        ([(0, 18, "one two three four")], (1, 0, 0)),
        ([(0, 3, "one"), (8, 18, "three four")], (0, 0, 1)),
        ([(4, 7, "two"), (8, 13, "three")], (0, 0, 2)),
        ([(0, 7, "one two"), (7, 17, "three four")], (0, 1, 1)),
        ([(0, 7, "one two"), (-1, 9, "three four")], (0, 1, 1)),  # -1: not found, says LangChain
        ([], (0, 0, 1)),
    ],
)
def test_faults_of_chunks_are_counted(
    pieces: list[tuple[int, int, str]], faults: tuple[int, int, int]
) -> None:
    made = [chunkers.Piece(*piece) for piece in pieces]
    found = chunk.count_faults(["one two three four"], [made], Words(), 3)
    assert (found["over limit"], found["wrong spans"], found["gaps"]) == faults


def test_peers_that_are_absent_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(chunkers.PEERS, "no-such-chunker", "no_such_chunker")
    assert "no-such-chunker" in chunkers.absent()


def test_rounds_are_interleaved_and_begin_with_another_variant_each() -> None:
    ran: list[str] = []
    laps = timing.time_rounds(
        {"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, n_rounds=3
    )
    assert "".join(ran) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(each) for name, each in laps.items()} == {"a": 3, "b": 3}


def test_warmed_variants_run_in_rounds_only() -> None:
    ran: list[str] = []
    timing.time_rounds({"a": lambda: ran.append("a")}, n_rounds=2, is_warmed=True)
    assert ran == ["a", "a"]


def test_ratio_is_of_the_same_round() -> None:
    """A machine that is twice as slow in one round changes no ratio."""
    ours = [Lap(1.0, 0.5), Lap(2.0, 1.0), Lap(1.0, 0.5)]
    peer = [Lap(3.0, 2.0), Lap(6.0, 4.0), Lap(4.0, 1.0)]
    assert timing.ratio(ours, peer, clock="wall") == Spread(3.0, 3.0, 4.0)
    assert timing.ratio(ours, peer, clock="cpu") == Spread(4.0, 2.0, 4.0)


def test_rate_is_work_per_second_with_its_range() -> None:
    assert timing.rate([Lap(1, 4), Lap(2, 4), Lap(4, 4)], 8, clock="wall") == Spread(4, 2, 8)
    assert timing.rate([Lap(1, 4)], 8, clock="cpu") == Spread(2, 2, 2)


def test_time_of_the_processor_is_not_that_of_the_clock() -> None:
    (lap,) = timing.time_rounds({"asleep": lambda: time.sleep(0.05)}, n_rounds=1)["asleep"]
    assert lap.wall >= 0.05
    assert lap.cpu < 0.04


def test_neighbors_kept_are_those_of_the_reference() -> None:
    angles = np.radians([*range(0, 22, 2), *range(180, 202, 2)])  # two fans of eleven
    fans = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert (embed.neighbors_kept(fans, fans) == 1).all()
    swapped = fans.copy()
    swapped[[0, 11]] = fans[[11, 0]]  # one of each fan in the other's place
    kept = embed.neighbors_kept(swapped, fans)
    assert kept[[0, 11]].tolist() == [0, 0]
    assert np.delete(kept, [0, 11]).tolist() == [0.9] * 20


def test_skewed_texts_are_beginnings_of_passages_and_mostly_short() -> None:
    passages = [" ".join(map(str, range(300)))]
    texts = embed.skew(passages, 101, FakeTokenizer())
    assert all(passages[0].startswith(text) for text in texts)
    lengths = sorted(len(text.split()) for text in texts)
    assert lengths[0] >= embed.LEAST_TOKENS
    assert embed.MEDIAN_TOKENS * 0.8 < lengths[50] < embed.MEDIAN_TOKENS * 1.2
    assert 3 * lengths[50] < lengths[-1] <= 256


def test_encoders_are_compared_and_summed_up_in_the_last_line() -> None:
    arguments = ["--long", "11", "--skewed", "12", "--rounds", "1", "--json"]
    finished = CliRunner().invoke(embed.command, arguments, catch_exceptions=False)
    assert finished.exit_code == 0, finished.output
    *_, whole, last = finished.stdout.splitlines()
    said = json.loads(last)
    assert list(said) == [
        *("skewed_vs_32", "skewed_vs_512", "near_max_vs_32"),
        *("min_cosine", "recall_at_10", "bf16_units"),
    ]
    assert said["min_cosine"] > 0.9998
    assert 0.8 < said["recall_at_10"] <= 1
    rows = json.loads(whole)["rows"]
    (reference,) = (row for row in rows if row["encoder"] == "skewed: SentenceTransformer, 32")
    assert abs(reference["1 - cosine, worst"]) < 1e-12
    assert reference["recall@10"] == 1


def test_without_a_gpu_its_benchmark_says_that_it_was_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    finished = CliRunner().invoke(embed.command, ["--device", "cuda"])
    assert finished.exit_code == 2
    assert finished.stderr == "not run: no CUDA device here\n"


def test_rows_of_three_passages_are_unlike_and_no_passage_comes_again_soon() -> None:
    rng = np.random.default_rng(0)
    places = []
    for _ in range(store.N_PLACES):
        made = rng.standard_normal((64, 384)).astype(np.float32)
        places.append(made / np.linalg.norm(made, axis=1, keepdims=True))
    rows = store.combine(places, 640)
    assert rows.shape == (640, store.DIM)
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6
    assert len(np.unique(rows, axis=0)) == 640
    for place, start in enumerate((0, 384, 768)):
        piece = rows[:64, start : start + 256]
        same = np.abs(piece @ places[place][:, :256].T) / np.linalg.norm(piece, axis=1)[:, None]
        assert len(set(same.argmax(axis=1).tolist())) == 64


def test_the_nearest_are_those_of_exact_arithmetic() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 16)).astype(np.float32)
    queries = np.array([5, 0, 299])
    found = store.nearest(vectors, queries)
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for row, own, near in zip(queries, found.rows, found.cosines, strict=True):
        right = unit @ unit[row]
        right[row] = -2
        assert own.tolist() == np.argsort(-right)[: store.K + 1].tolist()
        assert np.abs(near - right[own]).max() < 1e-12
    assert found.errors.max() < 1e-6
    assert found.median_gap > 0


def test_neighbours_that_arithmetic_cannot_tell_apart_may_change_places() -> None:
    exact = np.array([[*np.linspace(0.9, 0.8, store.K), 0.8 - 1e-9]])
    found = exact.copy()
    assert store.recall(found, exact, tolerance=0.0) == 1.0
    found[0, store.K - 1] = 0.8 - 1e-9
    assert store.recall(found, exact, tolerance=0.0) == 0.9
    assert store.recall(found, exact, tolerance=1e-8) == 1.0
    found[0, 0] = 0.1
    assert store.recall(found, exact, tolerance=1e-8) == 0.9


def test_absent_evaluation_data_is_named_and_ends_with_two(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACIDBURN_EVAL_DATA", str(tmp_path))
    finished = CliRunner().invoke(cluster.command, [])
    assert finished.exit_code == 2
    assert "stackoverflow20.parquet" in finished.stderr
    assert "ACIDBURN_EVAL_DATA" in finished.stderr


def test_agreement_counts_noise_as_one_more_cluster_and_skips_what_has_no_label() -> None:
    truth = np.array(["a", "a", "b", "b", "c", "c", "", ""])
    perfect = cluster.judge(np.array([1, 1, 0, 0, 2, 2, 0, -1]), truth)
    assert (perfect["AMI"], perfect["ARI"]) == pytest.approx((1, 1))
    assert (perfect["clusters"], perfect["noise"]) == (3, 1 / 8)
    noisy = cluster.judge(np.array([1, 1, 0, 0, -1, -1, 0, 0]), truth)
    assert (noisy["AMI"], noisy["ARI"]) == pytest.approx((1, 1))
    dropped = cluster.judge(np.array([1, 1, 0, -1, -1, -1, 0, 0]), truth)
    assert dropped["AMI without noise"] == pytest.approx(1)
    assert dropped["AMI"] < 0.9


def test_cells_are_scanned_in_the_order_of_their_scores() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.9, 0.1, 0.1]])
    ranks = cluster.scan_ranks(scores, np.array([0, 1, 2, 1, 0]))
    assert ranks.tolist() == [[3, 0, 2, 1, 4], [0, 2, 4, 3, 1]]
    wanted = [np.array([1, 2]), np.array([3])]
    assert cluster.shares_found(ranks, wanted, (0.2, 0.6, 0.8)) == [0.25, 0.5, 1.0]
    assert cluster.shares_found(ranks, [np.array([1]), np.array([], int)], (0.2,)) == [1.0]


def test_exact_neighbours_of_questions_are_found_in_any_order() -> None:
    vectors = np.eye(6, dtype=np.float32)
    questions = vectors[[2]] * 3 + vectors[[4]] * 2 + vectors[[0]]
    assert set(cluster.nearest_rows(questions, vectors, 2)[0].tolist()) == {2, 4}


def test_a_pool_is_all_real_vectors_and_then_noisy_copies_of_unit_length() -> None:
    real = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    (pool,) = growth.pool_blocks(real, 700)
    assert pool.shape == (700, 64)
    np.testing.assert_allclose(np.linalg.norm(pool, axis=1), 1, atol=1e-5)
    cosines = pool @ real.T
    assert sorted(cosines[:300].argmax(axis=1).tolist()) == list(range(300))
    np.testing.assert_allclose(cosines[:300].max(axis=1), 1, atol=1e-5)
    again = cosines[300:].max(axis=1)
    assert again.max() < 0.99
    assert again.mean() == pytest.approx((1 + growth.JITTER**2) ** -0.5, abs=0.03)
    assert len(np.unique(pool, axis=0)) == 700


def test_a_power_law_is_found_again() -> None:
    assert growth.power_law([1e3, 1e4, 1e5], [3.0, 60.0, 1200.0]) == pytest.approx(
        (3 / 1e3 ** np.log10(20), np.log10(20))
    )


def test_what_is_absent_is_null_in_the_last_line() -> None:
    figures = {"AMI": 0.7, "CPU s": 5.0}
    agreement = [
        {"engine": f"{cluster.TIMED}: {clusterers.OURS}", **figures},
        {"engine": f"{cluster.TIMED}: {clusterers.PLAYBOOK}", "AMI": 0.2, "CPU s": 100.0},
    ]
    at_tenth = {"ours": [0, 0, 0.9, 0], "IVF": [0, 0, 0.8, 0]}
    routed = cluster.Routed(10, 1.0, at_tenth, at_tenth)
    grown = [{"vectors": 1_000_000, "wall s": 300.0, "peak MB": 2_048, "reachable": 0.5}]
    said = cluster.summary(agreement, {"vaswani": [routed]}, grown)
    assert said == {
        "ami": {cluster.TIMED: {"ours": 0.7, "umap_hdbscan": None, "playbook": 0.2}},
        "cpu_vs_umap_hdbscan": None,
        "cpu_vs_hdbscan": 20.0,
        "fit_1m_seconds": 300.0,
        "fit_1m_peak_gb": 2.0,
        "reachable_share": 0.5,
        "recall_vs_ivf": {"vaswani": 1.125},
    }


def test_clusterers_that_are_absent_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(clusterers.PEERS, "none such", "no_such_module")
    assert "none such" in clusterers.absent()


def test_an_engine_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    vectors, truth = blobs((60, 40, 20))
    np.save(tmp_path / "vectors.npy", vectors)
    task = clusterers.Task(clusterers.KMEANS, 10, 5, n_clusters=3)
    found, again = clusterers.run(task, tmp_path / "vectors.npy", n_seeds=2, folder=tmp_path)
    assert again.labels.shape == truth.shape
    assert cluster.judge(found.labels, truth.astype(str))["ARI"] == pytest.approx(1)
    assert 0 < found.cpu < 60
    assert 50 < found.peak_mb < 5_000
    with pytest.raises(RuntimeError, match="no engine 'other'"):
        clusterers.run(
            task._replace(engine="other"), tmp_path / "vectors.npy", n_seeds=1, folder=tmp_path
        )


def test_absent_pool_is_told_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACIDBURN_HOME", str(tmp_path / "home"))
    finished = CliRunner().invoke(route.command, [])
    assert finished.exit_code == 2
    assert "acidburn demo" in finished.stderr
    assert not (tmp_path / "home").exists()


def test_last_line_is_the_whole_run(capsys: pytest.CaptureFixture[str]) -> None:
    report.show("t", [{"a": Spread(2.0, 1.0, 3.0), "b": None}], facts={"n": 1}, is_json=True)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["benchmark"] == "t"
    assert said["n"] == 1
    assert said["rows"] == [{"a": {"median": 2.0, "low": 1.0, "high": 3.0}, "b": None}]


def test_chunks_to_be_encoded_are_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [Document(row, f"d{row}", "", f"The document {row}.") for row in range(2_500)]
    monkeypatch.setattr(evaluation, "documents", lambda: documents)
    tokenizer = load_tokenizer("minilm")
    for n_chunks in (5, 1_000, 1_001):
        table = evaluation.chunks(tokenizer, n_chunks)
        assert table["doc_id"].to_pylist() == [f"d{row}" for row in range(n_chunks)]
    assert len(evaluation.chunks(tokenizer, 3_000)) == 2_500


def test_layouts_of_vectors_are_compared_and_the_last_line_has_three_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    made = rng.standard_normal((3, 512, 384)).astype(np.float32)
    made /= np.linalg.norm(made, axis=2, keepdims=True)
    monkeypatch.setattr(store, "embed_passages", lambda: list(made))
    arguments = ["--vectors", "2048", "--rounds", "1", "--json"]
    finished = CliRunner().invoke(store.command, arguments, catch_exceptions=False)
    assert finished.exit_code == 0, finished.output
    said = json.loads(finished.stdout.splitlines()[-1])
    assert set(said) == {"bytes_per_vector", "vectors_per_s_core", "recall_at_10"}
    assert 1_500 < said["bytes_per_vector"] < 2_000
    assert said["vectors_per_s_core"] > 0
    assert said["recall_at_10"] > 0.99
    assert "not installed" in finished.stdout or ": yes" in finished.stdout


STORAGE = ROOT / "deploy" / "dagster.postgres.yaml"


def test_records_of_dagster_go_to_the_postgres_that_the_deployed_file_names(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that events can be written there: with a plain `postgresql://` none can."""
    content = (ROOT / "dagster.yaml").read_text("utf-8") + STORAGE.read_text("utf-8")
    (tmp_path / "dagster.yaml").write_text(content, "utf-8")
    monkeypatch.setenv(orchestration.STORAGE_VARIABLE, orchestration.write_url(dsn))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        kinds = {type(one).__name__ for one in vars(instance).values()}
        assert {"PostgresEventLogStorage", "PostgresRunStorage"} <= kinds
        key = dg.AssetKey(["d", "chunks"])
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="000000"))
        assert instance.get_materialized_partitions(key) == {"000000"}
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select partition from event_logs").fetchall()
    assert rows == [("000000",)]
    assert not list(tmp_path.glob("**/*.db"))


def test_dagster_is_timed_on_a_graph_that_is_sound_and_found_so() -> None:
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.orchestration"),
            *("--shards", "6", "--gone", "2", "--vectors", "20", "--rounds", "1", "--json"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    said = json.loads(finished.stdout.splitlines()[-1])
    wanted = (
        *("tick_seconds", "submit_seconds", "status_seconds", "audit_seconds"),
        "overhead_seconds_per_shard",
    )
    assert all(isinstance(said[name], float) for name in wanted)
    assert said["partitioned assets"] == 6
    assert said["asset partitions"] == 6 * 6 + 12
    assert said["runs submitted"] == 1
    assert {row["what"] for row in said["rows"]} >= {"tick, all sound", "tick, 2 gone"}

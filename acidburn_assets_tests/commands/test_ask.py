"""`acidburn ask`: the right passage, where it is from, and what is missing when there is none."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acidburn_assets.core.answers import Answer
from acidburn_assets.runtime import backends
from acidburn_assets_tests import samples
from acidburn_assets_tests.fakes import FakeEncoder
from acidburn_assets_tests.worlds import World, acidburn


def ask(*arguments: str) -> Answer:
    """An answer from the command's JSON."""
    finished = acidburn("ask", *arguments, "--json")
    assert finished.code == 0, finished.err
    return Answer.model_validate_json(finished.out)


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        (samples.QUESTION, "roses"),
        ("What pulls the ocean into two bulges?", "tides"),
        ("How do I keep sourdough before baking?", "bread"),
    ],
)
def test_the_nearest_passages_are_about_the_question(
    world: World, question: str, topic: str
) -> None:
    answer = ask(question)
    assert {passage.doc_id.split("-")[0] for passage in answer.passages[:3]} == {topic}
    assert [passage.rank for passage in answer.passages] == [1, 2, 3, 4, 5]
    scores = [passage.score for passage in answer.passages]
    assert scores == sorted(scores, reverse=True)


def test_the_right_document_is_found(world: World) -> None:
    assert samples.ANSWER in ask(samples.QUESTION).passages[0].text


def test_the_trail_counts_what_was_looked_at(world: World) -> None:
    tables = [
        pq.read_table(path)
        for path in world.home.glob("objects/*/assignments/*.parquet")
        if path.parts[-3] in ("notes", "articles")
    ]
    placed = pa.concat_tables(tables)
    cells = Counter(placed["cell_id"].to_pylist())
    answer = ask(samples.QUESTION, "--scan", str(len(placed) // 2))
    trail = answer.trail
    searched = [cluster.cluster_id for cluster in trail.clusters_searched]
    assert trail.n_rows_total == len(placed)
    assert 1 <= trail.n_cells_searched < trail.n_cells_total == max(cells) + 1
    assert min(cells.values()) <= trail.n_rows_scanned <= len(placed) // 2
    assert trail.share_scanned == trail.n_rows_scanned / len(placed)
    assert trail.n_shards_behind == 0
    assert {"encode", "route", "search", "texts"} <= set(trail.seconds)
    assert {passage.cluster_id for passage in answer.passages} <= set(searched)


def test_every_passage_carries_its_place_and_its_making(world: World) -> None:
    for passage in ask(samples.QUESTION).passages:
        stored = world.store.head(f"{passage.dataset}/embeddings/{passage.shard}.parquet")
        assert stored is not None
        assert passage.embeddings_sha256 == stored.sha256
        assert passage.run_id
        assert passage.char_end > passage.char_start >= 0


def test_texts_that_stay_in_the_bucket_are_read_from_there(world: World) -> None:
    answer = ask(samples.QUESTION, "--passages", "50")
    texts = {
        row["chunk_id"].hex(): row["text"]
        for path in world.home.glob("objects/articles/chunks/*.parquet")
        for row in pq.read_table(path, columns=["chunk_id", "text"]).to_pylist()
    }
    shown = {one.chunk_id: one.text for one in answer.passages if one.dataset == "articles"}
    assert shown
    assert shown == {chunk_id: texts[chunk_id] for chunk_id in shown}


def test_a_verification_pool_is_asked_by_its_name_only(world: World) -> None:
    question = "How do I castle?"
    unnamed = ask(question)
    assert unnamed.pool == "library"
    assert "manual" not in {passage.dataset for passage in unnamed.passages}
    named = ask(question, "--pool", "reference")
    assert named.pool == "reference"
    assert {passage.dataset for passage in named.passages} == {"manual"}
    assert "Castling" in named.passages[0].text


def test_a_person_sees_passages_and_what_was_searched(world: World) -> None:
    finished = acidburn("ask", samples.QUESTION, "--passages", "2")
    assert finished.code == 0, finished.err
    lines = finished.out.splitlines()
    assert lines[0].startswith(("found", "perhaps", "not found"))
    assert any(line.startswith("1. ") for line in lines)
    assert any(line.startswith("2. ") for line in lines)
    assert not any(line.startswith("3. ") for line in lines)
    assert "searched" in finished.out
    assert "of library" in finished.out


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["  "], 1, "acidburn: the question is empty; ask something"),
        (["why?", "--pool", "libary"], 1, "acidburn: no pool 'libary'"),
        (["word " * 5000], 1, "acidburn: "),
        (["why?", "--passages", "0"], 2, "Usage: "),
        (["why?", "--clusters", "0"], 2, "Usage: "),
        ([], 2, "Usage: "),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(
    world: World, arguments: list[str], code: int, expected: str
) -> None:
    finished = acidburn("ask", *arguments)
    assert finished.code == code
    assert finished.out == ""
    assert finished.err.startswith(expected)
    assert "Traceback" not in finished.err


def test_before_anything_is_made_it_says_what_to_make(blank_world: World) -> None:
    finished = acidburn("ask", samples.QUESTION)
    assert finished.code == 1
    assert finished.out == ""
    assert finished.err == (
        "acidburn: the pool 'library' has no cluster_map yet; materialize library/cluster_map\n"
    )


def test_a_question_encoded_by_another_model_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "load_encoder", lambda _: FakeEncoder(384))
    finished = acidburn("ask", samples.QUESTION)
    assert finished.code == 1
    (line,) = finished.err.splitlines()
    assert "'fake'" in line
    assert "set ACIDBURN_MODEL to the pool's model" in line


@pytest.mark.parametrize(
    "key", ["library/cluster_map.json", "library/centroids.parquet", "articles/chunks/{}.parquet"]
)
def test_a_damaged_object_is_named_and_mended_by_materializing(
    copied_world: World, key: str
) -> None:
    answer = ask(samples.QUESTION, "--passages", "50")
    shard = next(one.shard for one in answer.passages if one.dataset == "articles")
    key = key.format(shard)
    path = copied_world.object_path(key)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    finished = acidburn("ask", samples.QUESTION, "--passages", "50")
    assert finished.code == 1
    assert finished.out == ""
    (line,) = finished.err.splitlines()
    assert key in line
    mended = acidburn("materialize", "library")
    assert mended.code == 0, mended.err
    assert path.read_bytes() == whole
    assert ask(samples.QUESTION, "--passages", "50").passages == answer.passages

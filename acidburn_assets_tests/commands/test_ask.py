"""`acidburn ask`: the passage that answers, where it is from, and what was searched."""

import json

import pytest

from acidburn_assets.runtime.search import Answer
from acidburn_assets_tests.worlds import World, acidburn

QUESTIONS = {
    "What pulls the ocean into two bulges?": "tides",
    "How do I keep sourdough dough before baking?": "bread",
    "When should roses be pruned?": "roses",
}


def ask(*arguments: str) -> Answer:
    finished = acidburn("ask", *arguments, "--json")
    assert finished.code == 0, finished.err
    return Answer.model_validate_json(finished.out)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_first_passage_is_about_the_question(world: World, question):
    answer = ask(question, "--passages", "3")
    assert QUESTIONS[question] in answer.passages[0].text.lower() + answer.passages[0].title.lower()
    assert answer.passages[0].rank == 1
    assert answer.passages[0].score >= answer.passages[-1].score


def test_every_passage_carries_its_place_and_its_making(world: World):
    answer = ask("What pulls the ocean into two bulges?")
    for passage in answer.passages:
        key = f"{passage.dataset}/embeddings/{passage.shard}.parquet"
        assert passage.embeddings_sha256 == world.store.head(key).sha256
        assert passage.run_id
        assert passage.char_end > passage.char_start >= 0
    assert answer.trail.n_rows_scanned > 0
    assert 0 < answer.trail.share_scanned <= 1
    assert {"encode", "route", "search"} <= set(answer.trail.seconds)
    assert answer.trail.n_shards_behind == 0


def test_a_verification_pool_is_asked_by_name_only(world: World):
    assert {passage.dataset for passage in ask("How do I read a file?").passages} <= {
        "notes",
        "articles",
    }
    only = ask("How do I read a file?", "--pool", "reference").passages
    assert {passage.dataset for passage in only} == {"manual"}


def test_people_see_titles_places_and_what_was_searched(world: World):
    finished = acidburn("ask", "When should roses be pruned?")
    assert finished.code == 0, finished.err
    assert "1. " in finished.out
    assert "cluster" in finished.out
    assert "searched" in finished.out
    with pytest.raises(json.JSONDecodeError):
        json.loads(finished.out)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["  "], 1, "the question is empty"),
        (["hello", "--pool", "nowhere"], 1, "no pool 'nowhere'"),
        (["hello", "--clusters", "0"], 2, "--clusters"),
        ([], 2, "QUESTION"),
    ],
)
def test_a_question_that_cannot_be_asked_says_why(world: World, arguments, code, message):
    finished = acidburn("ask", *arguments)
    assert finished.code == code
    assert message in finished.err
    assert "Traceback" not in finished.err


def test_nothing_is_answered_before_anything_was_made(blank_world: World):
    finished = acidburn("ask", "hello")
    assert finished.code == 1
    assert "materialize library/cluster_map" in finished.err

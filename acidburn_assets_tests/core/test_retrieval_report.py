import pyarrow as pa
import pytest

from acidburn_assets.core import retrieval_report
from acidburn_assets.core.retrieval_report import Outcome, Question, choose_questions, sum_up

FILLER = "Short one here. " * 12
PROSE = (
    "The harbour master counted every boat before the storm came in from the west. "
    "Nobody had told him that two of them were only painted on the wall behind the pier. "
)


def make_chunks(*rows: tuple[str, str, int, str]) -> pa.Table:
    """(doc_id, title, start, text) of each chunk."""
    return pa.table(
        {
            "doc_id": [row[0] for row in rows],
            "title": [row[1] for row in rows],
            "char_start": [row[2] for row in rows],
            "char_end": [row[2] + len(row[3]) for row in rows],
            "text": [row[3] for row in rows],
        }
    )


def choose(chunks: pa.Table, limit: int = 10, seed: int = 0) -> dict[str, list[Question]]:
    questions = choose_questions(chunks, dataset="books", seed=seed, limit=limit)
    return {
        kind: [question for question in questions if question.kind == kind]
        for kind in ("title", "sentence")
    }


def test_title_is_answered_by_every_passage_of_its_document() -> None:
    chunks = make_chunks(
        ("a", "On boats", 0, "x"), ("a", "On boats", 1, "y"), ("b", "On bread", 0, "z")
    )
    titles = {question.text: question for question in choose(chunks)["title"]}
    assert {text: question.n_relevant for text, question in titles.items()} == {
        "On boats": 2,
        "On bread": 1,
    }
    boats = titles["On boats"]
    assert boats.is_answered_by("books", "a", 70, 90)
    assert not boats.is_answered_by("books", "b", 70, 90)
    assert not boats.is_answered_by("papers", "a", 70, 90)


def test_titles_that_name_no_document_are_left_out() -> None:
    chunks = make_chunks(
        ("a", "Preface", 0, "x"), ("b", "preface ", 0, "y"), ("c", "", 0, "z"), ("d", "Own", 0, "z")
    )
    assert [question.text for question in choose(chunks)["title"]] == ["Own"]


def test_sentence_is_whole_and_from_the_middle_of_a_passage() -> None:
    chunks = make_chunks(("a", "", 100, FILLER + PROSE + FILLER))
    (question,) = choose(chunks)["sentence"]
    assert question.text in [sentence.strip() for sentence in PROSE.split("west. ")] or (
        question.text.endswith("west.")
    )
    assert question.char_start is not None
    assert question.char_end is not None
    inside = slice(question.char_start - 100, question.char_end - 100)
    assert (FILLER + PROSE + FILLER)[inside] == question.text
    assert question.is_answered_by("books", "a", 100, 1000)
    assert not question.is_answered_by("books", "a", question.char_start + 1, 1000)


def test_sentence_in_two_overlapping_passages_is_answered_by_both() -> None:
    text = FILLER + PROSE + FILLER
    chunks = make_chunks(
        ("a", "", 0, text), ("a", "", 50, text[50:] + "More."), ("a", "", 400, FILLER)
    )
    assert [question.n_relevant for question in choose(chunks)["sentence"]] == [2]


def test_line_breaks_within_a_sentence_are_spaces_in_the_question() -> None:
    wrapped = PROSE.replace("before the", "before\nthe").replace("two of", "two\n    of")
    (question,) = choose(make_chunks(("a", "", 0, FILLER + wrapped + FILLER)))["sentence"]
    assert "\n" not in question.text
    assert "  " not in question.text


@pytest.mark.parametrize(
    "middle",
    [
        "Too short to ask. ",
        "x = [1, 2, 3]; y = {4: 5}; z = (6, 7); w = x[0] + y[4] * z[1] - 8 / 9 % 10. ",
        "This sentence of a reasonable length never comes to an end because it is a heading\n\n",
        " ".join(["Words"] * 40) + ". ",
    ],
)
def test_what_is_no_sentence_is_not_asked(middle: str) -> None:
    filler = FILLER * 2
    assert choose(make_chunks(("a", "", 0, filler + middle + filler)))["sentence"] == []


def test_sentence_that_stands_in_two_documents_is_left_out() -> None:
    text = FILLER + PROSE + FILLER
    chunks = make_chunks(("a", "", 0, text), ("b", "", 0, text))
    assert choose(chunks)["sentence"] == []


def test_choice_is_seeded_and_bounded() -> None:
    chunks = make_chunks(
        *(
            (f"doc {index}", f"Title {index}", 0, FILLER + PROSE.replace("two", f"{index}") * 2)
            for index in range(30)
        )
    )
    first, again, other = (choose(chunks, 7, seed) for seed in (0, 0, 1))
    assert len(first["title"]) == 7
    assert len({question.doc_id for question in first["sentence"]}) == len(first["sentence"]) <= 7
    assert first == again
    assert first != other


def question(kind: str = "title", n_relevant: int = 1) -> Question:
    return Question.model_validate(
        {
            "kind": kind,
            "text": "t",
            "dataset": "books",
            "doc_id": "a",
            "char_start": None,
            "char_end": None,
            "n_relevant": n_relevant,
        }
    )


def test_report_sums_up_each_way_by_kind() -> None:
    title, sentence = question("title"), question("sentence")
    report = sum_up(
        [
            Outcome(title, "routed", 0.1, (False, True), 10, 0.1),
            Outcome(sentence, "routed", 0.1, (True,), 30, 0.3),
            Outcome(title, "all", None, (True,), 200, 1.0),
            Outcome(sentence, "all", None, (True,), 200, 3.0),
        ],
        pool="library",
        model="f00d",
        cluster_model_sha256="0" * 64,
        n_chunks=200,
        n_clusters=5,
        seed=0,
    )
    assert (report.n_titles, report.n_sentences, len(report.lines)) == (1, 1, 6)
    routed, full = report.line("routed", 0.1), report.line("all")
    assert routed is not None
    assert full is not None
    assert routed.mrr_at_10.mean == pytest.approx(0.75)
    assert routed.share_scanned == pytest.approx(0.1)
    assert routed.seconds_p50 == pytest.approx(0.2)
    assert full.ndcg_at_10.mean == full.recall_at_10.mean == full.share_scanned == 1
    assert routed.ndcg_to_all is not None
    assert routed.ndcg_to_all.mean == pytest.approx(routed.ndcg_at_10.mean)
    assert report.line("routed", 0.2) is None
    by_kind = {line.kind: line for line in report.lines if line.choice == "routed"}
    assert by_kind["title"].mrr_at_10.mean == 0.5
    assert by_kind["sentence"].mrr_at_10.mean == 1
    key = "library/retrieval_report.json"
    again = retrieval_report.RetrievalReport.from_bytes(report.to_bytes(), key=key)
    assert again == report


def test_report_without_questions_has_no_lines() -> None:
    report = sum_up(
        [],
        pool="library",
        model="f00d",
        cluster_model_sha256="0" * 64,
        n_chunks=200,
        n_clusters=5,
        seed=0,
    )
    assert (report.lines, report.n_titles) == ((), 0)

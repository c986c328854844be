"""Keyless labels: what they say, and that they say it every time."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acidburn_assets.core import labels
from acidburn_assets.core.labels import ClusterSample, Heuristic, Passage, describe

TOPICS = {
    0: ("crude oil", "OPEC", "barrels"),
    1: ("interest rates", "Bank of Japan", "yen"),
    2: ("masked array", "numpy.ma", "fill_value"),
    3: ("event loop", "asyncio.Task", "coroutine"),
    4: ("graph neural networks", "nodes", "edges"),
    5: ("coffee quotas", "Brazil", "delegates"),
    6: ("speech recognition", "audio", "speaker"),
    7: ("traffic signal", "vehicles", "intersection"),
}
_FRAMES = (
    "The report of this week says that {0} and the {1} were seen beside the {2}.",
    "Nobody expected that the {2} would matter, but {0} did, and so did the {1}.",
    "They wrote at length about {0}. Later they wrote about the {1}, and never of the {2}.",
    "In the end the {1} was what mattered to {0}; the {2} was left to others.",
)


def passage(text: str, *, chunk_id: str, doc_id: str = "") -> Passage:
    name = chunk_id.rjust(32, "0")
    return Passage(name, doc_id or name, text)


def sample_of(texts: list[str], *, medoids: list[str] | None = None) -> ClusterSample:
    members = [passage(text, chunk_id=f"{number:x}") for number, text in enumerate(texts)]
    if medoids is None:
        return ClusterSample(members, members[:3])
    return ClusterSample(
        members,
        [passage(text, chunk_id=f"{number + 900:x}") for number, text in enumerate(medoids)],
    )


def topic_texts(words: tuple[str, ...], n: int = 24) -> list[str]:
    return [f"{_FRAMES[number % 4].format(*words)} Number {number}." for number in range(n)]


@pytest.fixture
def topics() -> dict[int, ClusterSample]:
    return {cluster_id: sample_of(topic_texts(words)) for cluster_id, words in TOPICS.items()}


NEIGHBOURS = {
    cluster_id: [other for other in TOPICS if other != cluster_id][:3] for cluster_id in TOPICS
}


# ---- titles and keywords --------------------------------------------------------------------


def test_every_cluster_is_named_for_what_it_holds(topics: dict[int, ClusterSample]) -> None:
    described = describe(topics, NEIGHBOURS)
    assert list(described) == list(TOPICS)
    for cluster_id, words in TOPICS.items():
        shown = " ".join((described[cluster_id].title, *described[cluster_id].keywords)).casefold()
        for word in words:
            assert word.casefold() in shown


def test_words_that_every_cluster_has_name_none(topics: dict[int, ClusterSample]) -> None:
    for label in describe(topics, NEIGHBOURS).values():
        assert not {"report", "week", "mattered", "length"} & set(label.keywords)


def test_words_are_shown_as_they_are_written_most_often() -> None:
    texts = ["The GNU compiler is old.", "The GNU compilers are many.", "A Gnu Compiler, at last."]
    label = describe({0: sample_of(texts * 4)}, {})[0]
    assert "GNU" in " ".join(label.keywords)
    assert "Gnu" not in " ".join(label.keywords)


def test_identifiers_and_the_packages_they_lie_in_are_terms() -> None:
    texts = [f"Call numpy.linalg.{name} on it." for name in ("svd", "inv", "svd", "svd")]
    label = describe({0: sample_of(texts * 3)}, {})[0]
    assert "numpy.linalg.svd" in label.keywords
    assert "numpy.linalg" not in label.keywords  # part of the longer
    texts = [f"Call numpy.linalg.f{number} on it." for number in range(9)]
    label = describe({0: sample_of(texts)}, {})[0]
    assert "numpy.linalg" in label.keywords
    assert label.title.startswith("numpy.linalg")  # a package keeps its case


def test_a_phrase_stands_for_its_words() -> None:
    texts = ["Gradient descent is old.", "A proof of gradient descent.", "Why gradient descent?"]
    label = describe({0: sample_of(texts * 3)}, {})[0]
    assert label.keywords[0].casefold() == "gradient descent"
    assert not {"gradient", "descent"} & set(label.keywords)


def test_verbs_do_not_name() -> None:
    texts = ["Return the mask.", "We propose a mask.", "Return each mask.", "They propose masks."]
    assert describe({0: sample_of(texts * 3)}, {})[0].keywords == ("mask",)


def test_a_phrase_does_not_end_in_a_participle() -> None:
    texts = ["The turtle named Tom draws.", "A turtle named Ann draws.", "Turtles named so rest."]
    assert describe({0: sample_of(texts * 3)}, {})[0].title.startswith("Turtle")


def test_a_unit_does_not_name() -> None:
    texts = [f"Profit of {number} mln stg from copper. Profit of copper." for number in range(9)]
    label = describe({0: sample_of(texts)}, {})[0]
    assert label.title == "Profit of copper"
    assert not any("mln" in keyword for keyword in label.keywords)


def test_what_is_written_in_a_session_does_not_name() -> None:
    texts = ["A mask hides values.\n>>> foo.bar(zork)\n... zork = 1\n$ zork --run\nThe mask."] * 9
    shown = describe({0: sample_of(texts)}, {})[0]
    assert shown.title == "Mask hides values"
    assert "zork" not in " ".join(shown.keywords)


def test_an_argument_names_less_than_what_sentences_speak_of() -> None:
    texts = ["open(path, zmode, zflag=0) opens a file. The file is closed, zmode, later."] * 9
    keywords = describe({0: sample_of(texts)}, {})[0].keywords
    assert keywords.index("file") < keywords.index("zmode")


def test_an_acronym_that_is_explained_is_written_as_one() -> None:
    texts = ["these are graph neural networks (gnns).", "the gnns of today.", "why gnns are slow."]
    keywords = describe({0: sample_of(texts * 4)}, {})[0].keywords
    assert "GNNs" in keywords
    assert "graph neural networks" in keywords


def test_a_phrase_is_completed_by_the_words_that_always_stand_around_it() -> None:
    texts = [
        f"The Federal Savings and Loan Insurance Corp {verb} it."
        for verb in ("saw", "heard", "had")
    ]
    label = describe({0: sample_of(texts * 3)}, {})[0]
    assert label.title == "Federal Savings and Loan Insurance Corp"


def test_a_phrase_is_not_completed_beyond_the_last_text() -> None:
    texts = [
        "new trade bill passed",
        "new trade bill passed",
        "new trade bill passed",
        "trade bill",
    ]
    assert "trade bill" in describe({0: sample_of(texts * 2)}, {})[0].title.casefold()


def test_a_modifier_gives_way_to_its_phrase() -> None:
    texts = [
        "causal inference is old.",
        "a causal model.",
        "causal discovery and causal inference.",
    ]
    keywords = describe({0: sample_of(texts * 3)}, {})[0].keywords
    assert "causal" not in keywords
    assert "causal inference" in keywords


def test_a_capital_at_the_beginning_of_a_sentence_is_none() -> None:
    texts = [
        "Masks hide it.",
        "Masks are old.",
        "Masks.",
        "Most masks hide it. Japan.",
        "In Japan.",
    ]
    keywords = describe({0: sample_of(texts * 3)}, {})[0].keywords
    assert "masks" in keywords
    assert "Japan" in keywords


def test_headings_in_capitals_are_words() -> None:
    texts = ["OPTIONS\n\nThe OPTIONS.", "OPTIONS\n\nNATO: few options.", "In NATO."]
    shown = describe({0: sample_of(texts * 3)}, {})[0].keywords
    assert "options" in shown
    assert "NATO" in shown


def test_an_owner_is_named_without_the_sign_of_what_it_owns() -> None:
    texts = ["President Reagan's budget.", "President Reagan's plan.", "President Reagan's speech."]
    assert describe({0: sample_of(texts * 3)}, {})[0].title.startswith("President Reagan")
    assert "'s" not in describe({0: sample_of(texts * 3)}, {})[0].title


def test_a_word_that_few_members_use_is_no_keyword() -> None:
    texts = ["A mask.", *["A mask for rare zebras."] * 2, *["Masks."] * 97]
    assert describe({0: sample_of(texts)}, {})[0].keywords == ("Masks",)


@pytest.mark.parametrize("junk", ["1987", "x", "12.5", "lllll", "tbrghl", "https://a.example/mask"])
def test_numbers_and_scan_noise_are_no_keywords(junk: str) -> None:
    texts = [f"A mask: {junk} and {junk} again." for _ in range(9)]
    assert describe({0: sample_of(texts)}, {})[0].keywords == ("mask",)


def test_one_long_document_does_not_name_the_cluster() -> None:
    book = [
        passage(f"Ishmael hunts whales, day {number}.", chunk_id=f"{number:x}", doc_id="moby")
        for number in range(60)
    ]
    others = [
        passage(f"Storm at sea, log {number}.", chunk_id=f"a{number:x}", doc_id=f"log{number}")
        for number in range(40)
    ]
    review = [passage("Ishmael hunts whales.", chunk_id="b", doc_id="review")]
    label = describe({0: ClusterSample(book + others + review, [])}, {})[0]
    assert label.title == "Storm, sea"
    assert label.keywords.index("Ishmael hunts whales") > label.keywords.index("sea")


def test_a_neighbour_takes_away_what_it_shares() -> None:
    def texts(own: str) -> list[str]:
        return ["Neural networks.", "A neural network.", f"A neural network for {own}."]

    samples = {0: sample_of(texts("speech") * 4), 1: sample_of(texts("chess") * 4)}
    apart, beside = describe(samples, {}), describe(samples, {0: [1], 1: [0]})
    assert [label.title for label in apart.values()] == [
        "Neural network, speech",
        "Neural network, chess",
    ]
    assert [label.title for label in beside.values()] == [
        "Speech, neural network",
        "Chess, neural network",
    ]


def test_equal_clusters_are_told_apart_by_a_further_word(
    topics: dict[int, ClusterSample],
) -> None:
    same = dict.fromkeys(range(9), topics[0])
    titles = [label.title for label in describe(same, {}).values()]
    assert len(set(titles)) == 9
    assert titles[1].startswith(titles[0] + ", ")
    assert titles[8].endswith("(8)")  # words have run out


def test_a_cluster_without_words_is_named_by_its_number() -> None:
    described = describe({7: sample_of(["1 2 3", "4 5 6", ""]), 8: ClusterSample([], [])}, {})
    assert described[7].title == "Cluster 7"
    assert described[8] == Heuristic("Cluster 8", (), "", None)


def test_text_without_spaces_is_read() -> None:
    texts = [
        "東京市場で原油価格が上昇した。",
        "原油価格は東京市場で下落。",
        "原油価格と東京市場について。",
    ]
    label = describe({0: sample_of(texts * 3)}, {})[0]
    assert any(word in label.title for word in ("原油", "東京", "市場", "価格"))
    assert " " not in label.keywords[0]


# ---- summaries ------------------------------------------------------------------------------


def test_a_summary_is_a_whole_sentence_of_a_medoid(topics: dict[int, ClusterSample]) -> None:
    for cluster_id, label in describe(topics, NEIGHBOURS).items():
        source = {member.chunk_id: member.text for member in topics[cluster_id].medoids}
        assert label.summary_chunk_id is not None
        assert label.summary in source[label.summary_chunk_id]
        assert 20 <= len(label.summary) <= 240
        assert label.summary.endswith(".")


def test_a_summary_is_prose_not_code() -> None:
    code = ">>> np.ma.array([1, 2, 3], mask=[0, 1, 0])\nmasked_array(data=[1, --, 3])\n\n"
    prose = "A masked array hides some of its values."
    label = describe({0: sample_of(["A masked array."] * 5, medoids=[code + prose])}, {})[0]
    assert label.summary == prose


def test_a_summary_does_not_end_at_an_abbreviation() -> None:
    text = "Minister Dr. Smith of the U.S. Treasury met the bank. It agreed."
    label = describe({0: sample_of(["The bank met."] * 5, medoids=[text])}, {})[0]
    assert label.summary == "Minister Dr. Smith of the U.S. Treasury met the bank."


def test_a_summary_stands_without_the_sentence_before_it() -> None:
    text = "A masked array hides values. It is a masked array."
    label = describe({0: sample_of(["A masked array."] * 5, medoids=[text])}, {})[0]
    assert label.summary == "A masked array hides values."


def test_a_text_without_capitals_has_sentences_too() -> None:
    text = "we study masks. a masked array hides some of its values. thanks."
    label = describe({0: sample_of(["a masked array."] * 5, medoids=[text])}, {})[0]
    assert label.summary == "a masked array hides some of its values."


def test_without_a_sentence_the_medoid_begins_the_summary() -> None:
    table = "Shr 34 cts vs 1.19 dlrs Net 807,000 vs 2,858,000 " * 20
    label = describe({0: sample_of([table] * 5, medoids=["", table])}, {})[0]
    assert label.summary.startswith("Shr 34 cts vs 1.19 dlrs")
    assert label.summary.endswith("…")
    assert len(label.summary) <= 240
    assert label.summary_chunk_id == "0385".rjust(32, "0")


# ---- the same every time --------------------------------------------------------------------


def test_the_order_of_members_changes_nothing(topics: dict[int, ClusterSample]) -> None:
    turned = {
        cluster_id: ClusterSample(sample.members[::-1], sample.medoids)
        for cluster_id, sample in reversed(topics.items())
    }
    assert describe(turned, NEIGHBOURS) == describe(topics, NEIGHBOURS)


def test_the_order_of_members_does_not_break_ties() -> None:
    names = [f"{one}a{two}e{three}" for one in "bdfgk" for two in "lmnpr" for three in "stvwz"]
    texts = [", ".join(names[start:] + names[:start]) for start in (0, 50)]
    sample = sample_of(texts)
    turned = ClusterSample(sample.members[::-1], sample.medoids)
    assert describe({0: turned}, {}) == describe({0: sample}, {})


def test_the_hash_seed_changes_nothing() -> None:
    program = (
        "from acidburn_assets_tests.core import test_labels as t\n"
        "samples = {i: t.sample_of(t.topic_texts(words)) for i, words in t.TOPICS.items()}\n"
        "print(t.describe(samples, t.NEIGHBOURS))"
    )
    root = labels.__file__.rsplit("acidburn_assets", 1)[0]
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_each_sample_is_looked_up_once(topics: dict[int, ClusterSample]) -> None:
    class Lazy(Mapping[int, ClusterSample]):
        def __init__(self) -> None:
            self.asked: list[int] = []

        def __getitem__(self, key: int) -> ClusterSample:
            self.asked.append(key)
            return topics[key]

        def __iter__(self) -> Iterator[int]:
            return iter(topics)

        def __len__(self) -> int:
            return len(topics)

    lazy = Lazy()
    assert describe(lazy, NEIGHBOURS) == describe(topics, NEIGHBOURS)
    assert lazy.asked == sorted(topics)


_texts = st.lists(st.text(max_size=60), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(0, 9), _texts, max_size=5))
def test_whatever_is_written_labels_keep_their_promises(written: dict[int, list[str]]) -> None:
    samples = {cluster_id: sample_of(texts * 2) for cluster_id, texts in written.items()}
    described = describe(samples, {cluster_id: list(samples) for cluster_id in samples})
    assert list(described) == sorted(written)
    titles = [label.title.casefold() for label in described.values()]
    assert len(set(titles)) == len(titles)
    for label in described.values():
        assert 1 <= len(label.title) <= labels.MAX_TITLE_CHARS
        assert len(label.summary) <= labels.MAX_SUMMARY_CHARS
        assert len(label.keywords) <= labels.MAX_KEYWORDS
        folded = [keyword.casefold() for keyword in label.keywords]
        assert not any(one in other for one in folded for other in folded if one is not other)


# ---- groups ---------------------------------------------------------------------------------


def test_a_group_is_named_for_its_clusters(topics: dict[int, ClusterSample]) -> None:
    groups = {0: [0, 1, 5], 1: [2, 3]}
    described = labels.describe_groups(topics, groups, {0: [1], 1: [0]})
    words = {
        group_id: " ".join((label.title, *label.keywords)).casefold()
        for group_id, label in described.items()
    }
    assert any(word in words[0] for word in ("crude oil", "interest rates", "coffee quotas"))
    assert any(word in words[1] for word in ("masked array", "event loop"))


def test_more_clusters_get_fewer_members_each() -> None:
    assert [labels.members_wanted(n) for n in (0, 1, 500, 1_000, 20_000)] == [
        200,
        200,
        200,
        100,
        40,
    ]

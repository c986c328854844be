"""The cluster map: put together, refused when inconsistent, scored from vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from acidburn_assets.core import cluster_map
from acidburn_assets.core.cluster_map import (
    ClusterFacts,
    ClusterMap,
    DatasetTerms,
    Faithfulness,
    Group,
    Label,
    Medoid,
    build_cluster_map,
    led_astray,
    nearest_clusters,
    pick_exemplars,
    score_titles,
    still_labelled,
    worse_titles,
)
from acidburn_assets.core.errors import SchemaError
from acidburn_assets.core.labels import KEYLESS_VERSION, Heuristic

SHA = "a" * 64


def chunk(number: int) -> str:
    return f"{number:032x}"


def heuristic(cluster_id: int, **changes: Any) -> Heuristic:
    made = Heuristic(
        title=f"Title {cluster_id}",
        keywords=(f"word{cluster_id}", "mask"),
        summary=f"Cluster {cluster_id} is about masks.",
        summary_chunk_id=chunk(cluster_id),
    )
    return made._replace(**changes)


def label(**changes: Any) -> Label:
    fields: dict[str, Any] = {
        "title": "Masked arrays",
        "summary": "How masks hide values.",
        "keywords": ("masks", "fill"),
        "model": "grok-4.3",
        "key": "b" * 64,
        "usd": 0.001,
    }
    return Label(**{**fields, **changes})


def medoid(number: int, dataset: str) -> Medoid:
    return Medoid(chunk_id=chunk(number), dataset=dataset, text=f"Passage {number} of masks.")


def build(n: int = 3, **changes: Any) -> ClusterMap:
    arguments: dict[str, Any] = {
        "pool": "knowledge",
        "datasets": [
            DatasetTerms(dataset="docs", licence="PSF", may_redistribute_text=True),
            DatasetTerms(dataset="books", licence="private", may_redistribute_text=False),
        ],
        "model": "minilm-1",
        "cluster_model_sha256": SHA,
        "generation": 0,
        "centroids_key": "knowledge/centroids.parquet",
        "centroids_sha256": SHA,
        "facts": [
            ClusterFacts(
                cluster_id=cluster_id,
                parent=0,
                size=10 * (n - cluster_id),
                n_noise=cluster_id,
                medoids=(
                    medoid(cluster_id, "docs" if cluster_id else "books"),
                    medoid(100 + cluster_id, "docs"),
                ),
                stability=0.5,
            )
            for cluster_id in reversed(range(n))
        ],
        "heuristics": {cluster_id: heuristic(cluster_id) for cluster_id in range(n)},
        "groups": [
            Group(
                group_id=0, parent=None, title="All", keywords=("mask",), clusters=tuple(range(n))
            )
        ],
    }
    return build_cluster_map(**{**arguments, **changes})


# ---- the record -----------------------------------------------------------------------------


def test_the_schema_file_is_what_the_code_says() -> None:
    path = Path(cluster_map.__file__).with_name("cluster_map.schema.json")
    assert path.read_text(encoding="utf-8") == cluster_map.json_schema(), (
        f"write cluster_map.json_schema() to {path.name}"
    )


def test_a_map_reads_back_as_it_was_written() -> None:
    made = build(labels={1: label()}, failures={2: "refused"}, usd=0.002, status="capped")
    assert ClusterMap.from_bytes(made.to_bytes(), key="p/cluster_map.json") == made


def test_cards_are_ordered_and_count_up() -> None:
    made = build(labels={1: label()}, failures={2: "refused"}, usd=0.002)
    assert [card.cluster_id for card in made.cards] == [0, 1, 2]
    assert [terms.dataset for terms in made.datasets] == ["books", "docs"]
    assert (made.n_llm, made.n_heuristic, made.n_failed) == (1, 2, 1)
    assert made.cards[2].label_failure == "refused"
    assert made.cards[2].title == "Title 2"


def test_a_heuristic_label_quotes_its_chunk() -> None:
    card = build().cards[0]
    assert (card.summary_chunk_id, card.summary_dataset) == (chunk(0), "books")
    assert (card.label_source, card.label_model, card.usd) == ("heuristic", None, 0.0)


def test_a_label_of_a_model_takes_the_place_of_the_heuristic() -> None:
    card = build(labels={0: label()}).cards[0]
    assert (card.title, card.summary) == ("Masked arrays", "How masks hide values.")
    assert (card.keywords, card.usd) == (("masks", "fill"), 0.001)
    assert (card.label_source, card.label_model, card.label_key) == ("llm", "grok-4.3", "b" * 64)
    assert card.summary_chunk_id is None


def test_titles_that_a_model_gave_twice_are_told_apart() -> None:
    made = build(4, labels={number: label() for number in (1, 2, 3)})
    assert [card.title for card in made.cards] == [
        "Title 0",
        "Masked arrays",
        "Masked arrays (masks)",
        "Masked arrays (fill)",
    ]


def test_a_title_of_any_length_is_told_apart() -> None:
    same = {number: label(title="x" * 120, keywords=()) for number in range(3)}
    titles = [card.title for card in build(labels=same).cards]
    assert len(set(titles)) == 3
    assert max(map(len, titles)) <= 120


def test_quotations_of_private_texts_are_not_shown() -> None:
    shown = build(labels={2: label()}).without_private_text()
    assert [card.summary for card in shown.cards] == [
        "",
        "Cluster 1 is about masks.",
        "How masks hide values.",
    ]
    assert shown.cards[0].summary_chunk_id is None
    assert [medoid.text for medoid in shown.cards[0].medoids] == ["", "Passage 100 of masks."]
    assert [medoid.chunk_id for medoid in shown.cards[0].medoids] == [chunk(0), chunk(100)]
    assert shown.cards[1].medoids == build().cards[1].medoids
    assert ClusterMap.from_bytes(shown.to_bytes(), key="k") == shown


def test_money_does_not_change_the_version() -> None:
    bought = build(labels={0: label()}, usd=0.001)
    cached = build(labels={0: label(usd=0.0)}, usd=0.0)
    renamed = build(labels={0: label(title="Masks")}, usd=0.0)
    assert bought.content_version() == cached.content_version() != renamed.content_version()
    assert bought.content_hash() != cached.content_hash()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema_version",), 1, "Input should be 3"),
        (("n_llm",), 1, "not what the cards add up to"),
        (("more",), 1, "Extra inputs are not permitted"),
        (("cards", 1, "title"), "tITLE 0", "2 cards have the title 'title 0'"),
        (("cards", 1, "cluster_id"), 0, "cluster_id 0 stands after 0"),
        (("cards", 1, "parent"), 9, "lies in group 9"),
        (("cards", 1, "label_source"), "llm", "belong to a label of source llm"),
        (("cards", 1, "summary_dataset"), None, "belong together"),
        (("cards", 1, "summary_dataset"), "web", "'web' has no terms here"),
        (("cards", 1, "medoids", 0, "chunk_id"), "xyz", "should match pattern"),
        (("cards", 1, "medoids", 0, "dataset"), "web", "'web' has no terms here"),
        (("cards", 1, "medoids", 0, "text"), "x" * 241, "at most 240 characters"),
        (("cards", 1, "title"), "", "at least 1 character"),
        (("groups", 0, "clusters"), [0, 7], "holds clusters that are not here"),
        (("groups", 0, "clusters"), [1, 0], "stands after"),
        (("usd",), -1.0, "greater than or equal to 0"),
    ],
)
def test_a_map_that_contradicts_itself_is_refused(
    path: tuple[str | int, ...], value: object, message: str
) -> None:
    document: Any = build().model_dump(mode="json")
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValidationError, match=message):
        ClusterMap.model_validate(document)


def test_bytes_that_are_no_map_name_their_key() -> None:
    with pytest.raises(SchemaError, match=r"'p/cluster_map\.json' is not a ClusterMap"):
        ClusterMap.from_bytes(b"{}", key="p/cluster_map.json")


# ---- the map before -------------------------------------------------------------------------


def facts(*sizes: int, moved_medoids: bool = False) -> list[ClusterFacts]:
    """Clusters of these sizes, each with a medoid that a label quotes."""
    return [
        ClusterFacts(
            cluster_id=cluster_id,
            parent=None,
            size=size,
            n_noise=0,
            medoids=(medoid(cluster_id + 50 * moved_medoids, "docs"),),
        )
        for cluster_id, size in enumerate(sizes)
    ]


def carried_over(previous: ClusterMap, *sizes: int, basis: str = KEYLESS_VERSION) -> set[int]:
    steady = range(len(sizes))
    return set(still_labelled(previous, facts(*sizes), steady=steady, basis=basis))


def test_a_label_holds_until_its_cluster_is_twice_or_half_of_what_it_was() -> None:
    previous = build(groups=[], facts=facts(10, 10, 10))
    assert carried_over(previous, 10, 20, 5) == {0, 1, 2}
    assert carried_over(previous, 10, 21, 4) == {0}


def test_growth_counts_from_when_the_label_was_made() -> None:
    """A cluster that grows a little each day is labelled again at last."""
    previous = build(groups=[], facts=facts(10, 10, 10))
    cards = still_labelled(previous, facts(19, 10, 10), steady=[0, 1, 2], basis=KEYLESS_VERSION)
    grown = build(groups=[], facts=facts(19, 10, 10), carried=cards, generation=1)
    assert [card.label_size for card in grown.cards] == [10, 10, 10]
    assert [card.label_generation for card in grown.cards] == [0, 0, 0]
    assert carried_over(grown, 21, 10, 10) == {1, 2}


def test_only_what_is_steady_and_still_there_is_carried_over() -> None:
    previous = build(groups=[], facts=facts(10, 10, 10))
    cards = still_labelled(previous, facts(10, 10), steady=[1, 2, 7], basis=KEYLESS_VERSION)
    assert set(cards) == {1}


@pytest.mark.parametrize(
    ("basis", "expected"),
    [
        ("grok-4.3, prompt 1", {0}),  # what it did not label before, it is asked for
        ("grok-5, prompt 1", set()),
        (KEYLESS_VERSION, {0, 1, 2}),  # nobody is asked: what was bought stays
        ("keyless-next", {0}),
    ],
)
def test_a_label_gives_way_to_what_would_be_made_by_something_else(
    basis: str, expected: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    previous = build(
        groups=[], facts=facts(10, 10, 10), labels={0: label()}, basis="grok-4.3, prompt 1"
    )
    if basis.startswith("keyless"):
        monkeypatch.setattr(cluster_map, "KEYLESS_VERSION", basis)
    assert carried_over(previous, 10, 10, 10, basis=basis) == expected


def test_a_title_that_was_carried_over_goes_before_a_new_one() -> None:
    previous = build(groups=[], facts=facts(10, 10, 10))
    cards = still_labelled(previous, facts(10, 10, 10), steady=[2], basis=KEYLESS_VERSION)
    same = {one: heuristic(one, title=previous.cards[2].title) for one in range(3)}
    made = build(groups=[], facts=facts(10, 10, 10), carried=cards, heuristics=same, generation=4)
    assert made.cards[2].title == previous.cards[2].title
    assert len({card.title for card in made.cards}) == 3
    assert [card.label_generation for card in made.cards] == [4, 4, 0]


def test_what_is_quoted_is_quoted_anew_where_it_is_no_medoid_any_more() -> None:
    previous = build(groups=[], facts=facts(10))
    now = facts(10, moved_medoids=True)
    cards = still_labelled(previous, now, steady=[0], basis=KEYLESS_VERSION)
    fresh = {0: heuristic(0, title="Another", summary="Now.", summary_chunk_id=chunk(50))}
    (card,) = build(groups=[], facts=now, carried=cards, heuristics=fresh).cards
    assert (card.title, card.summary) == (previous.cards[0].title, "Now.")
    assert (card.summary_chunk_id, card.summary_dataset) == (chunk(50), "docs")


def test_carrying_over_twice_changes_nothing() -> None:
    """A map that was lost is made again as it was."""
    previous = build(groups=[], facts=facts(10, 12, 14), labels={1: label()}, basis="grok")
    cards = still_labelled(previous, facts(10, 12, 14), steady=[0, 1, 2], basis=KEYLESS_VERSION)
    made = build(groups=[], facts=facts(10, 12, 14), carried=cards)
    assert made.to_bytes() == previous.to_bytes()


def test_a_title_that_led_to_its_cluster_and_leads_elsewhere_now_is_told() -> None:
    scores = [Faithfulness(title_rank=rank, member_share=None) for rank in (1, 1, 2)]
    cards = dict(enumerate(build().with_faithfulness(scores).cards))
    titles = CENTROIDS[[0, 2, 0]]
    # the third was never first, so nothing was lost
    assert led_astray(cards, titles, CENTROIDS) == {1}


# ---- vectors --------------------------------------------------------------------------------


def unit(*rows: tuple[float, ...]) -> np.ndarray:
    vectors = np.array(rows, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


CENTROIDS = unit((1, 0, 0), (1, 0.5, 0), (0, 1, 0), (0, 0, 1))


def test_neighbours_are_the_nearest_others_nearest_first() -> None:
    nearest = nearest_clusters(CENTROIDS, n=2)
    assert nearest == {0: (1, 2), 1: (0, 2), 2: (1, 0), 3: (0, 1)}


@pytest.mark.parametrize(
    ("n_clusters", "expected"), [(0, {}), (1, {0: ()}), (2, {0: (1,), 1: (0,)})]
)
def test_few_clusters_have_few_neighbours(
    n_clusters: int, expected: dict[int, tuple[int, ...]]
) -> None:
    assert nearest_clusters(CENTROIDS[:n_clusters]) == expected


def test_a_title_is_ranked_by_its_own_centroid_and_its_members() -> None:
    titles = CENTROIDS[[1, 0, 2, 3]]  # the first two titles are swapped
    heldout = {0: CENTROIDS[[0, 0]], 2: CENTROIDS[[2, 3]], 3: CENTROIDS[:0]}
    scores = score_titles(titles, CENTROIDS, heldout)
    assert [score.title_rank for score in scores] == [2, 2, 1, 1]
    assert [score.member_share for score in scores] == [0.0, None, 0.5, None]


def test_a_lonely_cluster_has_no_rivals() -> None:
    score = score_titles(CENTROIDS[:1], CENTROIDS[:1], {0: CENTROIDS[:1]})[0]
    assert (score.title_rank, score.member_share) == (1, None)


def test_a_title_that_leads_elsewhere_is_worse_than_one_that_does_not() -> None:
    model = {0: CENTROIDS[0], 2: CENTROIDS[3], 3: CENTROIDS[1]}
    worse = worse_titles(model, CENTROIDS, CENTROIDS, {})
    assert worse == {
        2: "the title of the model finds this cluster as number 2, the keyless one as number 1",
        3: "the title of the model finds this cluster as number 4, the keyless one as number 1",
    }


def test_a_title_that_is_as_lost_as_the_keyless_one_is_no_worse() -> None:
    turned = CENTROIDS[[1, 0, 2, 3]]
    assert worse_titles({0: turned[0], 1: CENTROIDS[1]}, turned, CENTROIDS, {}) == {}


def test_a_title_that_more_members_are_nearest_to_may_rank_lower() -> None:
    keyless = unit((1, 0, 0), (0.2, 1, 0), (0, 1, 0), (0, 0, 1))
    model = {0: unit((1, 0.3, 0))[0]}  # nearer to the centroid of 1
    members = unit((0.5, 0.4, 0), (0.9, 0.1, 0))
    assert 0 in worse_titles(model, keyless, CENTROIDS, {})
    assert 0 in worse_titles(model, keyless, CENTROIDS, {0: members[1:]})
    first = unit((1, 0, -0.8), (0.2, 1, 0), (0, 1, 0), (0, 0, 1))
    assert worse_titles(model, first, CENTROIDS, {0: members}) == {}


def test_what_a_model_said_of_one_cluster_decides_nothing_about_another() -> None:
    keyless = unit((1, 0.1, 0), (1, 0.6, 0), (0, 1, 0), (0, 0, 1))
    heldout = {row: CENTROIDS[[row]] for row in range(4)}
    alone = worse_titles({1: CENTROIDS[0]}, keyless, CENTROIDS, heldout)
    beside = worse_titles(
        {1: CENTROIDS[0], 0: CENTROIDS[2], 2: CENTROIDS[0]}, keyless, CENTROIDS, heldout
    )
    assert list(beside) == [0, 1, 2]
    assert beside[1] == alone[1]


def test_scores_go_into_the_cards() -> None:
    scores = score_titles(CENTROIDS[:3], CENTROIDS[:3], {})
    made = build().with_faithfulness(scores)
    assert [card.faithfulness for card in made.cards] == scores
    assert ClusterMap.from_bytes(made.to_bytes(), key="k") == made
    with pytest.raises(ValueError, match="zip"):
        build().with_faithfulness(scores[:2])


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    titles = vectors[::-1].copy()
    heldout = dict.fromkeys(range(23), vectors[:4])
    whole = nearest_clusters(vectors), score_titles(titles, vectors, heldout)
    monkeypatch.setattr(cluster_map, "_BLOCK_ROWS", 4)
    assert (nearest_clusters(vectors), score_titles(titles, vectors, heldout)) == whole


def test_exemplars_show_core_breadth_and_border() -> None:
    core = [(1, 0.01 * row, 0) for row in range(8)]
    vectors = unit(*core, *[(1, 1, 0)] * 3, *[(1, 0, -1.2)] * 3)
    picked = pick_exemplars(vectors, unit((1, 0, 0))[0], n_central=2, n_diverse=2, n_edge=1)
    assert picked.central == (0, 1)
    assert picked.edge == (13,)
    assert sum(row in (8, 9, 10) for row in picked.diverse) == 1
    assert sum(row in (11, 12) for row in picked.diverse) <= 1


@given(n=st.integers(0, 14), n_central=st.integers(0, 5), n_diverse=st.integers(0, 5))
def test_no_exemplar_is_shown_twice(n: int, n_central: int, n_diverse: int) -> None:
    vectors = unit(*[(1, 0.1 * row, 0) for row in range(14)])[:n]
    picked = pick_exemplars(
        vectors, unit((1, 0, 0))[0], n_central=n_central, n_diverse=n_diverse, n_edge=2
    )
    rows = [*picked.central, *picked.diverse, *picked.edge]
    assert len(rows) == len(set(rows)) == min(n, n_central + n_diverse + 2)
    assert set(rows) <= set(range(n))

import numpy as np
import pytest

from acidburn_assets.core import lexicon
from acidburn_assets.core.lexicon import ALL_CHUNKS, Lexicon, LexiconAccumulator
from acidburn_assets.core.term_weights import idf


def count(*shards: tuple[list[int], int]) -> LexiconAccumulator:
    made = LexiconAccumulator()
    for terms, n_chunks in shards:
        made.add(np.array(terms, np.int32), n_chunks)
    return made


def test_chunks_are_counted_over_all_shards() -> None:
    table = count(([5, 7, 5, 9], 3), ([7, 5], 2)).finish()
    assert table.to_pydict() == {"term": [ALL_CHUNKS, 5, 7], "n_chunks": [5, 3, 2]}


def test_order_of_shards_does_not_matter() -> None:
    shards = [([5, 7, 5], 2), ([7, 1], 2), ([], 4)]
    assert count(*shards).finish().equals(count(*shards[::-1]).finish())


def test_the_most_frequent_terms_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicon, "MAX_TERMS", 2)
    table = count(([1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4], 4)).finish()
    assert table["term"].to_pylist() == [ALL_CHUNKS, 1, 4]


def test_a_question_weighs_rare_terms_more_and_unknown_ones_most() -> None:
    made = Lexicon(count(([5] * 8 + [7, 7], 10)).finish())
    weights = made.weigh({5: 1, 7: 2, 99: 1})
    rarity = idf(np.array([8, 2, 1]), 10)
    assert weights == pytest.approx({5: rarity[0], 7: 2 * rarity[1], 99: rarity[2]})
    assert made.n_chunks == 10


def test_an_empty_pool_has_a_lexicon() -> None:
    made = Lexicon(count(([], 0)).finish())
    assert made.n_chunks == 0
    assert made.weigh({3: 1}) == pytest.approx({3: float(idf(np.array([1]), 0)[0])})
    assert made.weigh({}) == {}

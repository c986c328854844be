"""How passages are ranked for a question: meaning and words, each with its share.

A passage's score is the weighted sum of its vector's cosine to the question's and of its BM25 score
as a share of the most that any passage could have. Both are of the passage and the question alone,
so passages that are found one after the other, in several looks, are ranked as if by one.

Scores are added, not ranks. On NPL abstracts, newswires and arXiv abstracts nDCG@10 is .495, .704,
.936 with the sum; .490, .690, .921 with reciprocal rank fusion; .435, .644, .865 by vectors alone;
.434, .670, .900 by BM25 alone. BM25 as a share of the best passage's instead of the possible one is
no better (.496, .704, .932), and would change with what is looked at. Source: measured, MiniLM;
Bruch et al., An analysis of fusion functions for hybrid retrieval, 2023.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from acidburn_assets.core.term_weights import K1

LEXICAL_SHARE = 0.5
"""Of the score. Source: as above; .4 to .6 are within .01 of each other on each collection."""


class Query(NamedTuple):
    """A question as passages are compared with it."""

    vector: np.ndarray  # (dim,) float32, unit length
    terms: Mapping[int, float]  # weight of each term, above 0
    lexical_share: float = LEXICAL_SHARE
    """0: by vectors alone; 1: by words alone."""

    @property
    def bound(self) -> float:
        """No passage's BM25 score is higher; 1 where the question has no term."""
        return (K1 + 1) * sum(self.terms.values()) or 1.0

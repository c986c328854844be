"""Calibrates the gate: from which figures on an answer is accepted, and below which none is there.

Every collection is asked its own questions, the same with their answers taken out, and those of the
other collections, as `ask` would: a tenth of the pool first, then twice as much, until eight times.
Taken out are the judged passages and those that are nearly the same (cosine .95 and more), which
answer as well. What a question without an answer is accepted for in any round is a false accept.

The weights are those of a logistic regression, all collections alike. What is said of them is
measured on questions that they were not fitted on: in turn each fifth of the questions, thresholds
chosen from the other four; and whole collections, with weights and thresholds of the others.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from acidburn_assets.adapters.postgres import Hit, Postgres
from acidburn_assets.core import gate
from acidburn_assets.core.embeddings import ModelCard
from acidburn_assets.core.gate import Calibration, Features
from acidburn_assets.core.ranking import Query
from acidburn_assets.runtime.pools import SearchedPool
from acidburn_assets.runtime.search import SHARE_SCANNED, WIDENINGS
from benchmarks import judged, report, served
from benchmarks.judged import Asked
from benchmarks.served import Served

GOAL = 0.05
"""False accepts, and answerable questions that are called not found, at most."""

NEAR = 0.95
"""Cosine from which a passage answers what its neighbour answers. Source: so near are versions of
one newswire; without the rule 17 % of its headlines, and 7 % of the titles of abstracts, are still
answered after their passage was taken out."""

N_FOLDS = 5
SHARES_OF_FIT = {"found": 0.5, "missed": 0.35, "foreign": 0.15}
"""Of the weight in a collection's fit: questions whose answer is among the first ten; those where
it is not, or was taken out; those of other collections. Chosen: the last are easily told."""

N_FOREIGN = 150
"""Questions of each other collection."""

KINDS = ("own", "emptied", "foreign")


class Seen(NamedTuple):
    """What was seen when one kind of question was asked of one collection."""

    pool: str
    kind: str  # of `KINDS`
    figures: np.ndarray  # (q, rounds, features)
    is_found: np.ndarray  # (q, rounds) bool, whether the answer is among the first ten


@click.command()
@click.option("--quick", is_flag=True, help="One collection, asked also the questions of another.")
@click.option("--write", type=click.Path(dir_okay=False, path_type=Path), help="Calibrations file.")
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(quick: bool, write: Path | None, is_json: bool) -> None:
    """Fit the gate, and say what it accepts that it should not."""
    sets = [judged.read(name) for name in (("vaswani", "arxiv") if quick else judged.SETS)]
    seen: list[Seen] = []
    with (
        tempfile.TemporaryDirectory(prefix="acidburn-bench-", ignore_cleanup_errors=True) as made,
        served.server(Path(made, "postgres")) as (postgres, _),
    ):
        for asked in sets[: 1 if quick else None]:
            click.echo(f"asking {asked.name}", err=True)
            pool = served.serve(asked, postgres, folder=Path(made, "bucket"))
            foreign = [other for other in sets if other.name != asked.name]
            seen += ask_all(pool, postgres, foreign)
    calibration, held_out = calibrate(seen, served.minilm_card())
    rows = [
        *table("held out", seen, held_out),
        *([] if quick else leave_one_out(seen)),
    ]
    facts = {
        "goal": GOAL,
        "accept": calibration.accept,
        "reject": calibration.reject,
        "intercept": calibration.intercept,
        **calibration.weights,
    }
    report.show("gate", rows, facts=facts, is_json=is_json)
    if write is not None:
        write.write_text(json.dumps([calibration.model_dump(mode="json")], indent=2) + "\n")
    if is_json:
        print(json.dumps(calibration.model_dump(mode="json")))


# ---- asking ---------------------------------------------------------------------------------


def ask_all(pool: Served, postgres: Postgres, foreign: Sequence[Asked]) -> list[Seen]:
    """Asks a collection the questions of every kind.

    Args:
        pool: the collection.
        postgres: where it was put.
        foreign: collections whose questions it cannot answer.
    """
    asked, searched = pool.asked, pool.searched(postgres)
    nothing = np.empty(0, np.int64)
    seen: dict[str, list[tuple[list[Features], list[bool]]]] = {kind: [] for kind in KINDS}
    for question, vector, relevant in zip(
        asked.questions, asked.question_vectors, asked.relevant, strict=True
    ):
        near = np.flatnonzero((asked.vectors @ asked.vectors[relevant].T).max(axis=1) >= NEAR)
        query = searched.query(question, vector)
        seen["own"].append(rounds(searched, query, pool, relevant, gone=nothing))
        seen["emptied"].append(
            rounds(searched, query, pool, nothing, gone=np.union1d(near, relevant))
        )
    for other in foreign:
        for question, vector in zip(
            other.questions[:N_FOREIGN], other.question_vectors[:N_FOREIGN], strict=True
        ):
            query = searched.query(question, vector)
            seen["foreign"].append(rounds(searched, query, pool, nothing, gone=nothing))
    searched.close()
    return [
        Seen(
            asked.name,
            kind,
            np.array([figures for figures, _ in each]),
            np.array([is_found for _, is_found in each]),
        )
        for kind, each in seen.items()
    ]


def rounds(
    searched: SearchedPool,
    query: Query,
    pool: Served,
    relevant: np.ndarray,
    *,
    gone: np.ndarray,
) -> tuple[list[Features], list[bool]]:
    """Figures of one question after each widening, and whether its answer is in sight.

    Args:
        searched: what finds.
        query: the question.
        pool: the collection.
        relevant: rows that answer.
        gone: rows that are taken for absent.
    """
    cells = searched.router.route(query).cells
    hits: list[Hit] = []
    figures, is_found, done = [], [], 0
    absent = set(gone.tolist())
    for factor in WIDENINGS:
        near = cells.within(factor * round(SHARE_SCANNED * searched.n_rows))
        if len(near) > done:
            limit = 2 * gate.N_COMPARED
            more = searched.search.inside(query, near[done:], limit=limit + len(absent))
            kept = [hit for hit in more.hits if pool.row(hit.chunk_id) not in absent]
            hits = sorted([*hits, *kept], key=lambda hit: (-hit.score, hit.chunk_id))[:limit]
            done = len(near)
        best = hits[0]
        text = searched.texts([best])[best.chunk_id]
        figures.append(
            gate.features(
                query.terms,
                searched.finder(query).find(text),
                cosine=best.cosine,
                scores=[hit.score for hit in hits],
            )
        )
        shown = [pool.row(hit.chunk_id) for hit in hits[: gate.N_COMPARED]]
        is_found.append(bool(np.isin(shown, relevant).any()))
    return figures, is_found


# ---- calibrating ----------------------------------------------------------------------------


class Fit(NamedTuple):
    """A logistic regression and the thresholds."""

    weights: np.ndarray  # (features,)
    intercept: float
    accept: float
    reject: float

    def probabilities(self, seen: Seen) -> np.ndarray:
        """The highest of any round: a search ends where one is accepted  # (q,)."""
        return best_probability(seen.figures, self.weights, self.intercept)


def best_probability(figures: np.ndarray, weights: np.ndarray, intercept: float) -> np.ndarray:
    """Of questions, over their rounds  # (q,).

    Args:
        figures: (q, rounds, features).
        weights: (features,).
        intercept: of the logit.
    """
    best: np.ndarray = (1 / (1 + np.exp(-(figures @ weights + intercept)))).max(axis=1)
    return best


def calibrate(seen: Sequence[Seen], card: ModelCard) -> tuple[Calibration, list[np.ndarray]]:
    """Weights and thresholds from all questions, and what other questions' make of each.

    Args:
        seen: of all collections and kinds.
        card: of the encoder.

    Returns:
        The calibration, and for each of `seen` which questions are accepted when they are held out
        (1), called not found (-1) or neither (0)  # (q,)
    """
    folds = [fold_of(each) for each in seen]
    verdicts = [np.zeros(len(each.figures), np.int64) for each in seen]
    for fold in range(N_FOLDS):
        part = fit([take(each, own != fold) for each, own in zip(seen, folds, strict=True)])
        for each, own, verdict in zip(seen, folds, verdicts, strict=True):
            held = take(each, own == fold)
            probability = part.probabilities(held)
            verdict[own == fold] = (probability >= part.accept).astype(int) - (
                probability < part.reject
            )
    whole = fit(seen)
    rates = {
        kind: float(
            np.mean(
                [np.mean(v == 1) for s, v in zip(seen, verdicts, strict=True) if s.kind == kind]
            )
        )
        for kind in KINDS
    }
    pools = list(dict.fromkeys(each.pool for each in seen))
    return (
        Calibration(
            model=card.fingerprint,
            model_name=card.name,
            intercept=round(whole.intercept, 4),
            weights=dict(zip(Features._fields, np.round(whole.weights, 4).tolist(), strict=True)),
            accept=round(whole.accept, 4),
            reject=round(whole.reject, 4),
            false_accepts=round(rates["emptied"], 4),
            accepted=round(rates["own"], 4),
            provenance=(
                f"python -m benchmarks.gate: {sum(len(s.figures) for s in seen if s.kind == 'own')}"
                f" questions on {', '.join(pools)}, held out by fifths; of questions of other"
                f" collections {rates['foreign']:.1%} are accepted"
            ),
        ),
        verdicts,
    )


def fold_of(seen: Seen) -> np.ndarray:
    """Which fifth a question is in; with its answer and without it, the same  # (q,)."""
    return np.random.default_rng(0).integers(0, N_FOLDS, len(seen.figures))


def take(seen: Seen, chosen: np.ndarray) -> Seen:
    """Some of the questions."""
    return seen._replace(figures=seen.figures[chosen], is_found=seen.is_found[chosen])


def fit(seen: Sequence[Seen]) -> Fit:
    """Weights, and the thresholds at which both goals are met on the same questions.

    Args:
        seen: of the collections that count.
    """
    from sklearn.linear_model import LogisticRegression

    figures = np.concatenate([each.figures.reshape(-1, len(Features._fields)) for each in seen])
    is_found = np.concatenate([each.is_found.reshape(-1) for each in seen])
    spread = figures.std(axis=0)
    model = LogisticRegression(max_iter=1000).fit(
        figures / spread, is_found, sample_weight=sample_weights(seen)
    )
    weights, intercept = model.coef_[0] / spread, float(model.intercept_[0])
    probabilities = [best_probability(each.figures, weights, intercept) for each in seen]

    def of(kind: str) -> list[np.ndarray]:
        return [p for each, p in zip(seen, probabilities, strict=True) if each.kind == kind]

    accept = least_threshold(of("emptied"), goal=GOAL)
    # what is accepted is never called not found, however well both can be told
    reject = min(accept, greatest_threshold(of("own"), goal=GOAL))
    return Fit(weights, intercept, accept, reject)


def sample_weights(seen: Sequence[Seen]) -> np.ndarray:
    """By collection and by `SHARES_OF_FIT`, for every round of every question  # (r,)."""
    parts = {
        id(each): np.where(each.is_found, "found", "missed")
        if each.kind != "foreign"
        else np.full(each.is_found.shape, "foreign")
        for each in seen
    }
    totals = {
        (pool, part): sum(int((parts[id(e)] == part).sum()) for e in seen if e.pool == pool)
        for pool in {each.pool for each in seen}
        for part in SHARES_OF_FIT
    }
    n_rows = sum(each.is_found.size for each in seen)
    weights = [
        np.vectorize(lambda part, pool=each.pool: SHARES_OF_FIT[part] / totals[pool, part])(
            parts[id(each)]
        ).reshape(-1)
        for each in seen
    ]
    together = np.concatenate(weights)
    scaled: np.ndarray = together * n_rows / together.sum()
    return scaled


def least_threshold(probabilities: Sequence[np.ndarray], *, goal: float) -> float:
    """From which on no more than so large a share is accepted, in the mean of the collections."""
    steps = np.unique(np.concatenate([*probabilities, [0.0]]))
    shares = np.mean([np.mean(own[:, None] > steps, axis=0) for own in probabilities], axis=0)
    # just above what must not be accepted
    return float(np.nextafter(steps[np.argmax(shares <= goal)], 1))


def greatest_threshold(probabilities: Sequence[np.ndarray], *, goal: float) -> float:
    """Below which no more than so large a share lies, in the mean of the collections."""
    steps = np.unique(np.concatenate(probabilities))
    shares = np.mean([np.mean(own[:, None] < steps, axis=0) for own in probabilities], axis=0)
    return float(steps[np.flatnonzero(shares <= goal)[-1]])


# ---- saying ---------------------------------------------------------------------------------


def table(name: str, seen: Sequence[Seen], verdicts: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """A row for each collection.

    Args:
        name: of the experiment.
        seen: what was asked.
        verdicts: of the same: 1 accepted, -1 not found  # (q,) each
    """
    of = {(each.pool, each.kind): v for each, v in zip(seen, verdicts, strict=True)}
    found = {each.pool: each.is_found.any(axis=1) for each in seen if each.kind == "own"}
    return [
        {
            "gate": f"{name}: {pool}",
            "questions": len(of[pool, "own"]),
            "answer in sight": float(found[pool].mean()),
            "accepted": float(np.mean(of[pool, "own"] == 1)),
            "of those in sight": float(np.mean(of[pool, "own"][found[pool]] == 1)),
            "accepted without answer": float(np.mean(of[pool, "emptied"] == 1)),
            "accepted foreign": float(np.mean(of[pool, "foreign"] == 1)),
            "not found": float(np.mean(of[pool, "own"] == -1)),
            "not found without answer": float(np.mean(of[pool, "emptied"] == -1)),
            "not found foreign": float(np.mean(of[pool, "foreign"] == -1)),
        }
        for pool in found
    ]


def leave_one_out(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """Every collection judged by what the others teach."""
    rows = []
    for pool in dict.fromkeys(each.pool for each in seen):
        others = fit([each for each in seen if each.pool != pool])
        own = [each for each in seen if each.pool == pool]
        verdicts = [
            (p >= others.accept).astype(int) - (p < others.reject)
            for p in map(others.probabilities, own)
        ]
        rows += table("by the others", own, verdicts)
    return rows


if __name__ == "__main__":
    command()

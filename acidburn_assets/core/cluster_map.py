"""`P/cluster_map.json`: what every cluster of a pool is called, and how well the name fits.

The contract between clustering and everything that shows, routes or audits clusters; its JSON
schema is `cluster_map.schema.json` beside this file. Words are found in `labels` (without a
model) and `adapters.labeler` (with one). Here they are put together, made unique and scored.
"""

import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from acidburn_assets.core.labels import (
    KEYLESS_VERSION,
    MAX_KEYWORDS,
    MAX_QUOTATION_CHARS,
    MAX_TITLE_CHARS,
    Heuristic,
)
from acidburn_assets.core.records import Record

N_NEIGHBOURS = 3
"""Clusters that a label is told apart from. Chosen, not measured."""

MAX_OUTGROWN = 2.0
"""How many times as large, or as small, a cluster may become and keep its label. Chosen."""

MAX_SUMMARY_CHARS = 400
"""Of a summary, whoever wrote it."""

_BLOCK_ROWS = 1_024  # of a similarity matrix at a time: 20,000 clusters need 80 MB, not 1.6 GB

ChunkId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Title = Annotated[str, Field(min_length=1, max_length=MAX_TITLE_CHARS)]
Keyword = Annotated[str, Field(min_length=1, max_length=MAX_TITLE_CHARS)]
Keywords = Annotated[tuple[Keyword, ...], Field(max_length=MAX_KEYWORDS)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Described(Record):
    """A record whose fields' docstrings go into the JSON schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Faithfulness(_Described):
    """How well a title fits its cluster, measured with embeddings alone."""

    title_rank: int = Field(ge=1)
    """Rank of the own centroid among all when the title is the query; 1 is best."""
    member_share: Share | None
    """Share of held-out members nearer to this title than to the titles of the nearest clusters;
    null where none was held out or there is no other cluster."""


class Label(_Described):
    """What a model wrote about a cluster."""

    title: Title
    summary: str = Field(max_length=MAX_SUMMARY_CHARS)
    keywords: Keywords
    model: str
    """As the service named it in its answer."""
    key: Sha256
    """Content address of the answer in the cache: question, model and parameters."""
    usd: Usd
    """What it cost when it was bought."""


class Medoid(_Described):
    """A member near the centroid, to be read."""

    chunk_id: ChunkId
    dataset: str
    text: str = Field(max_length=MAX_QUOTATION_CHARS)
    """Its beginning, white space aside; empty where it may not be shown."""


class Card(_Described):
    """One cluster; its centroid is the row of `cluster_id` in the map's `centroids_key`."""

    cluster_id: int = Field(ge=0)
    parent: int | None
    """The group it lies in."""
    title: Title
    """Unique in the map."""
    summary: str = Field(max_length=MAX_SUMMARY_CHARS)
    """A sentence quoted from a medoid, or what a model wrote."""
    summary_chunk_id: ChunkId | None
    """The chunk that is quoted; null where the summary is no quotation."""
    summary_dataset: str | None
    """The dataset of that chunk."""
    keywords: Keywords
    """Best first."""
    size: int = Field(ge=0)
    """Members, noise not counted."""
    n_noise: int = Field(ge=0)
    """Noise whose nearest cluster this is."""
    medoids: tuple[Medoid, ...]
    """Members nearest to the centroid, nearest first."""
    label_source: Literal["heuristic", "llm"]
    label_model: str | None
    label_key: Sha256 | None
    """Content address of the model's answer."""
    label_basis: str
    """What made the label: a version of the keyless ones, or a model and a version of what it is
    asked."""
    label_generation: int = Field(ge=0)
    """Of the cluster model when the label was made; since then the cluster hardly changed."""
    label_size: int = Field(ge=0)
    """Members of the cluster when the label was made."""
    label_failure: str | None
    """Why the cluster keeps its heuristic label although a model was asked."""
    faithfulness: Faithfulness | None
    stability: Share | None
    """How steady the cluster was in the fit."""
    usd: Usd
    """What its label cost when it was bought."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        is_llm = self.label_source == "llm"
        if is_llm != (self.label_model is not None) or is_llm != (self.label_key is not None):
            raise ValueError("label_model and label_key belong to a label of source llm")
        if is_llm and self.label_failure is not None:
            raise ValueError("label_failure belongs to a label of source heuristic")
        if (self.summary_chunk_id is None) != (self.summary_dataset is None):
            raise ValueError("summary_chunk_id and summary_dataset belong together")
        return self


class Group(_Described):
    """A node above the clusters in the hierarchy."""

    group_id: int = Field(ge=0)
    parent: int | None
    """The group it lies in."""
    title: Title
    """Unique among the groups."""
    keywords: Keywords
    clusters: tuple[int, ...] = Field(min_length=1)
    """All clusters below it, ascending."""


class DatasetTerms(_Described):
    """Under which terms a dataset of the pool may be shown."""

    dataset: str
    licence: str
    may_redistribute_text: bool


class ClusterMap(_Described):
    """All clusters of a pool."""

    schema_version: Literal[3] = 3
    pool: str
    datasets: tuple[DatasetTerms, ...]
    """Ordered by name."""
    model: str
    """Fingerprint of the encoder whose vectors were clustered."""
    cluster_model_sha256: Sha256
    generation: int = Field(ge=0)
    """Of the cluster model."""
    centroids_key: str
    """The object that holds the centroids, a row for each cluster."""
    centroids_sha256: Sha256
    status: Literal["complete", "capped"]
    """`capped`: labelling stopped at its budget, the rest kept their heuristic labels."""
    n_llm: int = Field(ge=0)
    n_heuristic: int = Field(ge=0)
    n_failed: int = Field(ge=0)
    """Of the heuristic labels, those that a model was asked for in vain, or answered worse."""
    usd: Usd
    """What was spent since the map before, by answers and attempts that failed too; a label that
    was in the cache costs nothing again."""
    cards: tuple[Card, ...]
    """Ordered by cluster_id."""
    groups: tuple[Group, ...]
    """Ordered by group_id."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        _require_ascending("cluster_id", [card.cluster_id for card in self.cards])
        _require_ascending("group_id", [group.group_id for group in self.groups])
        _require_ascending("dataset", [terms.dataset for terms in self.datasets])
        _require_unique("cards", [card.title for card in self.cards])
        _require_unique("groups", [group.title for group in self.groups])
        group_ids = {group.group_id for group in self.groups}
        parents = {card.parent for card in self.cards} | {group.parent for group in self.groups}
        for parent in parents - {None}:
            if parent not in group_ids:
                raise ValueError(f"something lies in group {parent}, which is not here")
        clusters = {card.cluster_id for card in self.cards}
        for group in self.groups:
            _require_ascending(f"group {group.group_id}", group.clusters)
            if not clusters.issuperset(group.clusters):
                raise ValueError(f"group {group.group_id} holds clusters that are not here")
        names = {terms.dataset for terms in self.datasets}
        for card in self.cards:
            for dataset in (card.summary_dataset, *(medoid.dataset for medoid in card.medoids)):
                if dataset is not None and dataset not in names:
                    raise ValueError(f"the dataset {dataset!r} has no terms here")
        counts = Counter(card.label_source for card in self.cards)
        n_failed = sum(card.label_failure is not None for card in self.cards)
        if (self.n_llm, self.n_heuristic, self.n_failed) != (
            counts["llm"],
            counts["heuristic"],
            n_failed,
        ):
            raise ValueError("n_llm, n_heuristic or n_failed is not what the cards add up to")
        return self

    def content_version(self) -> str:
        """sha256 of what a reader of the map sees, hex.

        Money is left out: labels that come from the cache the second time change nothing.
        """
        cards = tuple(card.model_copy(update={"usd": 0.0}) for card in self.cards)
        return self.model_copy(update={"cards": cards, "usd": 0.0}).content_hash()

    def with_faithfulness(self, scores: Sequence[Faithfulness]) -> Self:
        """The same map with scored titles.

        Args:
            scores: in the order of `cards`, from `score_titles`.
        """
        cards = tuple(
            card.model_copy(update={"faithfulness": score})
            for card, score in zip(self.cards, scores, strict=True)
        )
        return self.model_copy(update={"cards": cards})

    def without_private_text(self, private_now: Collection[str] = ()) -> Self:
        """The map as it may be shown to others.

        Summaries and medoids that quote a dataset whose text may not be redistributed are
        emptied; titles, keywords, ids and counts stay.

        Args:
            private_now: datasets that became private after the map was made.
        """
        private = set(private_now) | {
            terms.dataset for terms in self.datasets if not terms.may_redistribute_text
        }
        blank = {"summary": "", "summary_chunk_id": None, "summary_dataset": None}
        cards = []
        for card in self.cards:
            medoids = tuple(
                medoid.model_copy(update={"text": ""}) if medoid.dataset in private else medoid
                for medoid in card.medoids
            )
            quotes = blank if card.summary_dataset in private else {}
            cards.append(card.model_copy(update={**quotes, "medoids": medoids}))
        return self.model_copy(update={"cards": tuple(cards)})


def json_schema() -> str:
    """The JSON schema of `cluster_map.json`, as `cluster_map.schema.json` holds it."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ClusterMap.model_json_schema(),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


class ClusterFacts(NamedTuple):
    """What clustering knows of a cluster before it has a name."""

    cluster_id: int
    parent: int | None  # group
    size: int
    n_noise: int
    medoids: tuple[Medoid, ...]  # nearest first
    stability: float | None = None


def build_cluster_map(
    *,
    pool: str,
    datasets: Iterable[DatasetTerms],
    model: str,
    cluster_model_sha256: str,
    generation: int,
    centroids_key: str,
    centroids_sha256: str,
    facts: Iterable[ClusterFacts],
    heuristics: Mapping[int, Heuristic],
    groups: Iterable[Group] = (),
    carried: Mapping[int, Card] | None = None,
    labels: Mapping[int, Label] | None = None,
    basis: str = "",
    failures: Mapping[int, str] | None = None,
    usd: float = 0.0,
    status: Literal["complete", "capped"] = "complete",
) -> ClusterMap:
    """Puts the map together.

    Args:
        pool: name of the pool.
        datasets: the terms of its datasets.
        model: fingerprint of the encoder.
        cluster_model_sha256: of the cluster model's object.
        generation: of the cluster model.
        centroids_key: of the centroids' object.
        centroids_sha256: of that object.
        facts: of every cluster.
        heuristics: a label for every cluster.
        groups: the hierarchy above the clusters.
        carried: cards of the map before whose labels still hold, see `still_labelled`.
        labels: what a model wrote; these take the place of the heuristics.
        basis: what these labels were made by.
        failures: why a model that was asked did not label a cluster.
        usd: what labelling cost in all.
        status: `capped` where labelling stopped at its budget.

    Raises:
        pydantic.ValidationError: the parts do not fit together.
    """
    carried, labels, failures = carried or {}, labels or {}, failures or {}
    ordered = sorted(facts, key=lambda fact: fact.cluster_id)
    titles = _unique_titles(
        {
            fact.cluster_id: (labels.get(fact.cluster_id), heuristics[fact.cluster_id])
            for fact in ordered
            if fact.cluster_id not in carried
        },
        taken=[card.title for card in carried.values()],
    )
    cards = tuple(
        _carried_card(fact, carried[fact.cluster_id], heuristics[fact.cluster_id])
        if fact.cluster_id in carried
        else _card(
            fact,
            titles[fact.cluster_id],
            heuristics[fact.cluster_id],
            labels.get(fact.cluster_id),
            failures.get(fact.cluster_id),
            basis=basis,
            generation=generation,
        )
        for fact in ordered
    )
    n_llm = sum(card.label_source == "llm" for card in cards)
    return ClusterMap(
        pool=pool,
        datasets=tuple(sorted(datasets, key=lambda terms: terms.dataset)),
        model=model,
        cluster_model_sha256=cluster_model_sha256,
        generation=generation,
        centroids_key=centroids_key,
        centroids_sha256=centroids_sha256,
        status=status,
        n_llm=n_llm,
        n_heuristic=len(cards) - n_llm,
        n_failed=sum(card.label_failure is not None for card in cards),
        usd=usd,
        cards=cards,
        groups=tuple(sorted(groups, key=lambda group: group.group_id)),
    )


def _card(
    fact: ClusterFacts,
    title: str,
    heuristic: Heuristic,
    label: Label | None,
    failure: str | None,
    *,
    basis: str,
    generation: int,
) -> Card:
    quoted = heuristic.summary_chunk_id if label is None else None
    datasets = {medoid.chunk_id: medoid.dataset for medoid in fact.medoids}
    return Card(
        cluster_id=fact.cluster_id,
        parent=fact.parent,
        title=title,
        summary=heuristic.summary if label is None else label.summary,
        summary_chunk_id=quoted,
        summary_dataset=None if quoted is None else datasets[quoted],
        keywords=heuristic.keywords if label is None else label.keywords,
        size=fact.size,
        n_noise=fact.n_noise,
        medoids=fact.medoids,
        label_source="heuristic" if label is None else "llm",
        label_model=None if label is None else label.model,
        label_key=None if label is None else label.key,
        label_basis=KEYLESS_VERSION if label is None else basis,
        label_generation=generation,
        label_size=fact.size,
        label_failure=failure if label is None else None,
        faithfulness=None,
        stability=fact.stability,
        usd=0.0 if label is None else label.usd,
    )


def still_labelled(
    previous: ClusterMap, facts: Iterable[ClusterFacts], *, steady: Collection[int], basis: str
) -> dict[int, Card]:
    """Cards of the map before whose labels still hold: a name does not change without a reason, and
    what was paid for is not paid for again.

    Those of clusters that hardly changed since, that are not many times as large or small as when
    they were labelled, and that nothing better would label now: keyless labels where no model is
    asked, labels of a model where that one is, or none.

    Args:
        previous: the map before.
        facts: of the clusters now.
        steady: clusters that hardly changed since that map.
        basis: what would label them now.
    """
    sizes = {fact.cluster_id: fact.size for fact in facts}
    is_asking = basis != KEYLESS_VERSION
    return {
        card.cluster_id: card
        for card in previous.cards
        if card.cluster_id in steady
        and card.cluster_id in sizes
        and (card.label_basis == basis or (card.label_source == "llm" and not is_asking))
        and card.label_size <= MAX_OUTGROWN * sizes[card.cluster_id]
        and sizes[card.cluster_id] <= MAX_OUTGROWN * card.label_size
    }


def led_astray(
    cards: Mapping[int, Card], title_vectors: np.ndarray, centroids: np.ndarray
) -> set[int]:
    """Cards whose titles no longer find their own cluster first, though they did.

    Args:
        cards: by row of their clusters' centroids.
        title_vectors: (m, dim) float32, unit length: their titles in that order, as queries.
        centroids: (k, dim) float32, unit length, of all clusters.
    """
    lost = set()
    for (row, card), title in zip(cards.items(), title_vectors, strict=True):
        similarity = centroids @ title  # (k,)
        was_first = card.faithfulness is not None and card.faithfulness.title_rank == 1
        if was_first and (similarity > similarity[row]).any():
            lost.add(row)
    return lost


def _carried_card(fact: ClusterFacts, card: Card, heuristic: Heuristic) -> Card:
    """The label of before, and what is known of its cluster now; what it quotes is quoted anew
    where it is no medoid any more, and may be gone with a revision."""
    datasets = {medoid.chunk_id: medoid.dataset for medoid in fact.medoids}
    quotation = {}
    if card.summary_chunk_id is not None and card.summary_chunk_id not in datasets:
        quoted = heuristic.summary_chunk_id
        quotation = {
            "summary": heuristic.summary,
            "summary_chunk_id": quoted,
            "summary_dataset": None if quoted is None else datasets[quoted],
        }
    known = {
        "parent": fact.parent,
        "size": fact.size,
        "n_noise": fact.n_noise,
        "medoids": fact.medoids,
        "stability": fact.stability,
        "faithfulness": None,
    }
    return card.model_copy(update={**known, **quotation})


def _unique_titles(
    found: Mapping[int, tuple[Label | None, Heuristic]], *, taken: Iterable[str] = ()
) -> dict[int, str]:
    """A model sees one cluster at a time, so it may name two alike: the second says more."""
    titles: dict[int, str] = {}
    taken = {title.casefold() for title in taken}
    for cluster_id, (label, heuristic) in found.items():
        title = heuristic.title if label is None else label.title
        more = [*(label.keywords if label is not None else ()), *heuristic.keywords]
        choices = itertools.chain(
            [title],
            (f"{title} ({word})" for word in more),
            (f"{title[:100]} ({number})" for number in itertools.count(2)),
        )
        titles[cluster_id] = next(
            choice
            for choice in choices
            if choice.casefold() not in taken and len(choice) <= MAX_TITLE_CHARS
        )
        taken.add(titles[cluster_id].casefold())
    return titles


def _require_ascending(name: str, values: Sequence[Any]) -> None:
    for one, following in itertools.pairwise(values):
        if not one < following:
            raise ValueError(f"{name} {following!r} stands after {one!r}")


def _require_unique(name: str, titles: Sequence[str]) -> None:
    for title, count in Counter(title.casefold() for title in titles).items():
        if count > 1:
            raise ValueError(f"{count} {name} have the title {title!r}")


# ---- vectors --------------------------------------------------------------------------------


class Exemplars(NamedTuple):
    """Members of a cluster that stand for it, as row numbers; no row twice."""

    central: tuple[int, ...]  # nearest to the centroid first
    diverse: tuple[int, ...]  # together near to all members
    edge: tuple[int, ...]  # farthest from the centroid first


def nearest_clusters(
    centroids: np.ndarray, *, ids: Sequence[int] | None = None, n: int = N_NEIGHBOURS
) -> dict[int, tuple[int, ...]]:
    """The nearest other clusters of each, nearest first.

    Args:
        centroids: (k, dim) float32, unit length.
        ids: of the clusters; None: their rows.
        n: how many, fewer where there are fewer.
    """
    ids = range(len(centroids)) if ids is None else ids
    nearest = {}
    for start in range(0, len(centroids), _BLOCK_ROWS):
        similarities = centroids[start : start + _BLOCK_ROWS] @ centroids.T  # (rows, k)
        for row, similarity in enumerate(similarities):
            similarity[start + row] = -np.inf
            order = np.argsort(-similarity, kind="stable")[: min(n, len(centroids) - 1)]
            nearest[ids[start + row]] = tuple(ids[other] for other in order.tolist())
    return nearest


def score_titles(
    title_vectors: np.ndarray,
    centroids: np.ndarray,
    heldout: Mapping[int, np.ndarray],
    *,
    rival_vectors: np.ndarray | None = None,
) -> list[Faithfulness]:
    """Scores titles with vectors alone.

    Args:
        title_vectors: (k, dim) float32, unit length: each title encoded as a query.
        centroids: (k, dim) float32, unit length, in the same order.
        heldout: by row, (m, dim) float32 vectors of members that no label was made from.
        rival_vectors: (k, dim) float32, unit length: titles that the neighbours are held to have
            instead, so that no title is judged by another that is judged.

    Returns:
        k scores, in the same order.
    """
    rival_vectors = title_vectors if rival_vectors is None else rival_vectors
    neighbours = nearest_clusters(centroids)
    scores = []
    for start in range(0, len(centroids), _BLOCK_ROWS):
        similarities = title_vectors[start : start + _BLOCK_ROWS] @ centroids.T  # (rows, k)
        for offset, similarity in enumerate(similarities):
            row = start + offset
            rivals = list(neighbours[row])
            members = heldout.get(row)
            member_share = None
            if rivals and members is not None and len(members):
                own = members @ title_vectors[row]  # (m,)
                others = members @ rival_vectors[rivals].T  # (m, n)
                member_share = float((own[:, None] > others).all(axis=1).mean())
            scores.append(
                Faithfulness(
                    title_rank=1 + int((similarity > similarity[row]).sum()),
                    member_share=member_share,
                )
            )
    return scores


def worse_titles(
    model_vectors: Mapping[int, np.ndarray],
    keyless_vectors: np.ndarray,
    centroids: np.ndarray,
    heldout: Mapping[int, np.ndarray],
) -> dict[int, str]:
    """Which titles of a model serve worse than the keyless ones, and why.

    A title that leads to more other clusters before its own misleads whoever reads it, the router
    first; that is also how a model shows that it obeyed a passage instead of naming it. It may lead
    there where more held-out members are nearest to it: what says in a person's words what the
    members share can stand beside a neighbour's centroid. Each title is judged against the keyless
    ones of its neighbours, so what is said of one cluster decides nothing about another.

    Args:
        model_vectors: by row, (dim,) float32, unit length: titles of a model, encoded as queries.
        keyless_vectors: (k, dim) float32, unit length: the keyless titles of all clusters.
        centroids: (k, dim) float32, unit length, in the same order.
        heldout: by row, (m, dim) float32 vectors of members that no label was made from.

    Returns:
        The reason by row, of those that are worse.
    """
    proposed = keyless_vectors.copy()
    for row, vector in model_vectors.items():
        proposed[row] = vector
    keyless = score_titles(keyless_vectors, centroids, heldout)
    model = score_titles(proposed, centroids, heldout, rival_vectors=keyless_vectors)
    return {
        row: f"the title of the model finds this cluster as number {model[row].title_rank}, the "
        f"keyless one as number {keyless[row].title_rank}"
        for row in sorted(model_vectors)
        if _is_worse(model[row], keyless[row])
    }


def _is_worse(one: Faithfulness, other: Faithfulness) -> bool:
    is_nearer = (one.member_share or 0.0) > (other.member_share or 0.0)
    return one.title_rank > other.title_rank and not is_nearer


def pick_exemplars(
    vectors: np.ndarray,
    centroid: np.ndarray,
    *,
    n_central: int = 4,
    n_diverse: int = 4,
    n_edge: int = 2,
) -> Exemplars:
    """Picks members that show a cluster's core, its breadth and its border.

    The diverse ones are chosen by greedy facility location: each next one is the member that
    raises the similarity of all members to their nearest exemplar most.
    Source: Lin and Bilmes, A class of submodular functions for document summarization, ACL 2011.

    Args:
        vectors: (n, dim) float32, unit length; n a few hundred, time and memory are n².
        centroid: (dim,) float32, unit length.
        n_central: at most so many.
        n_diverse: at most so many.
        n_edge: at most so many.
    """
    order = np.argsort(-(vectors @ centroid), kind="stable")
    central = order[:n_central].tolist()
    edge = order[n_central:][::-1][:n_edge].tolist()
    similarities = vectors @ vectors.T  # (n, n)
    covered = similarities[central].max(axis=0, initial=-1.0)
    diverse: list[int] = []
    for _ in range(min(n_diverse, len(vectors) - len(central) - len(edge))):
        gains = np.maximum(similarities - covered, 0.0).sum(axis=1)
        gains[[*central, *edge, *diverse]] = -1.0
        diverse.append(int(gains.argmax()))
        covered = np.maximum(covered, similarities[diverse[-1]])
    return Exemplars(tuple(central), tuple(diverse), tuple(edge))

"""What the page of a pool's map shows: its points, their passages, and what these lie in.

Here it is decided what may be shown and how it is packed. `adapters.map_page` puts it into a file
with what draws it.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acidburn_assets.core import projection, schemas
from acidburn_assets.core.cluster_map import Card, ClusterMap, DatasetTerms, Group
from acidburn_assets.core.errors import SchemaError

BEGINNING_CHARS = 180
"""Of a passage. Chosen: three lines of the page's card."""

MAX_NAME_CHARS = 120
"""Of a document's title or id. Chosen."""

_STEPS = 65_535
"""Of the grid that points lie on, from edge to edge. At 1,000 pixels and the page's closest zoom
a step is a pixel."""

_REACH_PERCENTILE = 80
"""Of the distances to its anchor: how far a cluster reaches, its stragglers left out. Chosen."""

COLUMNS = ("chunk_id", "doc_id", "title", "text")
"""Of the chunks, that a page is made from."""


def describe(
    table: pa.Table,
    chunks: pa.Table,
    cluster_map: ClusterMap,
    datasets: Sequence[DatasetTerms],
    *,
    n_chunks: int,
    n_laid_out: int,
) -> bytes:
    """Everything that the page holds, as JSON.

    No text and no title of a document gets in whose dataset may not be redistributed, now or when
    the map was made: of such a chunk only its document's id, dataset and cluster.

    Args:
        table: (n,) rows of `schemas.PROJECTION`.
        chunks: (n,) the same chunks' `COLUMNS`, in the same order.
        cluster_map: of the pool.
        datasets: terms of every dataset of the table, as they are now.
        n_chunks: of the whole pool.
        n_laid_out: points that the layout itself placed; the others lie beside their nearest.

    Raises:
        SchemaError: the chunks are others than the table's, a coordinate is not finite, or a
            cluster or dataset is unknown, or a group lies in itself.
    """
    if not table["chunk_id"].equals(chunks["chunk_id"]):
        raise SchemaError(
            f"the map's {table.num_rows} points are not of the {chunks.num_rows} chunks given; "
            "take both from the same shards"
        )
    private = {terms.dataset for terms in cluster_map.datasets if not terms.may_redistribute_text}
    terms = {
        one.dataset: one.may_redistribute_text and one.dataset not in private for one in datasets
    }
    owners = _positions("dataset", table["dataset"], {name: i for i, name in enumerate(terms)})
    has_text = np.array(list(terms.values()), dtype=bool)[owners]  # (n,)
    grid = _on_grid(table)  # (n, 2) uint16
    is_noise = table["is_noise"].to_numpy()
    nodes, node_of = _nodes(table, grid, cluster_map)
    documents, document = _documents(chunks, has_text)
    content = {
        "pool": cluster_map.pool,
        "n_chunks": n_chunks,
        "n_laid_out": n_laid_out,
        "hues": projection.HUES,
        "datasets": [
            {"name": one.dataset, "licence": one.licence, "has_text": terms[one.dataset]}
            for one in datasets
        ],
        "nodes": nodes,
        "documents": documents,
        "beginnings": [
            _shorten(text, BEGINNING_CHARS) if is_shown else ""
            for text, is_shown in zip(_strings(chunks["text"]), has_text, strict=True)
        ],
        "points": {
            "x": _packed(grid[:, 0], "<u2"),
            "y": _packed(grid[:, 1], "<u2"),
            "node": _packed(_positions("cluster", table["cluster_id"], node_of), "<u4"),
            "is_noise": _packed(is_noise, "u1"),
            "dataset": _packed(owners, "<u2"),
            "document": _packed(document, "<u4"),
        },
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


OUTLINE_ID_BYTES = 6
"""Of a chunk's id in an outline: two of a map's 20,000 share them once in a million maps."""


def outline(table: pa.Table | None, cluster_map: ClusterMap) -> bytes:
    """What the search page draws beside an answer, as JSON: every cluster, and the map's points.

    No text of a passage and no name of a document is in it. A cluster's summary is, where it may be
    shown or where no dataset is quoted.

    Args:
        table: (n,) rows of `schemas.PROJECTION`; None where no map was made.
        cluster_map: of the pool; a point of a cluster that it does not have is left out, since the
            map is made after it.
    """
    private = {terms.dataset for terms in cluster_map.datasets if not terms.may_redistribute_text}
    known = {card.cluster_id: i for i, card in enumerate(cluster_map.cards)}
    table = schemas.PROJECTION.empty_table() if table is None else table
    table = table.filter(pc.is_in(table["cluster_id"], pa.array(list(known), pa.int32())))
    grid = _on_grid(table)  # (n, 2) uint16
    points = grid.astype(np.float64) / _STEPS
    places = projection.anchors(
        points, table["cluster_id"].to_numpy(), table["is_noise"].to_numpy()
    )
    hues = projection.far_apart_hues(places)
    ids = np.frombuffer(b"".join(table["chunk_id"].to_pylist()), dtype="u1").reshape(-1, 16)
    content = {
        "pool": cluster_map.pool,
        "hues": projection.HUES,
        "clusters": [
            {
                "cluster_id": card.cluster_id,
                "title": card.title,
                "summary": "" if card.summary_dataset in private else card.summary,
                "keywords": card.keywords,
                "n_chunks": card.size,
                "n_noise": card.n_noise,
                "hue": hues.get(card.cluster_id),
                "place": [round(one, 5) for one in places[card.cluster_id]]
                if card.cluster_id in places
                else None,
            }
            for card in cluster_map.cards
        ],
        "points": {
            "n": table.num_rows,
            "x": _packed(grid[:, 0], "<u2"),
            "y": _packed(grid[:, 1], "<u2"),
            "cluster": _packed(_positions("cluster", table["cluster_id"], known), "<u4"),
            "is_noise": _packed(table["is_noise"].to_numpy(), "u1"),
            "chunk": _packed(ids[:, :OUTLINE_ID_BYTES], "u1"),
        },
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _nodes(
    table: pa.Table, grid: np.ndarray, cluster_map: ClusterMap
) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """Clusters that are on the map and the groups above them; and each cluster's place therein."""
    points = grid.astype(np.float64) / _STEPS  # (n, 2)
    clusters, is_noise = table["cluster_id"].to_numpy(), table["is_noise"].to_numpy()
    present = set(np.unique(clusters).tolist())
    cards = [card for card in cluster_map.cards if card.cluster_id in present]
    by_id = {group.group_id: group for group in cluster_map.groups}
    groups = [by_id[one] for one in sorted({one for card in cards for one in _above(card, by_id)})]
    position = {group.group_id: i for i, group in enumerate(groups)}
    anchors = projection.anchors(points, clusters, is_noise)
    hues = projection.far_apart_hues(anchors)
    sizes = {card.cluster_id: card.size for card in cluster_map.cards}
    nodes = []
    for group in groups:
        is_inside = np.isin(clusters, group.clusters)
        own = points[is_inside & ~is_noise]
        nodes.append(
            {
                "title": group.title,
                "keywords": group.keywords,
                "size": sum(sizes[cluster] for cluster in group.clusters),
                "n_points": int(is_inside.sum()),
                "parent": None if group.parent is None else position[group.parent],
                "is_cluster": False,
                "hue": None,
                "place": _place(own, _anchor(own)),
            }
        )
    for card in cards:
        is_inside = clusters == card.cluster_id
        nodes.append(
            {
                "title": card.title,
                "keywords": card.keywords,
                "size": card.size,
                "n_points": int(is_inside.sum()),
                "parent": None if card.parent is None else position[card.parent],
                "is_cluster": True,
                "hue": hues.get(card.cluster_id),
                "place": _place(points[is_inside & ~is_noise], anchors.get(card.cluster_id)),
            }
        )
    return nodes, {card.cluster_id: len(groups) + i for i, card in enumerate(cards)}


def _above(card: Card, groups: Mapping[int, Group]) -> Iterator[int]:
    """Ids of the groups that a cluster lies in, nearest first."""
    seen: set[int] = set()
    parent = card.parent
    while parent is not None:
        if parent in seen:
            raise SchemaError(
                f"group {parent} of the cluster map lies in itself; materialize cluster_map again"
            )
        seen.add(parent)
        yield parent
        parent = groups[parent].parent


def _anchor(own: np.ndarray) -> tuple[float, float] | None:
    zeros = np.zeros(len(own), dtype=np.int32)
    return projection.anchors(own, zeros, zeros.astype(bool)).get(0)


def _place(own: np.ndarray, anchor: tuple[float, float] | None) -> dict[str, float] | None:
    """Where a name stands and how far around it the members lie; none where none is on the map."""
    if anchor is None:
        return None
    reach = np.percentile(np.hypot(*(own - anchor).T), _REACH_PERCENTILE)
    return {"x": round(anchor[0], 5), "y": round(anchor[1], 5), "reach": round(float(reach), 5)}


def _on_grid(table: pa.Table) -> np.ndarray:
    """(n, 2) uint16: the square around all points, in even steps."""
    points = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()]).astype(np.float64)
    if not np.isfinite(points).all():
        raise SchemaError("a point of the map is not finite; materialize the projection again")
    if not len(points):
        return points.astype(np.uint16)
    low, high = points.min(axis=0), points.max(axis=0)
    width = max(float((high - low).max()), 1e-9)
    steps = np.rint(((points - (low + high) / 2) / width + 0.5) * _STEPS)
    return np.asarray(steps, dtype=np.uint16)


def _documents(chunks: pa.Table, has_text: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of documents, each once, and (n,) which one a chunk is of."""
    names: dict[str, int] = {}
    rows = zip(_strings(chunks["doc_id"]), _strings(chunks["title"]), has_text, strict=True)
    of_chunk = [
        names.setdefault(
            _shorten(title if title and is_shown else doc_id, MAX_NAME_CHARS), len(names)
        )
        for doc_id, title, is_shown in rows
    ]
    return list(names), np.array(of_chunk, dtype=np.int64)


def _shorten(text: str, limit: int) -> str:
    """One line of at most `limit` characters, cut after a word where there is one to cut after."""
    line = " ".join(text[: 8 * limit].split())
    if len(line) <= limit:
        return line
    head, _, _ = line[:limit].rpartition(" ")
    return (head if len(head) > limit // 2 else line[: limit - 1]) + "…"


def _positions(kind: str, values: pa.ChunkedArray, known: Mapping[Any, int]) -> np.ndarray:
    """(n,) int64: what each value is known as."""
    encoded = values.combine_chunks().dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    unknown = sorted(set(distinct) - set(known))
    if unknown:
        raise SchemaError(
            f"{kind} {unknown[0]!r} is on the map, but not among the {len(known)} that are named; "
            "materialize the pool's cluster_map and projection again"
        )
    places = np.array([known[value] for value in distinct], dtype=np.int64)
    return np.asarray(places[encoded.indices.to_numpy(zero_copy_only=False)])


def _strings(column: pa.ChunkedArray) -> list[str]:
    return [str(value) for value in column.to_pylist()]


def _packed(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()

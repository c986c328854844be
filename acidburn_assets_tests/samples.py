"""Three small corpora and their registry, the same bytes in every process.

Six topics that no model confuses; a document is a few sentences of one topic, a long one is all of
them thrice and makes two chunks. `notes` and `articles` form the pool `library`, `manual` is a pool
of its own for verification.
"""

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TOPICS = {
    "bread": (
        "Sourdough bread rises because wild yeast feeds on the flour and gives off gas.",
        "Knead the dough until it is smooth and elastic, about ten minutes by hand.",
        "Let the loaf rest overnight in a cold place before you bake it.",
        "A hot oven with steam gives the crust its colour and its crackle.",
        "Wholemeal flour drinks more water than white flour does.",
        "Salt strengthens the gluten and slows the yeast down.",
        "Score the loaf with a sharp blade so that it opens where you want.",
        "Bread that is sliced while it is warm turns gummy.",
    ),
    "tides": (
        "The moon's gravity pulls the ocean into two bulges, and the tide rises under them.",
        "Spring tides come at new moon and full moon, when sun and moon pull together.",
        "A narrow bay can raise the tide to many times its height at sea.",
        "Neap tides are the weakest, seven days after the strongest.",
        "Harbours publish tables of high water and low water for every day.",
        "The ebb runs out for about six hours before the flood returns.",
        "Currents in a strait turn with the tide and can be faster than a boat.",
        "Friction of the tides slows the rotation of the earth.",
    ),
    "chess": (
        "Castling brings the king to safety and a rook towards the centre.",
        "A pawn that reaches the last rank is promoted, nearly always to a queen.",
        "The knight jumps over other pieces and attacks squares of the other colour.",
        "In the endgame the king becomes a strong piece and should march forward.",
        "A gambit gives up a pawn in the opening for quick development.",
        "Two bishops together are worth more than a bishop and a knight.",
        "Stalemate is a draw: the player to move has no legal move and is not in check.",
        "Grandmasters calculate few lines, but they judge positions well.",
    ),
    "roses": (
        "Prune roses at the end of winter, just above an outward facing bud.",
        "Climbing roses flower best when their shoots are trained sideways.",
        "Black spot is a fungus of the leaves, and it spreads by splashing rain.",
        "Feed the bushes with compost in spring and again after the first bloom.",
        "Roses want six hours of sun and soil that drains well.",
        "Remove faded blossoms so that the plant makes new buds.",
        "Aphids on young rose shoots are eaten by ladybirds.",
        "Old garden roses bloom once a year, and many of them are scented.",
    ),
    "files": (
        "Read a CSV file line by line when it does not fit into memory.",
        "Open text files with an explicit encoding, usually UTF-8.",
        "A parser must expect quoted fields that contain the delimiter.",
        "Columnar formats store each column together, so that a query reads only what it needs.",
        "Write to a temporary name and rename the file when it is complete.",
        "A checksum tells whether a file was damaged on its way.",
        "Compressed files cannot be entered in the middle without an index.",
        "The header row names the columns, and a schema gives them their types.",
    ),
    "violin": (
        "A violin is tuned in fifths, from the low G string to the high E string.",
        "Rosin on the bow hair makes it grip the strings.",
        "Vibrato is a small rocking of the finger that warms the note.",
        "The sound post stands inside the violin under the bridge.",
        "Beginners practise long slow bows to steady the tone.",
        "Spruce is used for the top plate and maple for the back.",
        "Pizzicato means that the player plucks the strings.",
        "The concertmaster leads the first violins of the orchestra.",
    ),
}

_DATASETS = {
    "notes": """
  - name: notes
    source: jsonl
    path: data/notes
    id_column: id
    title_column: title
    licence: CC0-1.0
    may_redistribute_text: true
    pool: library
    chunks_per_shard: 10
""",
    "articles": """
  - name: articles
    source: parquet
    path: data/articles.parquet
    id_column: id
    title_column: title
    licence: all rights reserved
    may_redistribute_text: false
    store_text: bucket
    pool: library
    chunks_per_shard: 8
""",
    "manual": """
  - name: manual
    source: text
    path: data/manual
    licence: MIT
    may_redistribute_text: true
    pool: reference
    tier: verification
    chunks_per_shard: 3
""",
}

_POOLS = {
    "library": "{min_cluster_size: 4, min_samples: 2}",
    "reference": "{min_cluster_size: 3, min_samples: 1}",
}

POOL_OF = {"notes": "library", "articles": "library", "manual": "reference"}

SHARDS = {
    "notes": ["000000", "000001"],
    "articles": ["000000", "000001", "000002"],
    "manual": ["000000", "000001", "000002", "000003"],
}

QUESTION = "how do I prune roses at the end of winter?"
ANSWER = TOPICS["roses"][0]


def text(topic: str, number: int) -> str:
    """The number-th document of a topic: three sentences in a row, or all of them thrice."""
    sentences = TOPICS[topic]
    if number == len(sentences):
        return " ".join(sentences * 3)
    return " ".join(sentences[(number + step) % len(sentences)] for step in range(3))


def documents(topics: Iterable[str], numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Rows with an id, a title and a text, topic after topic."""
    return [
        {
            "id": f"{topic}-{number}",
            "title": TOPICS[topic][number % len(TOPICS[topic])],
            "text": text(topic, number),
        }
        for topic in topics
        for number in numbers
    ]


def registry(names: Iterable[str] = SHARDS) -> str:
    """A datasets.yaml of some of the corpora; paths are relative to the current folder."""
    pools = dict.fromkeys(POOL_OF[name] for name in names)
    return (
        "datasets:"
        + "".join(_DATASETS[name] for name in names)
        + "\npools:\n"
        + "".join(f"  {pool}: {_POOLS[pool]}\n" for pool in pools)
    )


def write_world(folder: Path, names: Iterable[str] = SHARDS) -> None:
    """Writes `datasets.yaml` for some of the corpora, and `data/` for all of them."""
    (folder / "datasets.yaml").write_text(registry(names), encoding="utf-8")
    (folder / "data" / "notes").mkdir(parents=True)
    (folder / "data" / "manual").mkdir()
    # the long documents, from which clusters are quoted, are in both
    early, late = list(TOPICS)[:3], list(TOPICS)[3:]
    notes = documents(early, [0, 2, 4, 8]) + documents(late, [0, 2, 4, 6])
    articles = documents(early, [1, 3, 5, 7]) + documents(late, [1, 3, 5, 8])
    write_jsonl(folder / "data" / "notes" / "first.jsonl.gz", notes[::2])
    write_jsonl(folder / "data" / "notes" / "second.jsonl.gz", notes[1::2])
    write_parquet(folder / "data" / "articles.parquet", articles)
    for row in documents(["bread", "chess", "files"], [0, 1, 3, 6]):
        path = folder / "data" / "manual" / f"{row['id']}.md"
        path.write_text(row["text"] + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any] | bytes]) -> None:
    """One file, gzipped where its name says so; bytes are written as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    content = b"".join(line + b"\n" for line in lines)
    # mtime: the same rows are the same bytes whenever they are written
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """One file whose row groups hold eight rows each."""
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=8)

"""Where documents come from: one module per kind of source, behind one interface.

Here belongs reading: finding the pieces of a dataset, naming the state they are in, and turning
rows, lines, files and docstrings into `Document`s. What does not: which documents are kept
(`core.documents`), how units make shards (`core.shards`), what a dataset costs (`core.plan`).

A source is asked twice, often by two machines. The first plans: `revision()` and `units()`. The
second reads some of those units: `read()` checks each against its digest, so that a shard is made
of what was planned or not at all. Whoever reads opens the dataset at the plan's revision.

Nothing is dropped on the way: a row that cannot be read is a `Document` with a `problem`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from acidburn_assets.adapters.sources.huggingface import HuggingFaceSource
from acidburn_assets.adapters.sources.jsonl import JsonlSource
from acidburn_assets.adapters.sources.parquet import open_local
from acidburn_assets.adapters.sources.python_docs import PythonDocsSource
from acidburn_assets.adapters.sources.text import TextSource
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.documents import Document
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.core.shards import Unit


class Source(Protocol):
    """One dataset, ready to be planned or read.

    Every method may raise `SourceError` (a person must mend the dataset or its entry) and, where
    a hub is asked, `ServiceUnavailable` (try again later).
    """

    def revision(self) -> str:
        """The state of the content: the hub's commit sha, or a sha256 over what is on disk."""

    def units(self) -> list[Unit]:
        """All pieces in reading order, rows contiguous from 0; empty where there is no row."""

    def read(self, units: Sequence[Unit]) -> Iterator[Document]:
        """The documents of those units, lazily and in their order.

        Args:
            units: as planned; one whose `n_rows` was lowered gives just its first rows.

        Raises:
            SourceChanged: a piece is no longer what was planned.
        """

    def ids(self) -> Iterator[tuple[int, str]] | None:
        """(row, id) of every document, ids as `read` gives them; None where no `id_column` is
        declared, and rows or names are unique by themselves."""


def open_source(
    dataset: Dataset, *, cache: Path, hf_token: str = "", hub_endpoint: str | None = None
) -> Source:
    """Opens a dataset; reads nothing yet.

    Args:
        dataset: a path in it may be relative to the current folder or begin with `~`.
        cache: folder for files that a hub's dataset must be downloaded to.
        hf_token: Hugging Face token; "" asks the hub as nobody.
        hub_endpoint: another hub than https://huggingface.co.

    Raises:
        ConfigError: the entry sets something that its kind of source does not read.
    """
    _refuse_unread_fields(dataset)
    match dataset.source:
        case "huggingface":
            return HuggingFaceSource(dataset, cache=cache, token=hf_token, endpoint=hub_endpoint)
        case "parquet":
            return open_local(dataset)
        case "jsonl":
            return JsonlSource(dataset)
        case "text":
            return TextSource(dataset)
        case "python_docs":
            return PythonDocsSource(dataset)


_COLUMNS = frozenset({"id_column", "title_column"})
_READ_FIELDS = {
    "huggingface": _COLUMNS | {"path", "config"},
    "parquet": _COLUMNS | {"path"},
    "jsonl": _COLUMNS | {"path"},
    "text": frozenset({"path"}),
    "python_docs": frozenset({"packages", "include"}),
}


def _refuse_unread_fields(dataset: Dataset) -> None:
    """A field that has no effect is a mistake that nobody would see otherwise."""
    given = {
        "path": dataset.path,
        "config": dataset.config,
        "id_column": dataset.id_column,
        "title_column": dataset.title_column,
        "packages": dataset.filters.packages,
        "include": dataset.filters.include,
    }
    for field, setting in given.items():
        if setting and field not in _READ_FIELDS[dataset.source]:
            raise ConfigError(
                f"dataset {dataset.name!r}: source {dataset.source!r} does not read {field!r}; "
                "remove it from datasets.yaml"
            )

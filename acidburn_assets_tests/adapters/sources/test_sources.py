"""What every source that reads this machine promises, and what opening one refuses."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acidburn_assets.adapters.sources import open_source
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.errors import ConfigError, SourceChanged
from acidburn_assets_tests.adapters.sources.declared import declare

TEXTS = [f"text number {index}, with ü and 漢字" for index in range(2_300)]


def write_parquet(folder: Path) -> Dataset:
    for name, texts in (("b", TEXTS[1_000:]), ("a/part", TEXTS[:1_000])):
        place = folder / f"{name}.parquet"
        place.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"text": texts}), place, row_group_size=300)
    return declare("parquet", folder)


def write_jsonl(folder: Path) -> Dataset:
    for name, texts in (("b", TEXTS[1_000:]), ("a", TEXTS[:1_000])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(lines)
    return declare("jsonl", folder / "*.jsonl")


def write_jsonl_gz(folder: Path) -> Dataset:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (folder / "all.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return declare("jsonl", folder / "all.jsonl.gz")


def write_text(folder: Path) -> Dataset:
    for index, text in enumerate(TEXTS[:50]):
        place = folder / f"{index % 3}" / f"{index:03d}.txt"
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    return declare("text", folder)


def write_package(folder: Path) -> Dataset:
    return declare("python_docs", filters={"packages": ("json", "importlib")})


WRITERS = [write_parquet, write_jsonl, write_jsonl_gz, write_text, write_package]


@pytest.fixture(params=WRITERS, ids=lambda writer: writer.__name__.removeprefix("write_"))
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    folder = tmp_path / "dataset"
    folder.mkdir()
    writer: Callable[[Path], Dataset] = request.param
    return writer(folder)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[Dataset], Any]:
    return lambda dataset: open_source(dataset, cache=tmp_path / "cache")


def test_units_read_one_by_one_are_the_whole(dataset: Dataset, opened: Any) -> None:
    units = opened(dataset).units()
    documents = list(opened(dataset).read(units))
    assert len(units) > 1
    assert [document.row for document in documents] == list(range(len(documents)))
    assert all(document.problem is None and document.text for document in documents)
    assert len({document.doc_id for document in documents}) == len(documents)
    backwards = [list(opened(dataset).read([unit])) for unit in reversed(units)]
    assert [document for part in reversed(backwards) for document in part] == documents
    if dataset.source in ("parquet", "jsonl"):
        assert [document.text for document in documents] == TEXTS


def test_units_are_contiguous_and_name_no_machine(
    dataset: Dataset, opened: Any, tmp_path: Path
) -> None:
    row = 0
    for unit in opened(dataset).units():
        assert unit.first_row == row
        assert unit.n_rows > 0
        assert unit.n_bytes > 0
        assert str(tmp_path) not in unit.path
        assert not unit.path.startswith("/")
        row += unit.n_rows


def test_lowered_unit_reads_its_first_rows_only(dataset: Dataset, opened: Any) -> None:
    units = opened(dataset).units()
    first = max(units, key=lambda unit: unit.n_rows)
    n_rows = (first.n_rows + 1) // 2
    lowered = first.model_copy(update={"n_rows": n_rows})
    assert list(opened(dataset).read([lowered])) == list(opened(dataset).read([first]))[:n_rows]


def test_planning_twice_gives_the_same_plan(dataset: Dataset, opened: Any) -> None:
    first, second = opened(dataset), opened(dataset)
    assert first.revision() == second.revision()
    assert first.units() == second.units()


@pytest.mark.parametrize("writer", WRITERS[:4])
def test_moved_folder_is_the_same_dataset(
    writer: Callable[[Path], Dataset], opened: Any, tmp_path: Path
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here, there = writer(tmp_path / "here"), writer(tmp_path / "there")
    units = opened(here).units()
    assert [unit.path for unit in opened(there).units()] == [unit.path for unit in units]
    if writer is not write_jsonl_gz:  # gzip writes down when it was run; the lines are the same
        assert opened(there).revision() == opened(here).revision()
    assert list(opened(there).read(units)) == list(opened(here).read(units))


@pytest.mark.parametrize("writer", WRITERS[:4])
def test_deleted_file_is_a_change(
    writer: Callable[[Path], Dataset], opened: Any, tmp_path: Path
) -> None:
    dataset = writer(tmp_path)
    units = opened(dataset).units()
    (tmp_path / units[-1].path).unlink()
    with pytest.raises(SourceChanged, match=r"now gone.*acidburn materialize sample"):
        list(opened(dataset).read(units[-1:]))


def test_path_may_be_relative_or_begin_at_home(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a note")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("notes", "~/notes"):
        source = opened(declare("text", path))
        assert [document.text for document in source.read(source.units())] == ["a note"]


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        ("text", {"id_column": "key"}),
        ("parquet", {"config": "en"}),
        ("jsonl", {"filters": {"packages": ("numpy",)}}),
        ("python_docs", {"path": "docs"}),
    ],
)
def test_field_without_effect_is_refused(opened: Any, source: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"source '{source}' does not read"):
        opened(declare(source, **{"path": "x" if source != "python_docs" else "", **fields}))

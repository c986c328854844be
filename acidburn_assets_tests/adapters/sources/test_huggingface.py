import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acidburn_assets.adapters.sources import Source, open_source
from acidburn_assets.adapters.sources import parquet as parquet_source
from acidburn_assets.core.documents import Document
from acidburn_assets.core.errors import ServiceUnavailable, SourceChanged, SourceError
from acidburn_assets_tests.adapters.sources import hub as fake_hub
from acidburn_assets_tests.adapters.sources.declared import declare
from acidburn_assets_tests.adapters.sources.hub import Hub

NAME = "owner/things"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    # the client read HF_HUB_OFFLINE when it was imported; only its module can be told otherwise
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # its retries wait for up to half a minute
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with fake_hub.running() as hub:
        yield hub


@pytest.fixture
def opened(hub: Hub, tmp_path: Path) -> Any:
    def open_things(path: str = NAME, *, hf_token: str = "", **fields: Any) -> Source:
        dataset = declare("huggingface", path, **fields)
        return open_source(
            dataset, cache=tmp_path / "cache", hf_token=hf_token, hub_endpoint=hub.endpoint
        )

    return open_things


def parquet(texts: list[str], *, group_rows: int = 2) -> bytes:
    target = io.BytesIO()
    table = pa.table({"text": texts, "key": [f"k{text}" for text in texts]})
    pq.write_table(table, target, row_group_size=group_rows)
    return target.getvalue()


def json_lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text, "key": f"k{text}"}) + "\n" for text in texts).encode()


def incompressible(*, n_texts: int) -> list[str]:
    chance = np.random.default_rng(0)
    return [chance.bytes(25_000).hex() for _ in range(n_texts)]


def two_files() -> dict[str, bytes]:
    return {
        "README.md": b"# Things\n",
        "data/train-00000-of-00002.parquet": parquet(["a", "b", "c"]),
        "data/train-00001-of-00002.parquet": parquet(["d", "e", "f", "g"]),
        "data/test-00000-of-00001.parquet": parquet(["t"]),
    }


def test_parquet_files_are_read_by_row_group(hub: Hub, opened: Any) -> None:
    sha = hub.repository(NAME).push(two_files())
    source = opened(id_column="key")
    units = source.units()
    assert source.revision() == sha
    assert [(unit.path[:16], unit.index, unit.first_row, unit.n_rows) for unit in units] == [
        ("data/train-00000", 0, 0, 2),
        ("data/train-00000", 1, 2, 1),
        ("data/train-00001", 0, 3, 2),
        ("data/train-00001", 1, 5, 2),
    ]
    documents = list(source.read(units))
    assert [document.text for document in documents] == list("abcdefg")
    assert [document.row for document in documents] == list(range(7))
    assert list(source.ids()) == [(row, f"k{text}") for row, text in enumerate("abcdefg")]
    assert [d for unit in units for d in opened(id_column="key").read([unit])] == documents


def test_reading_a_row_group_fetches_ranges_and_not_the_file(hub: Hub, opened: Any) -> None:
    texts = incompressible(n_texts=40)
    content = parquet(texts)
    hub.repository(NAME).push({"train.parquet": content})
    unit = opened().units()[7]
    hub.sent_bytes = 0
    assert [document.text for document in opened().read([unit])] == texts[14:16]
    assert hub.sent_bytes < parquet_source.TAIL_BYTES + 1.5 * len(content) / 20


def test_planning_reads_footers_only(hub: Hub, opened: Any) -> None:
    content = parquet(incompressible(n_texts=40), group_rows=20)
    assert len(content) > 10 * parquet_source.TAIL_BYTES
    hub.repository(NAME).push({"train.parquet": content})
    assert len(opened().units()) == 2
    assert hub.sent_bytes == parquet_source.TAIL_BYTES


def test_json_lines_are_prepared_and_read_in_blocks(hub: Hub, opened: Any) -> None:
    texts = [f"text {index}" for index in range(2_500)]
    sha = hub.repository(NAME).push({"README.md": b"# Things\n", "train.jsonl": json_lines(texts)})
    source = opened(id_column="key")
    units = source.units()
    assert source.revision() == sha
    assert [(unit.first_row, unit.n_rows) for unit in units] == [
        (0, 1000),
        (1000, 1000),
        (2000, 500),
    ]
    documents = list(source.read(units))
    assert [document.text for document in documents] == texts
    assert list(source.ids()) == [(document.row, document.doc_id) for document in documents]
    assert list(opened(id_column="key").read(units[1:2])) == documents[1000:2000]
    part = units[2].model_copy(update={"n_rows": 3})
    assert list(source.read([part])) == documents[2000:2003]


def test_gzipped_lines_and_tables_are_prepared_inside_the_cache(
    hub: Hub, opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    hub.repository(NAME).push({"part/one.jsonl.gz": gzip.compress(json_lines(["a", "b"]))})
    hub.repository("owner/table").push({"train.csv": b"text,key\nc,kc\n,kd\n"})
    lines, table = opened(), opened("owner/table", id_column="key")
    assert [document.text for document in lines.read(lines.units())] == ["a", "b"]
    assert list(table.read(table.units())) == [
        Document(0, "kc", "", "c"),
        Document(1, "kd", "", "", "null"),
    ]
    assert not (tmp_path / "home").exists()


def test_configs_and_splits_of_the_card_decide_the_files(hub: Hub, opened: Any) -> None:
    card = (
        "---\nconfigs:\n"
        "- config_name: one\n  data_files:\n  - split: train\n    path: one/*.parquet\n"
        "- config_name: two\n  default: true\n  data_files:\n"
        "  - split: train\n    path: two/part.jsonl\n"
        "  - split: rest\n    path: two/rest.jsonl\n---\n"
    )
    files = {
        "README.md": card.encode(),
        "one/b.parquet": parquet(["b"]),
        "one/a.parquet": parquet(["a"]),
        "two/part.jsonl": json_lines(["p"]),
        "two/rest.jsonl": json_lines(["r"]),
    }
    hub.repository(NAME).push(files)
    one, default, rest = opened(config="one"), opened(), opened(config="two", split="rest")
    assert [document.text for document in one.read(one.units())] == ["a", "b"]
    assert [document.text for document in default.read(default.units())] == ["p"]
    assert [document.text for document in rest.read(rest.units())] == ["r"]
    with pytest.raises(SourceError, match="'three' not found"):
        opened(config="three").units()
    with pytest.raises(SourceError, match=r"no split 'rest'; it has \['train'\]"):
        opened(config="one", split="rest").units()


def test_a_plan_stays_readable_when_the_branch_moves(hub: Hub, opened: Any) -> None:
    first = hub.repository(NAME).push(two_files())
    source = opened()
    units = source.units()
    moved = two_files() | {"data/train-00001-of-00002.parquet": parquet(["D", "E", "F", "G"])}
    second = hub.repository(NAME).push(moved)
    assert opened().revision() == second
    pinned = opened(revision=first)
    assert [document.text for document in pinned.read(units)] == list("abcdefg")
    with pytest.raises(SourceChanged, match="acidburn materialize sample"):
        list(opened().read(units))
    gone = units[0].model_copy(update={"path": "data/gone.parquet"})
    with pytest.raises(SourceChanged, match="now gone"):
        list(pinned.read([gone]))


def test_prepared_rows_that_changed_are_refused(hub: Hub, opened: Any) -> None:
    hub.repository(NAME).push({"train.jsonl": json_lines(["a", "b"])})
    units = opened().units()
    hub.repository(NAME).push({"train.jsonl": json_lines(["a", "B"])})
    with pytest.raises(SourceChanged, match="'train'"):
        list(opened().read(units))


def test_gated_dataset_asks_for_a_token_and_the_terms(hub: Hub, opened: Any) -> None:
    hub.repository(NAME).push(two_files())
    hub.repository(NAME).is_gated = True
    with pytest.raises(SourceError, match=r"accept its terms .* HF_TOKEN"):
        opened().units()
    with pytest.raises(SourceError, match="HTTP 403") as refusal:
        opened(hf_token="hf_wrong").units()
    assert "hf_wrong" not in str(refusal.value)
    source = opened(hf_token=fake_hub.TOKEN)
    assert len(list(source.read(source.units()))) == 7


def test_token_of_the_machine_is_not_used(
    hub: Hub, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repository(NAME).push(two_files())
    hub.repository(NAME).is_gated = True
    monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
    with pytest.raises(SourceError, match="HTTP 401"):
        opened().units()


@pytest.mark.parametrize(
    ("path", "revision", "message"),
    [
        ("owner/absent", None, "does not exist; correct its path"),
        (NAME, "f" * 40, "has no revision 'ffff"),
        ("not a name", None, "must be owner/name"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    hub: Hub, opened: Any, path: str, revision: str | None, message: str
) -> None:
    hub.repository(NAME).push(two_files())
    with pytest.raises(SourceError, match=message):
        opened(path, revision=revision).revision()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("part", ["/revision/", "/tree/", "/resolve/"])
def test_busy_hub_is_worth_another_try(hub: Hub, opened: Any, status: int, part: str) -> None:
    hub.repository(NAME).push(two_files())
    hub.failures[part] = status
    with pytest.raises(ServiceUnavailable, match=f"HTTP {status}"):
        opened(revision="main").units()


def test_busy_hub_while_reading_is_worth_another_try(hub: Hub, opened: Any) -> None:
    hub.repository(NAME).push(two_files())
    units = opened().units()
    reading = opened().read(units)
    next(reading)
    hub.failures["/resolve/"] = 429
    with pytest.raises(ServiceUnavailable, match="HTTP 429"):
        list(reading)
    hub.failures = {"/tree/": 503}
    with pytest.raises(ServiceUnavailable, match="HTTP 503"):
        list(opened().read(units))


def test_cause_that_the_client_hides_is_found(
    hub: Hub, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused or lost request can surface as a missing file; nothing would be tried again."""
    # not at the top: the client reads HF_HUB_OFFLINE of whoever imports it first
    from huggingface_hub import HfApi, HfFileSystem
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    hub.repository(NAME).push(two_files())
    units = opened().units()
    request = httpx.Request("GET", hub.endpoint)
    busy = HfHubHTTPError("busy", response=httpx.Response(429, request=request))

    def raise_missing(cause: Exception) -> None:
        raise FileNotFoundError("no such file") from cause

    monkeypatch.setattr(HfFileSystem, "open", lambda *_, **__: raise_missing(busy))
    with pytest.raises(ServiceUnavailable, match="HTTP 429"):
        list(opened().read(units))
    lost = httpx.ConnectError("lost")
    monkeypatch.setattr(HfApi, "hf_hub_download", lambda *_, **__: raise_missing(lost))
    with pytest.raises(ServiceUnavailable, match="did not answer"):
        opened().units()


def test_silent_hub_is_worth_another_try(
    opened: Any, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "endpoint", "http://127.0.0.1:9")
    with pytest.raises(ServiceUnavailable, match="did not answer"):
        opened().revision()


def test_offline_mode_is_named(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE"):
        opened().revision()


def test_missing_column_names_those_that_are_there(hub: Hub, opened: Any) -> None:
    hub.repository(NAME).push(two_files())
    with pytest.raises(SourceError, match=r"column 'body'; it has \['text', 'key'\]"):
        opened(text_column="body").units()
    hub.repository("owner/lines").push({"train.jsonl": json_lines(["a"])})
    with pytest.raises(SourceError, match=r"column 'body'; it has \['text', 'key'\]"):
        opened("owner/lines", text_column="body").units()


def test_repository_without_data_is_refused(hub: Hub, opened: Any) -> None:
    hub.repository(NAME).push({"README.md": b"# Nothing\n"})
    with pytest.raises(SourceError, match="cannot be read by `datasets`"):
        opened().units()


def test_broken_lines_are_refused_when_prepared(hub: Hub, opened: Any) -> None:
    hub.repository(NAME).push({"train.jsonl": b'{"text": "a"}\n{"text": \n'})
    with pytest.raises(SourceError, match="cannot be read by `datasets`"):
        opened().units()


def test_dataset_script_points_to_the_conversion(hub: Hub, opened: Any) -> None:
    hub.repository(NAME).push({"things.py": b"raise SystemExit\n", "raw.txt": b"x\n"})
    with pytest.raises(SourceError, match="refs/convert/parquet"):
        opened().units()
    hub.repository(NAME).push(
        {"default/train/0000.parquet": parquet(["a"])}, branch="refs/convert/parquet"
    )
    source = opened(revision="refs/convert/parquet")
    assert [document.text for document in source.read(source.units())] == ["a"]

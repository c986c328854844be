"""A registry is taken whole or refused with the place that must be mended."""

from typing import Any

import pytest

from acidburn_assets.core.datasets import Filters, PoolSettings, Registry, parse_registry
from acidburn_assets.core.errors import ConfigError

BOOKS: dict[str, Any] = {
    "name": "books",
    "source": "huggingface",
    "path": "owner/books",
    "licence": "CC0",
    "may_redistribute_text": True,
    "pool": "knowledge",
}
FORUM: dict[str, Any] = {
    "name": "forum",
    "source": "jsonl",
    "path": "forum/*.jsonl",
    "licence": "CC BY-SA 4.0",
    "may_redistribute_text": False,
    "pool": "checks",
    "tier": "verification",
}


def parse(*entries: Any, pools: Any = None) -> Registry:
    content: dict[str, Any] = {"datasets": list(entries)}
    if pools is not None:
        content["pools"] = pools
    return parse_registry(content, origin="datasets.yaml")


def refusal_of(*entries: Any, pools: Any = None) -> str:
    with pytest.raises(ConfigError) as raised:
        parse(*entries, pools=pools)
    return str(raised.value)


def test_datasets_form_the_pools_that_they_name() -> None:
    papers = {**BOOKS, "name": "papers"}
    registry = parse(BOOKS, FORUM, papers, pools={"knowledge": {"min_cluster_size": 50}})
    assert list(registry.datasets) == ["books", "forum", "papers"]
    assert registry.pool("knowledge").datasets == ("books", "papers")
    assert registry.pool("knowledge").settings == PoolSettings(min_cluster_size=50)
    assert registry.pool("checks").settings == PoolSettings()
    assert registry.pool("checks").tier == "verification"


def test_nested_settings_are_read() -> None:
    registry = parse({**BOOKS, "filters": {"max_documents": 5}, "chunk": {"target_tokens": 256}})
    assert registry.dataset("books").filters == Filters(max_documents=5)
    assert registry.dataset("books").chunk.target_tokens == 256


def test_a_dataset_may_belong_to_no_pool() -> None:
    registry = parse({**BOOKS, "pool": None, "tier": "none"})
    assert registry.pools == {}


def test_an_empty_registry_is_one() -> None:
    assert parse() == Registry(datasets={}, pools={})


def test_an_unknown_name_names_those_that_are_known() -> None:
    registry = parse(BOOKS)
    with pytest.raises(ConfigError, match=r"no dataset 'book'; .*\['books'\]"):
        registry.dataset("book")
    with pytest.raises(ConfigError, match=r"no pool 'books'; .*\['knowledge'\]"):
        registry.pool("books")


@pytest.mark.parametrize("content", [None, [], {}, {"datasets": {}}, {"datasets": None}, "text"])
def test_content_without_a_list_of_datasets_is_refused(content: Any) -> None:
    with pytest.raises(ConfigError, match="must be a mapping with a list `datasets`"):
        parse_registry(content, origin="datasets.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "dataset 'books' has the unknown key 'colour'; known are ['automation', '"),
        ({"filters": {"max": 1}}, "dataset 'books', filters has the unknown key 'max'"),
        ({"filters": [1]}, "dataset 'books', filters must be a mapping, not list"),
        ({"chunk": {"target_tokens": 1}}, "chunk, target_tokens: Input should be greater"),
        ({"name": "My-Books"}, "name 'My-Books' must match"),
        ({"name": 7}, "dataset number 1, name: "),
        ({"source": "ftp"}, "dataset 'books', source: Input should be"),
        ({"path": ""}, "source 'huggingface' needs a path"),
        ({"pool": None}, "one without has tier none"),
        ({"tier": "none"}, "one without has tier none"),
        ({"pool": "Knowledge"}, "pool 'Knowledge' must match"),
        ({"pool": "books"}, "'books' names a dataset and a pool"),
        ({"budget_usd": -1}, "dataset 'books', budget_usd: "),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place(change: dict[str, Any], message: str) -> None:
    refusal = refusal_of({**BOOKS, **change})
    assert refusal.startswith("datasets.yaml: ")
    assert message in refusal


def test_what_is_required_is_named() -> None:
    entry = {key: value for key, value in BOOKS.items() if key != "licence"}
    assert "dataset 'books', licence: Field required" in refusal_of(entry)


def test_an_entry_that_is_no_mapping_is_refused() -> None:
    assert "dataset number 2 must be a mapping, not str" in refusal_of(BOOKS, "books")


def test_two_datasets_of_one_name_are_refused() -> None:
    assert "two datasets are named 'books'" in refusal_of(BOOKS, BOOKS)


def test_a_pool_never_mixes_tiers() -> None:
    refusal = refusal_of(BOOKS, {**FORUM, "pool": "knowledge"})
    assert "pool 'knowledge' mixes tiers" in refusal
    assert "'forum': 'verification'" in refusal


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ({"other": {}}, "no dataset belongs to the pool 'other'"),
        ({"knowledge": {"k": 1}}, "pool 'knowledge' has the unknown key 'k'"),
        ({"knowledge": {"min_samples": 0}}, "pool 'knowledge', min_samples: "),
        ({"knowledge": [1]}, "pool 'knowledge' must be a mapping, not list"),
        (["knowledge"], "`pools` must map"),
    ],
)
def test_wrong_pool_settings_are_refused(pools: Any, message: str) -> None:
    assert message in refusal_of(BOOKS, pools=pools)


def test_pools_left_empty_have_the_defaults() -> None:
    assert parse(BOOKS, pools={"knowledge": None}).pool("knowledge").settings == PoolSettings()


def test_texts_that_may_not_be_passed_on_stay_in_the_bucket_unless_it_is_said() -> None:
    registry = parse(
        BOOKS,
        FORUM,
        {**FORUM, "name": "club", "store_text": "postgres"},
        {**BOOKS, "name": "tomes", "store_text": "bucket"},
    )
    found = {name: dataset.store_text for name, dataset in registry.datasets.items()}
    assert found == {
        "books": "postgres",
        "forum": "bucket",
        "club": "postgres",
        "tomes": "bucket",
    }

"""Settings made into objects: which back end they name, and what is opened only once."""

from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from acidburn_assets import settings
from acidburn_assets.adapters import encoder as encoders
from acidburn_assets.adapters import sources
from acidburn_assets.adapters.object_store import open_store
from acidburn_assets.adapters.object_store.file import FileStore
from acidburn_assets.adapters.object_store.s3 import S3Store
from acidburn_assets.core.answers import Card
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.runtime import backends
from acidburn_assets_tests.adapters import embedding_service
from acidburn_assets_tests.label_service import Service, always, completion

HUB = Dataset(
    name="books", source="huggingface", path="someone/books", licence="MIT",
    may_redistribute_text=True, tier="none",
)  # fmt: skip


def configured(monkeypatch: pytest.MonkeyPatch, **variables: str) -> settings.Settings:
    """Settings of an environment that holds just these."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return settings.load()


def test_the_store_is_a_folder_in_the_home_where_nothing_else_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = backends.open_store(configured(monkeypatch, ACIDBURN_HOME=str(tmp_path)))
    assert isinstance(store, FileStore)
    assert store.url == (tmp_path / "objects").as_uri()


@pytest.mark.parametrize(
    ("named", "url"), [("", "s3://corpus"), ("s3://other/prefix", "s3://other/prefix")]
)
def test_a_bucket_is_the_store_unless_a_store_is_named(
    monkeypatch: pytest.MonkeyPatch, named: str, url: str
) -> None:
    store = backends.open_store(
        configured(
            monkeypatch,
            B2_BUCKET="corpus",
            B2_KEY_ID="id",
            B2_APP_KEY="secret",
            B2_ENDPOINT="https://s3.us-west-004.backblazeb2.com",
            ACIDBURN_STORE=named,
        )
    )
    assert isinstance(store, S3Store)
    assert store.url == url


def test_a_bucket_without_its_key_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="B2_KEY_ID"):
        backends.open_store(configured(monkeypatch, B2_BUCKET="corpus"))


@pytest.mark.parametrize(
    ("variables", "where"),
    [
        (
            {"ACIDBURN_POSTGRES": "postgresql://me:pw@db.example.org:5433/corpus"},
            "db.example.org:5433/corpus as me",
        ),
        (
            {
                "SUPABASE_HOST": "aws-0-eu-central-1.pooler.supabase.com",
                "SUPABASE_USER": "postgres.abc",
                "SUPABASE_PASSWORD": "p@ss/word#1",
            },
            "aws-0-eu-central-1.pooler.supabase.com:5432/postgres as postgres.abc",
        ),
        (
            {"ACIDBURN_POSTGRES": "host=one dbname=corpus user=me", "SUPABASE_HOST": "two"},
            "one:5432/corpus as me",
        ),
    ],
)
def test_a_dsn_wins_over_supabase(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], where: str
) -> None:
    postgres = backends.connect_postgres(configured(monkeypatch, **variables))
    assert postgres.where == where


def test_opening_brings_the_tables_up_to_date(monkeypatch: pytest.MonkeyPatch, dsn: str) -> None:
    postgres = backends.open_postgres(configured(monkeypatch, ACIDBURN_POSTGRES=dsn))
    with postgres.connect(purpose="looking") as connection:
        found = connection.execute("select to_regclass('acidburn.chunk_embeddings')").fetchone()
    assert found != (None,)


def test_a_hub_is_read_at_the_planned_revision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[Dataset] = []
    monkeypatch.setattr(sources, "open_source", lambda dataset, **_: opened.append(dataset))
    backends._source.cache_clear()
    current = configured(monkeypatch, ACIDBURN_HOME=str(tmp_path))
    backends.open_source(current, HUB)
    backends.open_source(current, HUB, revision="0123abc")
    files = HUB.model_copy(update={"source": "jsonl", "path": "books.jsonl"})
    backends.open_source(current, files, revision="0123abc")
    backends._source.cache_clear()
    assert [dataset.revision for dataset in opened] == [None, "0123abc", None]


def test_a_source_is_opened_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    current = configured(monkeypatch, ACIDBURN_HOME=str(tmp_path))
    assert backends.open_source(current, HUB) is backends.open_source(current, HUB)


def test_a_model_is_loaded_once_and_is_the_one_described(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current = settings.load()
    encoder = backends.load_encoder(current)
    assert backends.load_encoder(settings.load()) is encoder
    assert encoder.card == backends.describe_model(current)
    assert backends.load_tokenizer(current).max_tokens == encoder.card.max_tokens


def test_a_server_makes_the_vectors_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    minilm = encoders.load_encoder("minilm", device="cpu", dtype="float32")
    with embedding_service.running(minilm, "minilm", "all-MiniLM-L6-v2") as service:
        service.key = "emb-5ecr3t"
        current = configured(
            monkeypatch,
            ACIDBURN_EMBEDDINGS_URL=service.url,
            ACIDBURN_EMBEDDINGS_KEY="emb-5ecr3t",
            ACIDBURN_EMBEDDINGS_MODEL="all-MiniLM-L6-v2",
            ACIDBURN_EMBEDDINGS_BATCH="4",
        )
        encoder = backends.load_encoder(current)
        assert backends.load_encoder(settings.load()) is encoder
        assert encoder.card == backends.describe_model(current)
        long = "word " * 254
        assert encoder.encode([long], "document").n_tokens == 256
        service.requests.clear()
        encoder.encode(["one"] * 10, "document")
        assert sorted(len(body["input"]) for body in service.requests) == [2, 4, 4]
        assert backends.describe_device(current).startswith(f"{service.url}: 'all-MiniLM-L6-v2' ")
        assert "emb-5ecr3t" not in repr(current)
    backends._server_encoder.cache_clear()


def test_a_password_in_the_server_s_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="put the key into ACIDBURN_EMBEDDINGS_KEY") as refused:
        configured(monkeypatch, ACIDBURN_EMBEDDINGS_URL="http://me:5ecr3t@127.0.0.1:1/v1")
    assert "5ecr3t" not in str(refused.value)


def test_there_is_no_labeler_without_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    assert backends.make_labeler(settings.load(), store, "library") is None
    labeler = backends.make_labeler(
        configured(monkeypatch, XAI_API_KEY="xai-key", ACIDBURN_LABEL_MODEL="grok-4.5"),
        store,
        "library",
    )
    assert labeler is not None
    assert labeler.model == "grok-4.5"
    assert "xai-key" not in repr(labeler)


def test_there_is_no_advisor_without_a_key_or_dollars(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACIDBURN_HOME", str(tmp_path / "home"))
    assert backends.open_advisor(settings.load()) is None
    current = configured(monkeypatch, XAI_API_KEY="xai-key", ACIDBURN_LABEL_MODEL="grok-4.5")
    advisor = backends.open_advisor(current)
    assert advisor is not None
    assert advisor.model == "grok-4.5"
    assert "xai-key" not in repr((advisor, vars(advisor)))
    named = backends.open_advisor(configured(monkeypatch, ACIDBURN_ASK_MODEL="grok-4.7"))
    assert named is not None
    assert named.model == "grok-4.7"
    assert backends.open_advisor(configured(monkeypatch, ACIDBURN_ASK_BUDGET_USD="0")) is None
    assert not (tmp_path / "home").exists()


def test_a_model_that_is_not_known_is_asked_where_its_price_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACIDBURN_HOME", str(tmp_path))
    store = open_store(tmp_path.as_uri())
    current = configured(monkeypatch, XAI_API_KEY="xai-key", ACIDBURN_LABEL_MODEL="qwen3-32b")
    for open_model in (
        lambda current: backends.make_labeler(current, store, "library"),
        backends.open_advisor,
    ):
        with pytest.raises(ConfigError, match=r"'qwen3-32b'.*ACIDBURN_PRICES"):
            open_model(current)
    priced = configured(monkeypatch, ACIDBURN_PRICES="qwen3*=0.1/0.1/0.3")
    assert backends.make_labeler(priced, store, "library") is not None
    assert backends.open_advisor(priced) is not None


def test_an_advisor_keeps_its_answers_in_the_store_and_its_spending_in_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service = Service()
    with closing(service):
        service.behave = always(completion('{"clusters": ["c01"]}'))
        current = configured(
            monkeypatch,
            ACIDBURN_HOME=str(tmp_path),
            XAI_API_KEY="xai-key",
            ACIDBURN_LABEL_BASE_URL=service.url,
        )
        for is_cached in (False, True):
            advisor = backends.open_advisor(current)
            assert advisor is not None
            with closing(advisor):
                picked = advisor.pick("why?", [Card(7, "Masks", "", [])], cap_usd=0.1)
            assert picked.cluster_ids == (7,)
            assert [call.is_cached for call in picked.calls] == [is_cached]
        assert len(service.requests) == 1
        listed = [listed.key for listed in backends.open_store(current).list("")]
        assert len(listed) == 1
        assert listed[0].startswith("_answers/")
        assert len(list((tmp_path / "spending").glob("????-??-??.jsonl"))) == 1
        assert backends.open_spending(current).spent_usd() == pytest.approx(0.001)


def test_answers_are_kept_as_objects_of_their_pool(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri(), app_key=SecretStr(""))
    cache = backends.ObjectCache(store, "library/labels")
    assert cache.get("abc") is None
    cache.put("abc", b"{}")
    assert cache.get("abc") == b"{}"
    assert store.get_bytes("library/labels/abc.json") == b"{}"


def test_what_labels_cost_is_noted_until_they_are_put_to_use(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri(), app_key=SecretStr(""))
    journal = backends.label_journal(store, "library")
    backends.ObjectCache(store, "library/labels").put("abc", b"{}")
    journal.put("000001", b"two")
    journal.put("000000", b"one")
    assert list(journal.read()) == [b"one", b"two"]
    journal.put("000002", b"three")
    journal.remove("000002")
    assert len(list(journal.read())) == 2
    journal.clear()
    assert list(journal.read()) == []
    assert [listed.key for listed in store.list("library/")] == ["library/labels/abc.json"]

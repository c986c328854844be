"""Settings made into the plain objects that do the work: the one place that composes them.

Dagster's resources, the commands and the query engine all come through here, so that a setting
means the same everywhere. Nothing is opened before it is asked for, and what is dear to open (a
model, an embedded server, the scan of a dataset) is opened once per process.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pydantic import SecretStr

from acidburn_assets.adapters import (
    embedded_postgres,
    embedding_server,
    encoder_pool,
    object_store,
    sources,
)
from acidburn_assets.adapters import encoder as encoders
from acidburn_assets.adapters import tokenizer as tokenizers
from acidburn_assets.adapters.advisor import PaidAdvisor
from acidburn_assets.adapters.chunker import Chunker
from acidburn_assets.adapters.embedding_server import Server
from acidburn_assets.adapters.encoder import Dtype
from acidburn_assets.adapters.labeler import Labeler
from acidburn_assets.adapters.language_model import LanguageModel, read_prices
from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.adapters.postgres import Postgres, conninfo_from_parts, migrate
from acidburn_assets.adapters.sources import Source
from acidburn_assets.adapters.spending import Spending
from acidburn_assets.core import keys
from acidburn_assets.core.chunks import Tokenizer
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.embeddings import Encoder, ModelCard
from acidburn_assets.settings import Settings

PATIENCE_SECONDS = 1_800
"""How long a bucket that does not answer is tried again by work that can wait."""

TERMINAL_PATIENCE_SECONDS = 60
"""The same where a person waits for one answer at a terminal. Chosen, not measured."""

SERVICE_PATIENCE_SECONDS = 10
"""The same where a service answers many. Chosen, not measured."""


def open_store(settings: Settings, *, patience_seconds: float = PATIENCE_SECONDS) -> ObjectStore:
    """The object store that the settings name.

    Args:
        settings: URL, endpoint and keys.
        patience_seconds: how long a bucket that fails is tried again; half an hour outlasts the
            maintenance of a vault.
    """
    return object_store.open_store(
        settings.store_url,
        endpoint=settings.b2_endpoint,
        key_id=settings.b2_key_id,
        app_key=settings.b2_app_key,
        patience_seconds=patience_seconds,
    )


_LOCAL = ("parquet", "jsonl", "text")
"""Sources whose path is one of this machine."""


def open_source(settings: Settings, dataset: Dataset, *, revision: str | None = None) -> Source:
    """One dataset where it is published.

    Args:
        settings: for the cache folder and the hub's token.
        dataset: entry of the registry.
        revision: that was planned; a hub is read at exactly this commit.
    """
    if revision is not None and dataset.source == "huggingface":
        dataset = dataset.model_copy(update={"revision": revision})
    if dataset.source in _LOCAL:
        # beside the registry, wherever the command or Dagster's process was started
        beside = settings.acidburn_datasets.resolve().parent
        path = str(beside / Path(dataset.path).expanduser())
        dataset = dataset.model_copy(update={"path": path})
    return _source(dataset, settings.home / "cache", settings.hf_token.get_secret_value())


@lru_cache(maxsize=32)
def _source(dataset: Dataset, cache: Path, token: str) -> Source:
    # what a source found is kept for the process: read() still checks every unit's digest
    return sources.open_source(dataset, cache=cache, hf_token=token)


def describe_model(settings: Settings) -> ModelCard:
    """Facts of the embedding model, without loading it."""
    return _card(
        settings.acidburn_model,
        settings.acidburn_model_revision,
        settings.hf_token.get_secret_value(),
    )


@lru_cache(maxsize=4)
def _card(model: str, revision: str, token: str) -> ModelCard:
    return encoders.describe_model(model, revision=revision, hf_token=token)


def load_tokenizer(settings: Settings) -> Tokenizer:
    """The embedding model's own tokenizer, without the model."""
    return _tokenizer(
        settings.acidburn_model,
        settings.acidburn_model_revision,
        settings.hf_token.get_secret_value(),
    )


@lru_cache(maxsize=4)
def _tokenizer(model: str, revision: str, token: str) -> Tokenizer:
    return tokenizers.load_tokenizer(model, revision=revision, hf_token=token)


def open_chunker(settings: Settings) -> Chunker:
    """The tokenizer in as many processes as cut documents; whoever opens it closes it."""
    return Chunker(load_tokenizer(settings), n_processes=settings.acidburn_chunk_processes)


def load_encoder(settings: Settings) -> Encoder:
    """The embedding model, loaded onto its devices or found on its server, once per process."""
    token = settings.hf_token.get_secret_value()
    model, revision = settings.acidburn_model, settings.acidburn_model_revision
    if settings.acidburn_embeddings_url:
        return _server_encoder(
            model, revision, _server(settings), settings.acidburn_batch_tokens, token
        )
    return _encoder(
        model,
        revision,
        settings.acidburn_device,
        settings.acidburn_dtype,
        settings.acidburn_batch_tokens,
        token,
    )


@lru_cache(maxsize=1)
def _encoder(
    model: str, revision: str, device: str, dtype: Dtype, batch_tokens: int, token: str
) -> Encoder:
    return encoder_pool.load_encoders(
        model,
        revision=revision,
        device=device,
        dtype=dtype,
        batch_tokens=batch_tokens,
        hf_token=token,
    )


@lru_cache(maxsize=1)
def _server_encoder(
    model: str, revision: str, server: Server, batch_tokens: int, token: str
) -> Encoder:
    return embedding_server.load_encoder(
        model, server, revision=revision, batch_tokens=batch_tokens, hf_token=token
    )


def _server(settings: Settings) -> Server:
    return Server(
        settings.acidburn_embeddings_url,
        settings.acidburn_embeddings_model or settings.acidburn_model,
        settings.acidburn_embeddings_key,
        batch_inputs=settings.acidburn_embeddings_batch,
        n_requests=settings.acidburn_embeddings_requests,
    )


def describe_device(settings: Settings) -> str:
    """What vectors are made on, for a person: a device of this machine, or a server that answers.

    Raises:
        ModelError: there is no such device, or the server has another model.
        ConfigError, ServiceUnavailable: see `embedding_server.describe_server`.
    """
    if not settings.acidburn_embeddings_url:
        return encoders.describe_device(settings.acidburn_device)
    return embedding_server.describe_server(
        settings.acidburn_model,
        _server(settings),
        revision=settings.acidburn_model_revision,
        hf_token=settings.hf_token.get_secret_value(),
    )


def connect_postgres(settings: Settings) -> Postgres:
    """The database that the settings name, as it is; an embedded one is started."""
    if settings.is_postgres_embedded:
        server = _embedded(settings.home / "postgres")
        return Postgres(SecretStr(server.dsn))
    if settings.acidburn_postgres.get_secret_value():
        return Postgres(settings.acidburn_postgres)
    return Postgres(
        conninfo_from_parts(
            host=settings.supabase_host,
            port=settings.supabase_port,
            dbname=settings.supabase_db,
            user=settings.supabase_user,
            password=settings.supabase_password,
            sslmode=settings.supabase_sslmode,
            sslrootcert=settings.supabase_sslrootcert,
        )
    )


def open_postgres(settings: Settings) -> Postgres:
    """The database that the settings name, its schema up to date."""
    postgres = connect_postgres(settings)
    _migrate_once(postgres)
    return postgres


@lru_cache(maxsize=4)
def _embedded(folder: Path) -> embedded_postgres.EmbeddedPostgres:
    # stopped when this process ends, unless another uses it still
    return embedded_postgres.start(folder)


_migrated: set[str] = set()


def _migrate_once(postgres: Postgres) -> None:
    if postgres.where not in _migrated:
        migrate(postgres)
        _migrated.add(postgres.where)


class ObjectCache:
    """Answers kept as objects under one prefix, by content address."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def get(self, key: str) -> bytes | None:
        """The content, or None where there is none."""
        name = f"{self._prefix}/{key}.json"
        return self._store.get_bytes(name) if self._store.head(name) is not None else None

    def put(self, key: str, content: bytes) -> None:
        """Keeps the content."""
        self._store.put_bytes(f"{self._prefix}/{key}.json", content)


class ObjectJournal:
    """What attempts to label spent, as objects under one prefix, until it is cleared."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def read(self) -> Iterator[bytes]:
        """Every page, ordered by name."""
        for listed in self._store.list(f"{self._prefix}/"):
            yield self._store.get_bytes(listed.key)

    def put(self, name: str, content: bytes) -> None:
        """Keeps a page in place of the one of that name."""
        self._store.put_bytes(f"{self._prefix}/{name}.json", content)

    def remove(self, name: str) -> None:
        """Forgets one page."""
        self._store.delete(f"{self._prefix}/{name}.json")

    def clear(self) -> None:
        """Forgets all pages."""
        for listed in list(self._store.list(f"{self._prefix}/")):
            self._store.delete(listed.key)


def label_journal(store: ObjectStore, pool: str) -> ObjectJournal:
    """What was spent on labels of a pool since its map was last stored."""
    return ObjectJournal(store, f"{pool}/labels/begun")


def make_labeler(settings: Settings, store: ObjectStore, pool: str) -> Labeler | None:
    """The language model that labels clusters, or None without a key.

    Args:
        settings: key, model and budget.
        store: where answers are cached.
        pool: whose clusters are labelled; each pool has its own cache.
    """
    if not settings.xai_api_key.get_secret_value():
        return None
    return Labeler(
        settings.xai_api_key,
        base_url=settings.acidburn_label_base_url,
        model=settings.acidburn_label_model,
        budget_usd=settings.acidburn_label_budget_usd,
        cache=ObjectCache(store, f"{pool}/labels"),
        journal=label_journal(store, pool),
        prices=read_prices(settings.acidburn_prices),
    )


def open_spending(settings: Settings) -> Spending:
    """What the answers of a day cost, of all who answer from this state folder."""
    return Spending(
        settings.home / "spending",
        usd_per_day=settings.acidburn_ask_budget_usd,
        setting="ACIDBURN_ASK_BUDGET_USD",
    )


def open_advisor(settings: Settings, store: ObjectStore | None = None) -> PaidAdvisor | None:
    """The language model that advises the query engine, or None without a key or a budget.

    Nothing is sent yet. Whoever opens it closes it.

    Args:
        settings: key, model, budget and patience.
        store: where answers are cached; None: the one that the settings name.

    Raises:
        ConfigError: the URL cannot be used, or no price is known for the model.
    """
    if not settings.xai_api_key.get_secret_value() or not settings.acidburn_ask_budget_usd:
        return None
    if store is None:
        store = open_store(settings, patience_seconds=TERMINAL_PATIENCE_SECONDS)
    return PaidAdvisor(
        LanguageModel(
            settings.xai_api_key,
            base_url=settings.acidburn_label_base_url,
            model=settings.ask_model,
            model_setting=(
                "ACIDBURN_ASK_MODEL" if settings.acidburn_ask_model else "ACIDBURN_LABEL_MODEL"
            ),
            prices=read_prices(settings.acidburn_prices),
            timeout_seconds=settings.acidburn_ask_review_seconds,
        ),
        cache=ObjectCache(store, keys.ANSWERS_FOLDER.removesuffix("/")),
        spending=open_spending(settings),
        pick_seconds=settings.acidburn_ask_pick_seconds,
        review_seconds=settings.acidburn_ask_review_seconds,
    )

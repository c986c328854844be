"""Dagster resources: typed, visible configuration, and `create()` that gives a plain object.

Secrets are never resource configuration: they would be shown by the UI and stored with the run.
`create()` takes them from the settings of the process it runs in.
"""

import dagster as dg
from pydantic import Field, PrivateAttr

from acidburn_assets import settings
from acidburn_assets.adapters.chunker import Chunker
from acidburn_assets.adapters.labeler import Labeler
from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.adapters.postgres import Postgres
from acidburn_assets.adapters.sources import Source
from acidburn_assets.core.chunks import Tokenizer
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.embeddings import Encoder, ModelCard
from acidburn_assets.runtime import backends


class StoreResource(dg.ConfigurableResource[ObjectStore]):
    """The bucket, or the folder that stands in for it."""

    url: str
    patience_seconds: float = backends.PATIENCE_SECONDS

    def create(self) -> ObjectStore:
        """The store at `url`."""
        configured = settings.load().model_copy(update={"acidburn_store": self.url})
        return backends.open_store(configured, patience_seconds=self.patience_seconds)


class SourcesResource(dg.ConfigurableResource[None]):
    """Reads datasets where they are published."""

    def create(self, dataset: Dataset, *, revision: str | None = None) -> Source:
        """The source of one dataset, at the planned revision where one is given."""
        return backends.open_source(settings.load(), dataset, revision=revision)


class EncoderResource(dg.ConfigurableResource[Encoder]):
    """The embedding model and its tokenizer."""

    model: str
    revision: str
    device: str
    dtype: str
    batch_tokens: int
    server_url: str = ""
    """Of the server that makes the vectors; empty: they are made here."""
    server_model: str = ""
    server_batch: int = Field(32, ge=1)
    server_requests: int = Field(8, ge=1)

    def create(self) -> Encoder:
        """Loads the model, or asks the server for it: seconds to minutes, once per process."""
        return backends.load_encoder(self._settings())

    def card(self) -> ModelCard:
        """Facts of the model, read without loading it."""
        return backends.describe_model(self._settings())

    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer, without the model."""
        return backends.load_tokenizer(self._settings())

    def _settings(self) -> settings.Settings:
        return settings.load().model_copy(
            update={
                "acidburn_model": self.model,
                "acidburn_model_revision": self.revision,
                "acidburn_device": self.device,
                "acidburn_dtype": self.dtype,
                "acidburn_batch_tokens": self.batch_tokens,
                "acidburn_embeddings_url": self.server_url,
                "acidburn_embeddings_model": self.server_model,
                "acidburn_embeddings_batch": self.server_batch,
                "acidburn_embeddings_requests": self.server_requests,
            }
        )


class ChunkerResource(dg.ConfigurableResource[Chunker]):
    """What cuts documents; its processes live as long as the run."""

    model: str
    revision: str
    processes: int
    _chunker: Chunker | None = PrivateAttr(None)

    def create(self) -> Chunker:
        """The run's chunker, the tokenizer loaded once."""
        if self._chunker is None:
            self._chunker = backends.open_chunker(
                settings.load().model_copy(
                    update={
                        "acidburn_model": self.model,
                        "acidburn_model_revision": self.revision,
                        "acidburn_chunk_processes": self.processes,
                    }
                )
            )
        return self._chunker

    def teardown_after_execution(self, _: dg.InitResourceContext) -> None:
        """Ends the processes, however the run ended."""
        if self._chunker is not None:
            self._chunker.close()
            self._chunker = None


class PostgresResource(dg.ConfigurableResource[Postgres]):
    """Where passages are served from."""

    target: str
    """Shown only: which Postgres the settings name, without credentials."""

    def create(self) -> Postgres:
        """The database, its schema up to date; an embedded one is started when first asked for."""
        return backends.open_postgres(settings.load())


class LabelerResource(dg.ConfigurableResource[Labeler]):
    """The LLM that upgrades keyless labels, where there is a key."""

    model: str
    base_url: str
    budget_usd: float

    def create(self, store: ObjectStore, pool: str) -> Labeler | None:
        """The labeler of one pool, or None without a key; answers are cached in the store."""
        return backends.make_labeler(
            settings.load().model_copy(
                update={
                    "acidburn_label_model": self.model,
                    "acidburn_label_base_url": self.base_url,
                    "acidburn_label_budget_usd": self.budget_usd,
                }
            ),
            store,
            pool,
        )

"""The only reader of the environment and of `.env`.

Every name is documented in `deploy/env.example`, and a test holds the two together. Secrets are
`SecretStr`: their repr is masked, and they are unwrapped only where a client is made.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from acidburn_assets.core import datasets
from acidburn_assets.core.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parents[1]


class Settings(BaseSettings):
    """What a person can set. Empty means: the embedded default."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # it may be a secret
    )

    # where things are
    acidburn_home: Path = Path(".acidburn")
    """State folder of the embedded defaults: objects, Postgres, Dagster's records, caches."""
    acidburn_datasets: Path = PROJECT_ROOT / "deploy" / "datasets.yaml"
    """The registry of datasets and pools."""

    # object store; empty: file://<acidburn_home>/objects
    acidburn_store: str = ""
    """`file:///…` or `s3://bucket/prefix`; empty with a B2_BUCKET means `s3://B2_BUCKET`."""
    b2_key_id: str = ""
    b2_app_key: SecretStr = SecretStr("")
    b2_endpoint: str = ""
    """`https://s3.<region>.backblazeb2.com`, as shown beside the bucket."""
    b2_bucket: str = ""

    # Postgres; empty: an embedded Postgres under <acidburn_home>/postgres
    acidburn_postgres: SecretStr = SecretStr("")
    """A DSN (`postgresql://…` or `host=… dbname=…`); wins over SUPABASE_*."""
    supabase_host: str = ""
    supabase_port: int = 5432
    supabase_db: str = "postgres"
    supabase_user: str = "postgres"
    supabase_password: SecretStr = SecretStr("")
    supabase_sslmode: Literal["require", "verify-ca", "verify-full"] = "require"
    supabase_sslrootcert: str = ""

    # chunks
    acidburn_chunk_processes: int = Field(0, ge=0, le=61)
    """Processes that cut documents into chunks, in each run that does; 0: as many as there are
    cores, 8 at most. Chunks do not depend on it."""

    # encoder
    acidburn_model: str = "minilm"
    """`minilm`: all-MiniLM-L6-v2 from the package; otherwise a sentence-transformers model, for
    example BAAI/bge-m3, or a folder that holds one."""
    acidburn_model_revision: str = ""
    acidburn_device: str = "auto"
    """`auto` (all GPUs, else the CPU), `cpu`, `mps`, `cuda` (all GPUs), or some GPUs:
    `cuda:0,cuda:1`."""
    acidburn_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the matrix products; `auto`: the fastest that the device is made for and that agrees."""
    acidburn_batch_tokens: int = Field(0, ge=0)
    """Most tokens of a batch; 0: as many as the device is best with."""
    acidburn_usd_per_hour: float = Field(0.0, ge=0)
    """What the machine that embeds costs, so that embeddings tell what they cost."""
    hf_token: SecretStr = SecretStr("")
    acidburn_embeddings_url: str = ""
    """Of a server with `/v1/embeddings` (TEI, vLLM, infinity), up to and with /v1; empty: vectors
    are made here."""
    acidburn_embeddings_key: SecretStr = SecretStr("")
    acidburn_embeddings_model: str = ""
    """What the server calls the model; empty: ACIDBURN_MODEL."""
    acidburn_embeddings_batch: int = Field(32, ge=1)
    """Most texts of a request."""
    acidburn_embeddings_requests: int = Field(8, ge=1)
    """Most requests at once."""

    # labels; empty key: keyless labels
    xai_api_key: SecretStr = SecretStr("")
    acidburn_label_base_url: str = "https://api.x.ai/v1"
    acidburn_label_model: str = "grok-4.3"
    acidburn_label_budget_usd: float = Field(5.0, ge=0)
    """Labelling stops before a call could pass this."""
    acidburn_prices: str = ""
    """Of models that are not known, or by now cost something else: see `read_prices`."""

    # answers; no key: passages alone, nothing is written from them
    acidburn_ask_model: str = ""
    """That picks clusters and reviews passages; empty: ACIDBURN_LABEL_MODEL."""
    acidburn_ask_usd_per_question: float = Field(0.1, ge=0)
    """No call is sent that could pass this for its question."""
    acidburn_ask_budget_usd: float = Field(2.0, ge=0)
    """No call is sent that could pass this in one day of UTC; 0: none ever is."""
    acidburn_ask_pick_seconds: float = Field(4.0, gt=0)
    """How long a question waits for the model to pick clusters; then it goes without."""
    acidburn_ask_review_seconds: float = Field(30.0, gt=0)
    """The same for the review of its passages."""

    # healing
    acidburn_healing_seconds: int = Field(15, ge=5)
    """Between two looks at the whole graph."""
    acidburn_listing_seconds: float = Field(300.0, ge=0)
    """Between two listings of a bucket, which are billed: 10 listings a look are 1.7 million a
    month at 15 seconds, and 86,000 at five minutes."""
    acidburn_retry_seconds: float = Field(60.0, gt=0)
    """Before a refused partition is tried a second time; four times as long before the third."""
    acidburn_part_seconds: float = Field(60.0, ge=0)
    """Work inside a shard of embeddings that a killed run loses at most, besides a window's."""
    acidburn_cpu_runs: int = Field(1, ge=1)
    acidburn_gpu_runs: int = Field(1, ge=1)
    acidburn_postgres_runs: int = Field(2, ge=1)
    """Most runs at once that chunk or cluster, embed, load."""

    # serve
    acidburn_serve_token: SecretStr = SecretStr("")
    """What callers of `acidburn serve` must know; empty: nobody beyond this machine is let in."""
    acidburn_serve_hosts: str = ""
    """Names that the service is called by, with commas between them, besides this machine's own;
    empty and beyond loopback: any."""
    acidburn_serve_proxies: str = ""
    """Addresses of reverse proxies whose X-Forwarded-For is believed, with commas between them."""
    acidburn_serve_body_bytes: int = Field(65_536, ge=1_024)
    """Of a request. Chosen: the longest question with every letter escaped is half of it."""
    acidburn_serve_question_chars: int = Field(4_000, ge=1, le=4_000)
    """The engine takes no more; the model's own limit holds too."""
    acidburn_serve_per_minute: int = Field(60, ge=0)
    """Questions of one client, at most, and so many at once where it was silent; 0: any number.
    Chosen: more than a person reads."""
    acidburn_serve_at_once: int = Field(4, ge=1)
    """Questions that are worked on at once. Chosen: one search holds one connection to Postgres
    and one core of it."""
    acidburn_serve_waiting: int = Field(64, ge=0)
    """Questions that wait for their turn, at most; the next are refused. Chosen: on two busy cores
    the last one then waits four seconds."""
    acidburn_serve_timeout_seconds: float = Field(60.0, gt=0)
    """After which a caller is told that it took too long, its waiting counted. Chosen: as long as
    one search in Postgres may take."""
    acidburn_serve_scanned: int = Field(100_000, ge=1)
    """Passages that one question may be compared with at first, whatever it asks for; up to eight
    times as many where these are not sure to answer. Chosen: five times what is looked at
    unasked."""
    acidburn_serve_refresh_seconds: float = Field(15.0, gt=0)
    """Between two looks whether a pool was made anew. Chosen: five heads of objects and one
    query for each pool and each that verifies it; of two pools 1.7 million heads a month, which
    cost 0.70 USD at B2."""

    @field_validator("acidburn_device")
    @classmethod
    def _is_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda|cuda:\d+(,cuda:\d+)*", device):
            raise ValueError("it must be auto, cpu, mps, cuda, or GPUs such as cuda:0,cuda:1")
        return device

    @field_validator("acidburn_embeddings_url")
    @classmethod
    def _has_no_password(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise ValueError("URLs are shown, put the key into ACIDBURN_EMBEDDINGS_KEY")
        return url

    @property
    def pool_limits(self) -> dict[str, int]:
        """Most runs at once of every concurrency pool."""
        return {
            "cpu": self.acidburn_cpu_runs,
            "gpu": self.acidburn_gpu_runs,
            "supabase": self.acidburn_postgres_runs,
            "labels": 1,  # its budget is counted within one run
        }

    @property
    def ask_model(self) -> str:
        """The model that advises the query engine."""
        return self.acidburn_ask_model or self.acidburn_label_model

    @property
    def home(self) -> Path:
        """State folder, absolute."""
        return self.acidburn_home.resolve()

    @property
    def dagster_home(self) -> Path:
        """Where Dagster keeps its runs and events."""
        return self.home / "dagster"

    @property
    def store_url(self) -> str:
        """URL of the object store in use."""
        if self.acidburn_store:
            return self.acidburn_store
        if self.b2_bucket:
            return f"s3://{self.b2_bucket}"
        return (self.home / "objects").as_uri()

    @property
    def is_postgres_embedded(self) -> bool:
        """True where neither ACIDBURN_POSTGRES nor SUPABASE_HOST is set."""
        return not self.acidburn_postgres.get_secret_value() and not self.supabase_host

    @property
    def postgres_target(self) -> str:
        """Which Postgres, in words and without credentials."""
        if self.acidburn_postgres.get_secret_value():
            return "the DSN in ACIDBURN_POSTGRES"
        if self.supabase_host:
            return f"{self.supabase_host}:{self.supabase_port}/{self.supabase_db}"
        return f"embedded, {self.home / 'postgres'}"

    @cached_property
    def registry(self) -> datasets.Registry:
        """The parsed datasets.yaml.

        Raises:
            ConfigError: the file is missing, not YAML, or not a registry.
        """
        path = self.acidburn_datasets
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(
                f"no registry at {str(path)!r}; set ACIDBURN_DATASETS to your datasets.yaml"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{str(path)!r} is not YAML: {error}") from error
        return datasets.parse_registry(content, origin=path.name)


def load() -> Settings:
    """Reads the environment, then `.env` in the current folder.

    Raises:
        ConfigError: a variable has a value that cannot be used; the value itself is not shown,
            it may be a secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0]).upper() if first["loc"] else "the environment"
        raise ConfigError(f"{name}: {first['msg']}; see deploy/env.example") from error

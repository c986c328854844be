"""The registry: which datasets there are, how each is read, and which pools they form.

Pure: `settings` finds the YAML file and hands its parsed content to `parse_registry`.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from acidburn_assets.core import keys
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.core.records import Record

Tier = Literal["knowledge", "verification", "none"]

Automation = Literal["manual", "approve", "all"]
"""What happens unasked. manual: nothing. approve: the dataset is planned and priced, then waits
for a person to begin; from then on what was begun is finished, what is lost is made again, and what
follows from it is made, but a new revision, chunker or model waits for a person. all: everything,
within the dataset's budget. (Not `off`, which YAML reads as false.)"""

RESERVED = "encoder"
"""Owner of the node that stands for the embedding model; no dataset or pool may be named so."""

_Model = TypeVar("_Model", bound=BaseModel)


class Filters(Record):
    """Which documents of a dataset are looked at."""

    max_document_bytes: int = Field(32 * 2**20, ge=1)
    """A larger document is skipped and counted. Chosen: ten times the longest book in print."""
    max_documents: int | None = Field(None, ge=1)
    """Stop after so many documents, for a trial run. None: all."""
    packages: tuple[str, ...] = ()
    """`python_docs` only: top-level packages to read; empty with `include` left out means all."""
    include: tuple[Literal["stdlib", "topics"], ...] = ()
    """`python_docs` only: the standard library's docstrings, the language reference."""


class ChunkSizes(Record):
    """Sizes in tokens of the embedding model's own tokenizer."""

    target_tokens: int | None = Field(None, ge=16)
    """None: 2,048, or what the model can read when that is less."""
    overlap_tokens: int | None = Field(None, ge=0)
    """None: a tenth of the target, 200 at most."""


class Dataset(Record):
    """One entry of datasets.yaml."""

    name: str
    source: Literal["huggingface", "parquet", "jsonl", "text", "python_docs"]
    path: str = ""
    """huggingface: `owner/name`; parquet, jsonl: a file or a glob; text: a folder. Relative paths
    begin at the registry's own folder."""
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    """huggingface: commit sha, tag or branch; resolved to a sha when the dataset is planned."""
    text_column: str = "text"
    id_column: str | None = None
    """None: a row's position is its id."""
    title_column: str | None = None
    licence: str
    may_redistribute_text: bool
    """False: texts never leave the owner's bucket and database through an export."""
    pool: str | None = None
    tier: Tier = "knowledge"
    store_text: Literal["postgres", "bucket"] = "postgres"
    """Where a search finds the texts. Left out: in Postgres where they may be redistributed, and in
    the bucket, read passage by passage, where they may not: others may be let into a database."""
    filters: Filters = Filters()
    chunk: ChunkSizes = ChunkSizes()
    chunks_per_shard: int = Field(50_000, ge=1)
    budget_usd: float = Field(10.0, ge=0)
    """Planned cost above this blocks the dataset until a person raises it."""
    automation: Automation = "approve"

    @model_validator(mode="before")
    @classmethod
    def _keep_locked_texts_in_the_bucket(cls, entry: Any) -> Any:
        is_locked = isinstance(entry, Mapping) and entry.get("may_redistribute_text") is False
        return {"store_text": "bucket", **entry} if is_locked else entry

    @model_validator(mode="after")
    def _is_consistent(self) -> "Dataset":
        if not keys.NAME.fullmatch(self.name):
            raise ValueError(
                f"name {self.name!r} must match {keys.NAME.pattern} (it becomes asset keys)"
            )
        if self.source != "python_docs" and not self.path:
            raise ValueError(f"source {self.source!r} needs a path")
        if (self.tier == "none") != (self.pool is None):
            raise ValueError(
                "a dataset with a pool has tier knowledge or verification; "
                f"one without has tier none (pool={self.pool!r}, tier={self.tier!r})"
            )
        return self


class FitSettings(Record):
    """What the clusters of a pool depend on, in HDBSCAN's own terms."""

    engine: Literal["graph_hdbscan", "hdbscan", "kmeans"] = "graph_hdbscan"
    min_cluster_size: int = Field(100, ge=2)
    min_samples: int = Field(20, ge=1)
    sample_rows: int = Field(200_000, ge=10)
    """Vectors the model is fitted on at most; memory is bounded by it."""
    seed: int = Field(0, ge=0, lt=2**32)
    n_clusters: int | None = Field(None, ge=1)
    """`kmeans` only."""
    cell_chunks: int | None = Field(None, ge=1)
    """Chunks of a cell, on average. None: few in small pools, more in large ones, see
    `cells.cells_wanted`."""


class PoolSettings(FitSettings):
    """How the datasets of a pool are clustered, and when anew."""

    refit: Literal["propose", "drift", "always"] = "propose"
    """What happens when the pool changes. Its clusters of now take in what is new; propose: they
    stay, and a check says when they do not fit any more; drift: then they are found anew; always:
    they are found anew with every change."""

    def of_fit(self) -> FitSettings:
        """Those that clusters depend on."""
        return FitSettings.model_validate(self.model_dump(include=set(FitSettings.model_fields)))


class Pool(Record):
    """Datasets that are clustered together in one space."""

    name: str
    tier: Literal["knowledge", "verification"]
    settings: PoolSettings
    datasets: tuple[str, ...]
    automation: Automation = "approve"
    """The most cautious of its datasets'."""


class Registry(Record):
    """Every dataset and pool, by name."""

    datasets: dict[str, Dataset]
    pools: dict[str, Pool]

    def dataset(self, name: str) -> Dataset:
        """The dataset of that name.

        Raises:
            ConfigError: there is none; names those that are.
        """
        if name not in self.datasets:
            raise ConfigError(f"no dataset {name!r}; datasets.yaml has {sorted(self.datasets)}")
        return self.datasets[name]

    def pool(self, name: str) -> Pool:
        """The pool of that name.

        Raises:
            ConfigError: there is none; names those that are.
        """
        if name not in self.pools:
            raise ConfigError(f"no pool {name!r}; datasets.yaml has {sorted(self.pools)}")
        return self.pools[name]

    def choose_pool(self, name: str | None) -> Pool:
        """The pool of that name; without a name the only knowledge pool.

        Raises:
            ConfigError: there is none of that name, or none or several to choose from.
        """
        if name is not None:
            return self.pool(name)
        knowledge = [pool for pool in self.pools.values() if pool.tier == "knowledge"]
        if len(knowledge) != 1:
            raise ConfigError(f"say --pool: datasets.yaml has the pools {sorted(self.pools)}")
        return knowledge[0]


def parse_registry(content: Any, *, origin: str) -> Registry:
    """Checks the parsed YAML and makes the registry.

    Args:
        content: `{"datasets": [{…}, …], "pools": {name: {…}}}`.
        origin: the file's name, for errors.

    Raises:
        ConfigError: names the entry, the key and the keys that are known.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("datasets"), list):
        raise ConfigError(f"{origin}: the top level must be a mapping with a list `datasets`")
    _refuse_unknown(content, {"datasets", "pools"}, place="the top level", origin=origin)
    datasets: dict[str, Dataset] = {}
    for position, entry in enumerate(content["datasets"]):
        place = f"dataset {_name_of(entry, position)}"
        dataset = _parse(Dataset, entry, place=place, origin=origin)
        if dataset.name in datasets:
            raise ConfigError(f"{origin}: two datasets are named {dataset.name!r}; rename one")
        datasets[dataset.name] = dataset
    settings = content.get("pools") or {}
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{origin}: `pools` must map a pool's name to its settings")
    members: dict[str, list[Dataset]] = {}
    for dataset in datasets.values():
        if dataset.pool is not None:
            members.setdefault(dataset.pool, []).append(dataset)
    for name in settings:
        if name not in members:
            raise ConfigError(
                f"{origin}: no dataset belongs to the pool {name!r}; "
                f"datasets name the pools {sorted(members)}"
            )
    pools = {
        name: _make_pool(name, group, settings.get(name) or {}, origin=origin)
        for name, group in sorted(members.items())
    }
    for name in (*pools, *datasets):
        if name == RESERVED:
            raise ConfigError(f"{origin}: {RESERVED!r} is the embedding model's own; rename it")
    for name in pools:
        if name in datasets:
            raise ConfigError(f"{origin}: {name!r} names a dataset and a pool; rename one")
    return Registry(datasets=datasets, pools=pools)


_CAUTION: tuple[Automation, ...] = ("manual", "approve", "all")


def _make_pool(name: str, group: list[Dataset], settings: Any, *, origin: str) -> Pool:
    if not keys.NAME.fullmatch(name):
        raise ConfigError(f"{origin}: pool {name!r} must match {keys.NAME.pattern}")
    tiers = {dataset.tier for dataset in group}
    if len(tiers) > 1:
        names = {dataset.name: dataset.tier for dataset in group}
        raise ConfigError(
            f"{origin}: pool {name!r} mixes tiers {names}; "
            "a verification dataset is never clustered with knowledge, give it a pool of its own"
        )
    return Pool.model_validate(
        {
            "name": name,
            "tier": tiers.pop(),
            "settings": _parse(PoolSettings, settings, place=f"pool {name!r}", origin=origin),
            "datasets": tuple(dataset.name for dataset in group),
            "automation": min((dataset.automation for dataset in group), key=_CAUTION.index),
        }
    )


def _parse(model: type[_Model], entry: Any, *, place: str, origin: str) -> _Model:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{origin}: {place} must be a mapping, not {type(entry).__name__}")
    _refuse_unknown(entry, set(model.model_fields), place=place, origin=origin)
    for key in entry:
        nested = model.model_fields[key].annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel) and entry[key] is not None:
            _parse(nested, entry[key], place=f"{place}, {key}", origin=origin)
    try:
        return model.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        field = f", {where}" if where else ""
        raise ConfigError(
            f"{origin}: {place}{field}: {first['msg'].removeprefix('Value error, ')}"
        ) from error


def _refuse_unknown(entry: Mapping[str, Any], known: set[str], *, place: str, origin: str) -> None:
    unknown = sorted(set(map(str, entry)) - known)
    if unknown:
        raise ConfigError(
            f"{origin}: {place} has the unknown key {unknown[0]!r}; known are {sorted(known)}"
        )


def _name_of(entry: Any, position: int) -> str:
    if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
        return repr(entry["name"])
    return f"number {position + 1}"

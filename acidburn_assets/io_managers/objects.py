"""Assets that are objects in the bucket: Arrow tables as Parquet, records as JSON or arrays.

What a downstream asset gets is lazy for tables (`Tables`: nothing is read until asked, one shard
at a time) and the parsed record for records.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Protocol, Self

import dagster as dg
import pyarrow as pa

from acidburn_assets.adapters import object_store
from acidburn_assets.adapters.object_store import ListedObject, ObjectInfo, ObjectStore
from acidburn_assets.core import keys, schemas
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.cluster_model import ClusterModel
from acidburn_assets.core.errors import NotMaterialized, ObjectCorrupt, ObjectMissing
from acidburn_assets.core.manifest import Manifest
from acidburn_assets.core.plan import Plan
from acidburn_assets.core.retrieval_report import RetrievalReport
from acidburn_assets.io_managers.base import AssetIOManager, Made, Stored
from acidburn_assets.resources import StoreResource

_MADE_FROM = "made-from"
_CONTENT_VERSION = "content-version"
_SCHEMA = "schema-version"
_FIGURES = "figures"
_ROWS = "rows"

Metadata = Callable[[], dict[str, str]]


class Batches(NamedTuple):
    """A table as an asset hands it over: written while it is made."""

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
    column_encoding: Mapping[str, str] | None = None
    after_store: Callable[[], None] | None = None  # called when the table is stored


class StoredRecord(Protocol):
    """What `RecordIOManager` stores: bytes of its own, equal for equal records."""

    def to_bytes(self) -> bytes: ...
    def content_version(self) -> str: ...
    @classmethod
    def from_bytes(cls, content: bytes, *, key: str) -> Self: ...


RECORDS: Mapping[str, tuple[type[StoredRecord], str]] = {
    "plan": (Plan, ".json"),
    "manifest": (Manifest, ".json"),
    "cluster_model": (ClusterModel, ".npz"),
    "cluster_map": (ClusterMap, ".json"),
    "retrieval_report": (RetrievalReport, ".json"),
}
"""Type and file suffix of every record, by asset name."""


class Tables:
    """The shards of one upstream asset (or its only table), read when asked for."""

    def __init__(self, store: ObjectStore, key: dg.AssetKey) -> None:
        self._store = store
        self._key = key

    def object_key(self, partition: str | None) -> str:
        """Where that shard lies in the bucket."""
        return _object_key(self._key, partition, ".parquet")

    def read(self, partition: str | None, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole shard, its checksum verified.

        Raises:
            NotMaterialized: it has not been made, or is gone.
        """
        self.info(partition)
        return object_store.read_table(self._store, self.object_key(partition), columns)

    def batches(
        self, partition: str | None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The shard in bounded memory, page checksums verified.

        Raises:
            NotMaterialized: it has not been made, or is gone.
        """
        self.info(partition)
        yield from object_store.iter_batches(self._store, self.object_key(partition), columns)

    def info(self, partition: str | None) -> ObjectInfo:
        """Size, checksum and metadata of the shard's object.

        Raises:
            NotMaterialized: it has not been made, or is gone.
        """
        return _info(self._store, self._key, self.object_key(partition))


class ObjectIOManager(AssetIOManager):
    """What Parquet and records share: keys, fingerprints and figures of an object."""

    def __init__(self, objects: ObjectStore) -> None:
        super().__init__(objects)
        self.is_listing_billed = not objects.url.startswith("file:")

    def object_key(self, key: dg.AssetKey, partition: str | None) -> str:
        """Where this asset is stored."""
        raise NotImplementedError

    def write(self, object_key: str, value: Any, metadata: Metadata) -> ObjectInfo:
        """Writes the value under the key; the metadata is asked for when the value is complete."""
        raise NotImplementedError

    def store(
        self,
        key: dg.AssetKey,
        partition: str | None,
        made: Made,
        *,
        made_from: str,
        run_id: str,
        is_forced: bool,  # noqa: ARG002 - an object is always replaced
    ) -> Stored:
        def metadata() -> dict[str, str]:
            figures = made.figures() if callable(made.figures) else made.figures
            # what other assets read of a shard must be there though no event says it
            plain = {name: value for name, value in figures.items() if _is_plain(value)}
            return {
                _MADE_FROM: made_from,
                _SCHEMA: str(schemas.SCHEMA_VERSION),
                _FIGURES: json.dumps(plain),
                "run-id": run_id,
            }

        return self._stored(self.write(self.object_key(key, partition), made.value, metadata))

    def stored(self, key: dg.AssetKey, partition: str | None) -> Stored | None:
        info = self.objects.head(self.object_key(key, partition))
        return None if info is None else self._stored(info)

    def listed(self, key: dg.AssetKey) -> Mapping[str | None, str]:
        return {partition: listed.etag for partition, listed in self._list(key)}

    def sizes(self, key: dg.AssetKey) -> Mapping[str | None, int]:
        return {partition: listed.n_bytes for partition, listed in self._list(key)}

    def discard_if_damaged(self, key: dg.AssetKey, partition: str | None) -> bool:
        return self.discard_corrupt(self.object_key(key, partition))

    def _list(self, key: dg.AssetKey) -> Iterator[tuple[str | None, ListedObject]]:
        whole = self.object_key(key, None)
        suffix = PurePosixPath(whole).suffix
        folder = whole.removesuffix(suffix)
        for listed in self.objects.list(folder):
            if listed.key == whole or listed.key.startswith(f"{folder}/"):
                yield _partition(listed.key, folder, suffix), listed

    def is_intact(self, key: dg.AssetKey, partition: str | None) -> bool:
        try:
            self.objects.verify(self.object_key(key, partition))
        except (ObjectCorrupt, ObjectMissing):
            return False
        return True

    def _stored(self, info: ObjectInfo) -> Stored:
        figures = {
            **json.loads(info.metadata.get(_FIGURES, "{}")),
            "bytes": info.n_bytes,
            "sha256": info.sha256,
            "uri": dg.MetadataValue.url(self.objects.uri(info.key)),
        }
        if _ROWS in info.metadata:
            figures["rows"] = int(info.metadata[_ROWS])
        version = info.metadata.get(_CONTENT_VERSION, info.sha256)
        return Stored(version, info.metadata.get(_MADE_FROM, ""), info.etag, figures)


class ParquetIOManager(ObjectIOManager):
    """Tables: `D/chunks/000012.parquet`, `P/centroids.parquet`."""

    def object_key(self, key: dg.AssetKey, partition: str | None) -> str:
        return _object_key(key, partition, ".parquet")

    def write(self, object_key: str, value: Any, metadata: Metadata) -> ObjectInfo:
        table: Batches = value
        n_rows = 0

        def counted() -> Iterator[pa.RecordBatch]:
            nonlocal n_rows
            for batch in table.batches:
                n_rows += batch.num_rows
                yield batch

        info, _ = object_store.write_parquet(
            self.objects,
            object_key,
            table.schema,
            counted(),
            metadata=lambda: {**metadata(), _ROWS: str(n_rows)},
            column_encoding=table.column_encoding,
        )
        if table.after_store is not None:
            table.after_store()
        return info

    def load_input(self, context: dg.InputContext) -> Tables:
        return Tables(self.objects, context.asset_key)


class RecordIOManager(ObjectIOManager):
    """Records: `D/plan.json`, `P/cluster_model.npz`."""

    def object_key(self, key: dg.AssetKey, partition: str | None) -> str:
        return _object_key(key, partition, RECORDS[key.path[-1]][1])

    def write(self, object_key: str, value: Any, metadata: Metadata) -> ObjectInfo:
        record: StoredRecord = value
        return self.objects.put_bytes(
            object_key,
            record.to_bytes(),
            metadata={**metadata(), _CONTENT_VERSION: record.content_version()},
        )

    def load_input(self, context: dg.InputContext) -> Any:
        return load_record(self.objects, context.asset_key)


def _partition(object_key: str, folder: str, suffix: str) -> str | None:
    """`D/chunks/000012.parquet` is partition `000012`, `D/plan.json` is none."""
    name = object_key.removeprefix(folder).removesuffix(suffix)
    return name.removeprefix("/") or None


def _is_plain(value: Any) -> bool:
    """Short enough for an object's metadata: numbers, and words that are no text."""
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= 80)


def load_record(objects: ObjectStore, key: dg.AssetKey) -> Any:
    """Reads the record of an asset, checksum verified.

    Raises:
        NotMaterialized: it has not been made, or is gone.
    """
    record, suffix = RECORDS[key.path[-1]]
    object_key = _object_key(key, None, suffix)
    _info(objects, key, object_key)
    return record.from_bytes(objects.get_bytes(object_key), key=object_key)


def record_figures(objects: ObjectStore, key: dg.AssetKey) -> dict[str, Any]:
    """The figures that were stored with the record of an asset: those that are numbers or words.

    Raises:
        NotMaterialized: it has not been made, or is gone.
    """
    info = _info(objects, key, _object_key(key, None, RECORDS[key.path[-1]][1]))
    figures: dict[str, Any] = json.loads(info.metadata.get(_FIGURES, "{}"))
    return figures


class ParquetIOManagerFactory(dg.ConfigurableIOManagerFactory[ParquetIOManager]):
    """Makes the manager from the configured store."""

    objects: StoreResource

    def create_io_manager(self, context: dg.InitResourceContext) -> ParquetIOManager:  # noqa: ARG002
        return ParquetIOManager(self.objects.create())


class RecordIOManagerFactory(dg.ConfigurableIOManagerFactory[RecordIOManager]):
    """Makes the manager from the configured store."""

    objects: StoreResource

    def create_io_manager(self, context: dg.InitResourceContext) -> RecordIOManager:  # noqa: ARG002
        return RecordIOManager(self.objects.create())


def _object_key(key: dg.AssetKey, partition: str | None, suffix: str) -> str:
    owner, asset = key.path
    return keys.object_key(owner, asset, partition, suffix=suffix)


def _info(objects: ObjectStore, key: dg.AssetKey, object_key: str) -> ObjectInfo:
    info = objects.head(object_key)
    if info is None:
        raise NotMaterialized(
            f"{objects.uri(object_key)} is not there: materialize {key.to_user_string()} first"
        )
    return info

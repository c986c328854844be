"""Asking a lineage table in the bucket: of a cluster only its own rows are read."""

from functools import cached_property

from acidburn_assets.adapters import object_store
from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.core import lineage as tracing
from acidburn_assets.core.lineage import LineageRow, Sources


class LineageTable:
    """One object that holds a lineage: the one that is stored now, or one that was kept."""

    def __init__(self, store: ObjectStore, object_key: str) -> None:
        self._store = store
        self._key = object_key

    @cached_property
    def sources(self) -> Sources:
        """What it was counted from.

        Raises:
            SchemaError: an older version of Acidburn made it.
        """
        with self._store.open_parquet(self._key) as file:
            return tracing.sources_of(file.schema_arrow, key=self._key)

    def shards_of(self, cluster_id: int) -> list[LineageRow]:
        """The shards that fed a cluster, largest share first; none for an unknown cluster."""
        with self._store.open_parquet(self._key) as file:
            self.sources = tracing.sources_of(file.schema_arrow, key=self._key)
            position = file.schema_arrow.get_field_index("cluster_id")
            bounds = [
                file.metadata.row_group(index).column(position).statistics
                for index in range(file.num_row_groups)
            ]
            # rows are ordered by cluster: one row group, or two where a cluster crosses a border
            groups = [i for i, of in enumerate(bounds) if of.min <= cluster_id <= of.max]
            return tracing.shards_of(file.read_row_groups(groups), cluster_id)

    def clusters_of(self, *, dataset: str, shard: str) -> list[LineageRow]:
        """The clusters that a shard fed, largest share first; none for an unknown shard."""
        table = object_store.read_table(self._store, self._key)
        self.sources = tracing.sources_of(table.schema, key=self._key)
        return tracing.clusters_of(table, dataset=dataset, shard=shard)

    def last_cluster(self) -> int:
        """The greatest number of a cluster that has a chunk; -1 where none has."""
        with self._store.open_parquet(self._key) as file:
            if not file.metadata.num_rows:
                return -1
            position = file.schema_arrow.get_field_index("cluster_id")
            last = file.metadata.row_group(file.num_row_groups - 1).column(position)
            return int(last.statistics.max)

"""The generations of a pool's cluster model: the one in use, and those that it follows.

Every generation is kept by its content, see `history`, so what was lost is put back and not found
anew, and the ids of a new one are those of the one before.
"""

import logging

import dagster as dg

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.core import keys
from acidburn_assets.core.cluster_model import ClusterModel
from acidburn_assets.core.errors import ObjectCorrupt, ObjectMissing, SchemaError
from acidburn_assets.core.migration import steady_ids
from acidburn_assets.io_managers import history

_logger = logging.getLogger(__name__)


class Generations:
    """The cluster models of one pool."""

    def __init__(self, store: ObjectStore, pool: str) -> None:
        self._store = store
        self._key = dg.AssetKey([pool, "cluster_model"])

    def newest(self, *, model: str, dim: int) -> ClusterModel | None:
        """The newest generation of an encoder; None where there is none that can be read.

        The one that is stored, and where that is lost or of another encoder, the newest of those
        that were kept.

        Args:
            model: the encoder's fingerprint.
            dim: of its vectors.
        """
        owner, asset = self._key.path
        for candidates in (
            [keys.object_key(owner, asset, suffix=".npz")],
            [listed.key for listed in self._store.list(f"{owner}/history/{asset}/")],
        ):
            read = map(self._read_if_sound, candidates)
            found = [one for one in read if one and (one.meta.model, one.meta.dim) == (model, dim)]
            if found:
                return max(found, key=lambda one: (one.meta.generation, one.content_version()))
        return None

    def read(self, version: str) -> ClusterModel:
        """The generation of that content.

        Raises:
            ObjectMissing: it was not kept.
        """
        object_key = history.find(self._store, self._key, version)
        return ClusterModel.from_bytes(self._store.get_bytes(object_key), key=object_key)

    def steady_since(self, model: ClusterModel, version: str) -> set[int]:
        """Clusters of a model that hardly changed since an earlier generation, under one id.

        Args:
            model: the later one.
            version: content version of the earlier one; where the model does not descend from it,
                or what lies between was not kept, there are none.
        """
        steady = set(model.cluster_ids.tolist())
        while model.content_version() != version:
            if model.meta.previous is None:
                return set()
            steady &= steady_ids(model)
            try:
                model = self.read(model.meta.previous)
            except ObjectMissing as error:
                _logger.warning("every cluster counts as changed: %s", error)
                return set()
        return steady

    def _read_if_sound(self, object_key: str) -> ClusterModel | None:
        """What is damaged, or was made by another version of Acidburn, is no generation."""
        try:
            return ClusterModel.from_bytes(self._store.get_bytes(object_key), key=object_key)
        except ObjectMissing:
            return None
        except (ObjectCorrupt, SchemaError) as error:
            _logger.warning("passed over: %s", error)
            return None

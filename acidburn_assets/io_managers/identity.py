"""Which store a Dagster home works in, so that an empty one does not look like a lost corpus.

A folder that is not mounted or a mistyped prefix lists as empty: all that was ever reported would
seem gone, and would be made and paid for again. So a store carries a name of its own, and the home
remembers it. Whoever makes something by hand in another store says that it is the right one.
"""

import json
from uuid import uuid4

import dagster as dg

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.core.errors import StoreError

KEY = "_store.json"

_CURSOR = "acidburn/store"


def remember(instance: dg.DagsterInstance, objects: ObjectStore) -> None:
    """Ties the home to the store, which is named if it has no name yet.

    Args:
        instance: of the home.
        objects: where something was just made or found.

    Raises:
        StoreUnavailable, StoreError: the store cannot say, or refuses.
    """
    name = _name_of(objects)
    if name is None:
        name = uuid4().hex
        objects.put_bytes(KEY, json.dumps({"name": name}).encode())
    if _remembered(instance) != name:
        instance.daemon_cursor_storage.set_cursor_values({_CURSOR: name})


def check(instance: dg.DagsterInstance, objects: ObjectStore) -> None:
    """Refuses a store that is not the one that the home knows.

    Args:
        instance: of the home.
        objects: the store that the settings name now.

    Raises:
        StoreError: it is another, or an empty place.
        StoreUnavailable: the store cannot say.
    """
    known = _remembered(instance)
    if known is not None and _name_of(objects) != known:
        raise StoreError(
            f"{objects.url} is not the store that was worked in so far (its {KEY!r} is missing or "
            "another): look at ACIDBURN_STORE and B2_BUCKET, and whether the folder is mounted. "
            "If it is meant, make something by hand first: acidburn materialize"
        )


def _name_of(objects: ObjectStore) -> str | None:
    if objects.head(KEY) is None:
        return None
    return str(json.loads(objects.get_bytes(KEY))["name"])


def _remembered(instance: dg.DagsterInstance) -> str | None:
    return instance.daemon_cursor_storage.get_cursor_values({_CURSOR}).get(_CURSOR)

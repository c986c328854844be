"""The self-test of a store: does what is configured do all that the project asks of it?"""

import time
import uuid
from typing import NamedTuple

from acidburn_assets.adapters.object_store.contract import ObjectStore
from acidburn_assets.core.errors import StoreError, StoreUnavailable


class Probe(NamedTuple):
    """What a store did with a tiny object."""

    url: str
    write_seconds: float
    read_seconds: float
    can_delete: bool
    remark: str  # why not, and what that means; "" where all is well


def probe(store: ObjectStore) -> Probe:
    """Writes, looks up, lists, reads back and deletes a tiny object under `.probe/`.

    A key without the right to delete is fine, and the safer one: nothing but a listing shows the
    tiny objects that stay.

    Raises:
        StoreError: the store refuses a step other than the deletion; the text says how to mend it.
        StoreUnavailable: it does not answer, or does not keep what it accepts.
    """
    key = f".probe/{uuid.uuid4().hex}.txt"
    content = key.encode()
    started = time.perf_counter()
    written = store.put_bytes(key, content, metadata={"purpose": "probe"})
    write_seconds = time.perf_counter() - started

    started = time.perf_counter()
    is_read = store.get_bytes(key) == content
    read_seconds = time.perf_counter() - started

    is_listed = [found.etag for found in store.list(key)] == [written.etag]
    if store.head(key) != written or not is_read or not is_listed:
        raise StoreUnavailable(
            f"{store.url!r} accepted {key!r} but does not show it as it was written"
        )
    remark = ""
    try:
        store.delete(key)
    except StoreError as error:
        remark = (
            f"the key may not delete, which is fine: {key!r} stays, as do objects that "
            f"are no longer needed ({error})"
        )
    return Probe(store.url, write_seconds, read_seconds, not remark, remark)

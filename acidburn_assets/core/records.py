"""The base of every JSON record that passes between stages, and its canonical bytes.

A record is frozen, refuses unknown fields, and has exactly one byte form, so that its sha256 is
its content version. Tables are not records: their schemas live in `schemas`.
"""

import hashlib
import json
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from acidburn_assets.core.errors import SchemaError


class Record(BaseModel):
    """A frozen JSON record; equal records have equal bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    def to_bytes(self) -> bytes:
        """Canonical JSON: UTF-8, sorted keys, no spaces, one newline at the end."""
        document = json.dumps(
            self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, separators=(",", ":")
        )
        return document.encode() + b"\n"

    def content_hash(self) -> str:
        """sha256 of `to_bytes()`, hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def content_version(self) -> str:
        """What makes two records the same to what is made from them; the hash of all, unless a
        record says otherwise."""
        return self.content_hash()

    @classmethod
    def from_bytes(cls, content: bytes, *, key: str) -> Self:
        """Parses what `to_bytes` wrote.

        Args:
            content: the object's bytes.
            key: where they came from, for the error.

        Raises:
            SchemaError: the bytes are not JSON or not this record.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "the top level"
            raise SchemaError(
                f"{key!r} is not a {cls.__name__}: {first['msg']} at {place}; "
                "materialize the asset that writes it again"
            ) from error

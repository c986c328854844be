"""What services that speak OpenAI's protocol say when they refuse: words, waits, quoted keys.

What a refusal means for the work is the business of who asked: labels, embeddings.
"""

import calendar
import email.utils
import re
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import SecretStr

if TYPE_CHECKING:
    from openai import APIStatusError

_SHOWN_CHARS = 300
"""Of what a service said: the reason is in the first sentence. Chosen, not measured."""


def message_of(error: "APIStatusError") -> str:
    """What the service said: `{"error": {"message": "…"}}`, `{"error": "…"}` from xAI,
    `{"message": "…"}` from TEI, `{"detail": …}` from FastAPI, or text."""
    body = error.body
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or body
    return str(body)


def retry_after_seconds(error: "APIStatusError") -> float | None:
    """What the service asked to wait; None where it did not say.

    Source: RFC 9110, section 10.2.3; retry-after-ms is OpenAI's.
    """
    headers = error.response.headers
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "")
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value) / per_second
        if date := email.utils.parsedate(value):
            return max(0.0, calendar.timegm(date) - time.time())
    return None


def holds_key(text: str, key: SecretStr) -> bool:
    """True where a message quotes the key."""
    secret = key.get_secret_value()
    return bool(secret) and secret in text


def without_key(text: str, key: SecretStr) -> str:
    """A message of the service, short and without the key that it may quote."""
    secret = key.get_secret_value()
    shown = text.replace(secret, "***") if secret else text
    return shown if len(shown) <= _SHOWN_CHARS else shown[: _SHOWN_CHARS - 1] + "…"


def jitter() -> float:
    """In [0, 1): what a pause is multiplied by, so that who failed together comes back apart."""
    return secrets.randbelow(1_000) / 1_000

"""One bucket at one endpoint of the S3 protocol, asked with patience.

Here a client is made as B2 wants it, and here is decided how long a call is tried again. What the
calls are for is `s3` (objects) and `lifecycle` (the bucket itself); what an answer means is
`s3_errors`.
"""

import logging
import os
import random
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.session
import tenacity
from botocore.config import Config
from pydantic import SecretStr

from acidburn_assets.adapters.object_store import s3_errors
from acidburn_assets.core.errors import ConfigError

LOGGER = logging.getLogger(__name__)

Answer = TypeVar("Answer")

REGIONAL_HOST = re.compile(r"s3\.([a-z0-9-]+)\.(?:backblazeb2|amazonaws)\.com")

NO_AWS_FILES = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""A profile or file of the AWS command line must not change how we reach another service."""

SERVICE_MODELS = botocore.loaders.create_loader()
"""Read once for all stores of a process: a client then takes 10 ms to make, not 70. Source:
measured."""


class Patience(NamedTuple):
    """How long a call is tried again.

    botocore tries each request, so each part of an upload, `n_attempts` times; then the whole
    call is tried again after a random wait: anything from nothing to a limit that doubles from
    `first_wait_seconds` to `longest_wait_seconds`, or longer where the store asks for it. The
    clock starts when a call first fails, not when it begins: an upload over a thin line may take
    longer than all patience, and deserves a second try even so.

    Source: B2 answers 503 while a vault is maintained, up to half an hour, and advises waits that
    grow from a second (rclone issue 597, backblaze.com/blog/b2-503-500-server-error);
    aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter for "full" jitter.
    """

    total_seconds: float = 1_800
    first_wait_seconds: float = 1
    longest_wait_seconds: float = 300
    n_attempts: int = 8
    silence_seconds: float = 120
    """A connection on which nothing comes for so long is given up. Chosen, not measured."""


PATIENT = Patience()


class S3Connection:
    """A client of one bucket, and the patience with it."""

    def __init__(
        self,
        bucket: str,
        *,
        endpoint: str,
        key_id: str,
        app_key: SecretStr,
        patience: Patience = PATIENT,
    ) -> None:
        """Makes a client; nothing is connected to yet.

        Args:
            bucket: its name.
            endpoint: `https://s3.<region>.backblazeb2.com`.
            key_id: B2_KEY_ID.
            app_key: B2_APP_KEY.
            patience: how long to try again.

        Raises:
            ConfigError: one of them is missing or cannot be right.
        """
        if not bucket:
            raise ConfigError(
                "the store's URL names no bucket: write s3://bucket or s3://bucket/prefix"
            )
        if not key_id or not app_key.get_secret_value():
            raise ConfigError(f"the bucket {bucket!r} needs B2_KEY_ID and B2_APP_KEY")
        self.bucket = bucket
        self.endpoint = endpoint
        self.region = region_of(endpoint)
        self._patience = patience
        isolated = botocore.session.Session(session_vars=NO_AWS_FILES)
        isolated.register_component("data_loader", SERVICE_MODELS)
        session = boto3.session.Session(
            aws_access_key_id=key_id,
            aws_secret_access_key=app_key.get_secret_value(),
            region_name=self.region,
            botocore_session=isolated,
        )
        self.client: Any = session.client(
            "s3",
            endpoint_url=endpoint,
            config=Config(
                signature_version="s3v4",
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"mode": "standard", "total_max_attempts": patience.n_attempts},
                connect_timeout=10,
                read_timeout=patience.silence_seconds,
                s3={"addressing_style": "path", "payload_signing_enabled": True},
            ),
        )
        self.client.meta.events.register_first("needs-retry.s3", self._pause_as_asked)

    def patiently(self, what: str, attempt: Callable[[], Answer]) -> Answer:
        """Calls until it succeeds, is refused for good, or patience ends.

        Args:
            what: the key or bucket that it is about, for the error's text.
            attempt: may be called many times.

        Raises:
            StoreError: the store refuses.
            StoreUnavailable: patience has ended.
        """
        failures: list[float] = []  # moments, on tenacity's clock

        def is_over(state: tenacity.RetryCallState) -> bool:
            failures.append(state.outcome_timestamp or 0)
            failing_seconds = failures[-1] - failures[0]
            return failing_seconds + state.upcoming_sleep >= self._patience.total_seconds

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(s3_errors.is_transient),
            wait=self._wait_seconds,
            stop=is_over,
            before_sleep=partial(self._log_wait, what),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except s3_errors.FOREIGN as error:
            raise self.translated(error, what) from error

    def translated(self, error: BaseException, what: str) -> BaseException:
        """The error of ours for one of boto3's; any other as it is."""
        if not isinstance(error, s3_errors.FOREIGN):
            return error
        return s3_errors.translate(error, endpoint=self.endpoint, bucket=self.bucket, key=what)

    def _wait_seconds(self, state: tenacity.RetryCallState) -> float:
        """Full jitter, or longer where the store asks for it."""
        patience = self._patience
        limit = min(
            # 2 ** 30 seconds are 34 years; a float overflows after 1,024 failures
            patience.first_wait_seconds * 2 ** min(state.attempt_number - 1, 30),
            patience.longest_wait_seconds,
        )
        error = state.outcome.exception() if state.outcome else None
        asked = s3_errors.retry_after_seconds(error) if error else 0
        return max(random.uniform(0, limit), asked)  # noqa: S311  # no secret hangs on it

    def _log_wait(self, what: str, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None:
            reason = self.translated(error, what)
            LOGGER.warning("trying again in %.1f s: %s", state.upcoming_sleep, reason)

    def _pause_as_asked(self, response: Any, attempts: int, **_: Any) -> float | None:
        """Makes botocore wait between its own attempts as long as the store asks for; left alone
        it ignores Retry-After. None: let botocore decide."""
        if response is None or attempts >= self._patience.n_attempts:
            return None
        answer = response[0]
        if answer.status_code not in s3_errors.TRANSIENT_STATUSES:
            return None
        asked = s3_errors.parse_retry_after(answer.headers.get("retry-after"))
        return min(asked, self._patience.longest_wait_seconds) or None


def region_of(endpoint: str) -> str:
    """The region that requests to an endpoint are signed for.

    Raises:
        ConfigError: the endpoint is missing or cannot be one.
    """
    hint = "it looks like https://s3.<region>.backblazeb2.com and is shown beside the bucket"
    if not endpoint:
        raise ConfigError(f"a bucket needs B2_ENDPOINT: {hint}")
    parts = urlsplit(endpoint)
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"B2_ENDPOINT holds credentials; {hint}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"B2_ENDPOINT {endpoint!r} lacks https:// in front; {hint}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(f"B2_ENDPOINT {endpoint!r} has more than a host; {hint}")
    regional = REGIONAL_HOST.fullmatch(parts.hostname)
    if parts.hostname.endswith("backblazeb2.com"):
        if parts.scheme != "https":
            raise ConfigError(
                f"B2_ENDPOINT {endpoint!r} must start with https://: B2 answers no other"
            )
        if regional is None:
            raise ConfigError(f"B2_ENDPOINT {endpoint!r} is not B2's S3 endpoint; {hint}")
    # servers without regions, on a LAN or a laptop, sign for AWS's first one
    return regional[1] if regional else "us-east-1"

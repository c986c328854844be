"""What S3 answers mean: worth another try, or for whom to mend what.

`s3` sends; here the exceptions of boto3 and botocore become errors of ours, and nothing is sent.
Every text names the endpoint, because B2 reports a wrong region as a wrong key.
"""

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004  # botocore's own, not the built-in
    HTTPClientError,
    IncompleteReadError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from acidburn_assets.core.errors import (
    AcidburnError,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)

FOREIGN = (BotoCoreError, ClientError, Boto3Error, ResponseParserError, HTTPError)
"""ResponseParserError: an answer that is not S3's XML, damaged on the way or a proxy's own page.
HTTPError: urllib3's, which botocore lets pass where TLS finds a body damaged."""

TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""503 is B2's way to say "slow down" and lasts up to half an hour when a vault is maintained.

Source: backblaze.com/docs/cloud-storage-rate-limits, rclone issue 597.
"""

TRANSIENT_CODES = frozenset(
    {"RequestTimeout", "NoSuchUpload", "XAmzContentSHA256Mismatch", "BadDigest"}
)
"""Sent with a status that would be final.

RequestTimeout comes as 400 when the body dawdles. NoSuchUpload is the answer to a second
CompleteMultipartUpload whose first answer got lost. The other two are for a body that was altered
on its way: what we sign is what we read, so the same file sent again may arrive whole.
Source: measured, OpenStack Swift answers 400 XAmzContentSHA256Mismatch.
"""


def origin(error: BaseException) -> BaseException:
    """The error itself, or the one that boto3's file transfer hid in another."""
    hidden = error.__context__ if isinstance(error, Boto3Error) else None
    return hidden or error


def status_of(error: BaseException) -> int:
    """HTTP status of the answer; 0 where there was none."""
    error = origin(error)
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: BaseException) -> str:
    """S3's name for the error; "" where there was no answer."""
    error = origin(error)
    return str(error.response["Error"].get("Code", "")) if isinstance(error, ClientError) else ""


def is_transient(error: BaseException) -> bool:
    """True where the same request may succeed later."""
    error = origin(error)
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    if isinstance(error, ClientError):
        return status_of(error) in TRANSIENT_STATUSES or code_of(error) in TRANSIENT_CODES
    kinds = (
        *(StoreUnavailable, ConnectionError, HTTPClientError),
        *(IncompleteReadError, ResponseParserError, HTTPError),
    )
    return isinstance(error, kinds)


def retry_after_seconds(error: BaseException) -> float:
    """How long the answer asks to wait; 0 where it does not."""
    error = origin(error)
    if not isinstance(error, ClientError):
        return 0
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return parse_retry_after(headers.get("retry-after"))


def parse_retry_after(retry_after: str | None) -> float:
    """A Retry-After header in its form of whole seconds, which B2 and S3 send; 0 for others."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0


def translate(error: BaseException, *, endpoint: str, bucket: str, key: str) -> AcidburnError:
    """The error of ours that says what is wrong and how to mend it.

    Args:
        error: one of `FOREIGN`.
        endpoint: that was asked.
        bucket: that was meant.
        key: of the object that was meant.
    """
    error = origin(error)
    if not isinstance(error, ClientError):
        reason = getattr(error, "kwargs", {}).get("error") or error
        if is_transient(error):
            return StoreUnavailable(
                f"no answer from the store at {endpoint!r} for {key!r}: {reason}; look at the "
                "network, and whether B2_ENDPOINT is the endpoint shown beside the bucket"
            )
        return StoreError(f"the request for {key!r} to {endpoint!r} cannot be made: {reason}")

    code, status = code_of(error), status_of(error)
    message = str(error.response["Error"].get("Message", ""))
    # an answer to HEAD has no name for the error but its status
    answer = f"{endpoint!r} answers {status} {code if code != str(status) else ''}".strip()
    if is_transient(error):
        return StoreUnavailable(
            f"{answer} for {key!r}: {message}; the store is busy or being repaired, try again later"
        )
    if code in ("NoSuchKey", "404"):
        return ObjectMissing(f"no object {key!r} in bucket {bucket!r} at {endpoint!r}")
    if code == "NoSuchBucket":
        return StoreError(
            f"there is no bucket {bucket!r} at {endpoint!r} (NoSuchBucket); look at B2_BUCKET, and "
            "whether B2_ENDPOINT is the endpoint shown beside it"
        )
    if "Malformed Access Key Id" in message:
        return StoreError(
            f"{answer}: {message!r}. The master key is refused by the S3 API: create an "
            "application key and set B2_KEY_ID and B2_APP_KEY to it"
        )
    if code == "InvalidAccessKeyId":
        return StoreError(
            f"{answer}. B2 answers InvalidAccessKeyId when the endpoint's region is not the "
            f"bucket's: the endpoint is {endpoint!r}, compare it with the one shown beside the "
            f"bucket {bucket!r}; only then doubt B2_KEY_ID"
        )
    if code == "SignatureDoesNotMatch":
        return StoreError(
            f"{answer}: B2_APP_KEY is not the secret that belongs to B2_KEY_ID; copy both again, "
            "or create a new application key (its secret is shown only once)"
        )
    if code == "RequestTimeTooSkewed":
        return StoreError(f"{answer}: this machine's clock is wrong; set it, then try again")
    if status in (401, 403):
        return StoreError(
            f"{answer} for {key!r} in bucket {bucket!r}: {message}. The application key lacks the "
            "right or its prefix excludes the key, or one of the account's data caps is reached "
            "(Caps & Alerts)"
        )
    return StoreError(f"{answer} for {key!r} in bucket {bucket!r}: {message}")

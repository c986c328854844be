"""What B2 refuses of an S3 request that other servers accept, as far as it is documented.

A model, not B2: where documents disagree, the stricter one is taken, or the caller chooses.
Source: backblaze.com/docs/cloud-storage-s3-compatible-api, apidocs/s3-put-lifecycle-configuration;
home-assistant/core issue 143995 (checksum headers), obsidian-s3-sync issue 78 (conditional writes).
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree as Xml

Refusal = tuple[int, str, str]
"""Status, code and message."""

CHECKSUMS = re.compile(r"x-amz-(checksum-|sdk-checksum-algorithm|trailer)")

OF_A_KEY = {
    ("PUT", "partNumber"): "UploadPart",
    ("POST", "uploads"): "CreateMultipartUpload",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("GET", "uploadId"): "ListParts",
}
OF_A_BUCKET = {
    ("GET", "list-type"): "ListObjectsV2",
    ("GET", "uploads"): "ListMultipartUploads",
    ("GET", "versions"): "ListObjectVersions",
    ("POST", "delete"): "DeleteObjects",
    ("GET", "lifecycle"): "GetBucketLifecycleConfiguration",
    ("PUT", "lifecycle"): "PutBucketLifecycleConfiguration",
    ("DELETE", "lifecycle"): "DeleteBucketLifecycle",
}
PLAIN_OF_A_KEY = {
    "GET": "GetObject",
    "HEAD": "HeadObject",
    "PUT": "PutObject",
    "DELETE": "DeleteObject",
}
PLAIN_OF_A_BUCKET = {
    "GET": "ListObjects",
    "HEAD": "HeadBucket",
    "PUT": "CreateBucket",
    "DELETE": "DeleteBucket",
}


def operation_of(method: str, path: str, query: str) -> str:
    """S3's name for a request; `PUT acl` for those that have none here."""
    asked = parse_qs(query, keep_blank_values=True)
    is_of_a_key = path.strip("/").count("/") > 0
    for (of_method, name), operation in (OF_A_KEY if is_of_a_key else OF_A_BUCKET).items():
        if method == of_method and name in asked:
            return operation
    for name in UNSUPPORTED:
        if name in asked:
            return f"{method} {name}"
    if not path.strip("/"):
        return "ListBuckets"
    return (PLAIN_OF_A_KEY if is_of_a_key else PLAIN_OF_A_BUCKET).get(method, method)


UNSUPPORTED = ("tagging", "website", "policy", "notification", "accelerate", "select", "torrent")
"""What B2 has not at all; an ACL is the bucket's, and only `private` or `public-read`."""


def refusal(
    operation: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    region: str,
    is_overlap_refused: bool,
) -> Refusal | None:
    """What B2 would refuse, or None.

    Args:
        operation: S3's name of the request.
        path: quoted.
        query: of the URL.
        headers: of the request.
        body: of a lifecycle configuration; others are not looked at.
        region: of the endpoint; "" for any.
        is_overlap_refused: whether prefixes of lifecycle rules may overlap. B2's reference says
            no, its announcement of February 2026 says yes.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    asked = parse_qs(query, keep_blank_values=True)
    return (
        _unsigned(operation, lower, region)
        or _unknown_headers(operation, lower)
        or _unknown_operation(operation, asked, lower)
        or _long_key(path)
        or (
            bad_lifecycle(body, is_overlap_refused=is_overlap_refused)
            if operation == "PutBucketLifecycleConfiguration"
            else None
        )
    )


def _unsigned(operation: str, headers: Mapping[str, str], region: str) -> Refusal | None:
    signed = re.match(
        r"AWS4-HMAC-SHA256 Credential=([^/]*)/\d+/([^/]+)/s3", headers.get("authorization", "")
    )
    if signed is None:
        return 403, "AccessDenied", "only requests with a version 4 signature are answered"
    if region and signed[2] != region:
        return 403, "InvalidAccessKeyId", f"The key '{signed[1]}' is not valid"
    # B2 may take it, but then nobody checks what arrives: that we sign payloads is our own rule
    payload = headers.get("x-amz-content-sha256", "")
    if operation in ("PutObject", "UploadPart") and not re.fullmatch(r"[0-9a-f]{64}", payload):
        return 400, "InvalidArgument", "the payload is not signed"
    return None


def _unknown_headers(operation: str, headers: Mapping[str, str]) -> Refusal | None:
    for name in sorted(headers):
        # botocore always sends one with a lifecycle configuration, and B2 documents it there
        if CHECKSUMS.match(name) and operation != "PutBucketLifecycleConfiguration":
            return 400, "InvalidArgument", f"Unsupported header '{name}' received"
        if name in ("x-amz-tagging", "x-amz-website-redirect-location"):
            return 400, "InvalidArgument", f"Unsupported header '{name}' received"
    if operation in ("PutObject", "CompleteMultipartUpload") and (
        "if-match" in headers or "if-none-match" in headers
    ):
        return 501, "NotImplemented", "A header you provided implies functionality not implemented"
    if headers.get("x-amz-server-side-encryption") == "aws:kms":
        return 400, "InvalidArgument", "SSE-KMS is not supported"
    if headers.get("x-amz-storage-class", "STANDARD") != "STANDARD":
        return 400, "InvalidStorageClass", "The storage class you specified is not valid"
    allowed = ("private", "public-read") if operation == "CreateBucket" else ("private",)
    if headers.get("x-amz-acl", "private") not in allowed:
        return 400, "InvalidArgument", "Unsupported value for canned acl"
    return None


def _unknown_operation(
    operation: str, asked: Mapping[str, list[str]], headers: Mapping[str, str]
) -> Refusal | None:
    if operation == "DeleteObjects":
        # it exists, but boto3 cannot call it without a checksum header
        return 400, "InvalidArgument", "bulk delete"
    if operation.partition(" ")[2] in UNSUPPORTED:
        return 501, "NotImplemented", f"{operation} is not implemented"
    if "acl" in asked and operation.startswith("Put") and "x-amz-acl" not in headers:
        return 501, "NotImplemented", "an ACL in the body is not implemented"
    return None


def _long_key(path: str) -> Refusal | None:
    _, _, key = unquote(path).lstrip("/").partition("/")
    return (400, "KeyTooLongError", "Your key is too long") if len(key.encode()) > 1024 else None


def bad_lifecycle(body: bytes, *, is_overlap_refused: bool) -> Refusal | None:
    """What B2 would refuse of a lifecycle configuration, or None."""
    rules = [rule for rule in Xml.fromstring(body) if _name(rule) == "Rule"]  # noqa: S314
    expirations: dict[str, set[str]] = defaultdict(set)
    for rule in rules:
        wrong = _unknown_elements(rule)
        if wrong:
            return 400, "NotSupported", f"{wrong} is not supported in a lifecycle rule"
        for child in rule:
            if _name(child) == "Expiration":
                expirations[_prefix(rule)] |= {_name(part) for part in child}
    if len(rules) > 100:
        return 400, "NotSupported", "more than 100 rules"
    for prefix, parts in expirations.items():
        if parts != {"Days", "ExpiredObjectDeleteMarker"}:
            return 400, "NotSupported", f"Expiration rules for '{prefix}' are not a pair"
    prefixes = sorted({_prefix(rule) for rule in rules})
    for shorter, longer in itertools.pairwise(prefixes):
        if is_overlap_refused and longer.startswith(shorter):
            return 400, "NotSupported", f"prefixes '{shorter}' and '{longer}' overlap"
    return None


def _unknown_elements(rule: Xml.Element) -> str:
    """Name of something in a rule that B2 does not know, or ""."""
    known = {
        "Expiration": {"Days", "ExpiredObjectDeleteMarker"},
        "NoncurrentVersionExpiration": {"NoncurrentDays"},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation"},
        "Filter": {"Prefix"},
        "ID": set(),
        "Status": set(),
    }
    for child in rule:
        for part in (child, *child):
            if _name(child) not in known or (
                part is not child and _name(part) not in known[_name(child)]
            ):
                return _name(part)
            if (_name(part), part.text) in (
                ("Status", "Disabled"),
                ("ExpiredObjectDeleteMarker", "false"),
            ):
                return f"{_name(part)} {part.text}"
    return ""


def _prefix(rule: Xml.Element) -> str:
    found = [part.text or "" for part in rule.iter() if _name(part) == "Prefix"]
    return found[0] if found else ""


def _name(element: Xml.Element) -> str:
    return element.tag.rpartition("}")[2]

"""Lifecycle rules as plain records: which we want, beside which of others, and in words.

Nothing is asked here; `lifecycle` does that.

B2's terms for rules that come through S3: `Expiration` in pairs (after days, and of the markers
that stay behind), no transitions, tags, dates or disabled rules, at most 100; whether prefixes may
overlap, its reference denies and its announcement of February 2026 affirms.
Source: backblaze.com/apidocs/s3-put-lifecycle-configuration, docs/cloud-storage-lifecycle-rules,
docs/cloud-storage-create-a-lifecycle-rule-with-the-cli.
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from typing import Any

from acidburn_assets.core.keys import PARTS_FOLDER

PARTS_DAYS = 7
"""A shard that was not continued for a week is made anew. Chosen, not measured."""

UPLOAD_DAYS = 1
"""A part of 16 MB takes minutes: an upload of a day ago is dead. 1 is the least that S3 takes."""

Rule = dict[str, Any]
"""One rule as boto3 has it."""

Signature = tuple[str, frozenset[tuple[str, Any]], str]
"""A rule's prefix, deeds and status: all but its ID."""


def wanted_rules(prefix: str, *, keep_versions_days: int) -> list[Rule]:
    """Our rules for a store.

    Args:
        prefix: of its keys, with a slash at its end, or "".
        keep_versions_days: until a replaced version goes.
    """
    parts = f"{prefix}{PARTS_FOLDER}"
    return [
        _rule(
            "old-versions",
            prefix,
            {"NoncurrentVersionExpiration": {"NoncurrentDays": keep_versions_days}},
        ),
        _rule(
            "unfinished-uploads",
            prefix,
            {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UPLOAD_DAYS}},
        ),
        _rule("parts", parts, {"Expiration": {"Days": PARTS_DAYS}}),
        _rule("parts-markers", parts, {"Expiration": {"ExpiredObjectDeleteMarker": True}}),
        _rule("parts-versions", parts, {"NoncurrentVersionExpiration": {"NoncurrentDays": 1}}),
    ]


def merge(present: Sequence[Rule], wanted: Sequence[Rule]) -> tuple[list[Rule], list[str]]:
    """Our rules beside those that others set.

    A rule of ours, known by its ID, is replaced. Where another does the same for the same prefix
    ours is left out: equal, it is there already (B2 may give rules other IDs than it was given);
    different, it is somebody's will.

    Args:
        present: the bucket's rules.
        wanted: ours.

    Returns:
        All rules, and the conflicts in words.
    """
    ours = {rule["ID"] for rule in wanted}
    others = [rule for rule in present if rule.get("ID") not in ours]
    taken = {
        (prefix_of(rule), name): rule
        for rule in others
        if rule.get("Status") == "Enabled"
        for name, _ in _deeds(rule)
    }
    planned, conflicts = list(others), []
    for rule in wanted:
        ((name, value),) = _deeds(rule)
        other = taken.get((prefix_of(rule), name))
        if other is None:
            planned.append(rule)
        elif (name, value) not in _deeds(other):
            conflicts.append(
                f"wanted, but not set: {describe(rule)}. The bucket has another rule "
                f"{other.get('ID', '')!r} for it, {describe(other)}: remove that one first, or "
                "live with it"
            )
    return planned, conflicts


def describe(rule: Rule) -> str:
    """A rule in words."""
    where = f"below {prefix_of(rule)!r}" if prefix_of(rule) else "everywhere"
    known = {
        "Expiration Days": "objects go after {} days",
        "Expiration ExpiredObjectDeleteMarker": "marks of deleted objects go with the last version",
        "NoncurrentVersionExpiration NoncurrentDays": "replaced versions go after {} days",
        "AbortIncompleteMultipartUpload DaysAfterInitiation": (
            "unfinished uploads go after {} days"
        ),
    }
    deeds = [known.get(name, f"{name} {{}}").format(value) for name, value in sorted(_deeds(rule))]
    off = "" if rule.get("Status") == "Enabled" else " (switched off)"
    return f"{where}: {', '.join(deeds)}{off}".replace("after 1 days", "after 1 day")


def b2_command(bucket: str, rules: Sequence[Rule]) -> str:
    """The line for B2's own tool that sets these rules, and only these.

    Args:
        bucket: its name.
        rules: all that the bucket shall have.
    """
    names = {
        "Expiration Days": "daysFromUploadingToHiding",
        "NoncurrentVersionExpiration NoncurrentDays": "daysFromHidingToDeleting",
        "AbortIncompleteMultipartUpload DaysAfterInitiation": (
            "daysFromStartingToCancelingUnfinishedLargeFiles"
        ),
    }
    by_prefix: dict[str, dict[str, Any]] = {}
    for rule in rules:
        for name, value in _deeds(rule):
            if name in names:
                native = by_prefix.setdefault(prefix_of(rule), {"fileNamePrefix": prefix_of(rule)})
                native[names[name]] = value
    options = [f"--lifecycle-rule {shlex.quote(json.dumps(rule))}" for rule in by_prefix.values()]
    return " ".join(["b2 bucket update", *options, shlex.quote(bucket)])


def _rule(name: str, prefix: str, deed: dict[str, Any]) -> Rule:
    # of the prefix too, for two stores in one bucket; hashed, for an ID has 255 characters
    place = hashlib.sha256(prefix.encode()).hexdigest()[:8]
    return {
        "ID": f"acidburn-{name}-{place}",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        **deed,
    }


def prefix_of(rule: Rule) -> str:
    """Which keys a rule is for; "" for all."""
    chosen = rule.get("Filter", {})
    return str(chosen.get("Prefix", chosen.get("And", {}).get("Prefix", rule.get("Prefix", ""))))


def _deeds(rule: Rule) -> set[tuple[str, Any]]:
    """`("Expiration Days", 7)` for each thing that a rule does."""
    found: set[tuple[str, Any]] = set()
    for name, deed in rule.items():
        if name not in ("ID", "Status", "Filter", "Prefix"):
            parts = deed.items() if isinstance(deed, dict) else [("", deed)]
            found |= {(f"{name} {part}".strip(), _hashable(value)) for part, value in parts}
    return found


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (bool, int)) else str(value)


def signature(rule: Rule) -> Signature:
    """A rule without its ID, which B2 need not keep."""
    return prefix_of(rule), frozenset(_deeds(rule)), str(rule.get("Status"))


def signatures(rules: Sequence[Rule]) -> set[Signature]:
    return {signature(rule) for rule in rules}


def names_of(rules: Sequence[Rule], signatures: set[Signature]) -> str:
    return "; ".join(describe(rule) for rule in rules if signature(rule) in signatures)

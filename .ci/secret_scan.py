"""Looks for credentials in what git holds: every version of every file, and what is not yet added.

Two nets: the formats of the services this project talks to, and the very values that the
environment and `.env` of this machine give to the secret settings, which finds a database password
although it has no format. What is printed is where and what kind, never the secret. Exit status 1
if there is one.
"""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from acidburn_assets import settings

FORMATS = {
    "B2 application key": rb"\bK00\d[A-Za-z0-9+/]{27}(?![A-Za-z0-9+/=])",
    "xAI key": rb"\bxai-[A-Za-z0-9]{40,}",
    "Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}",
    "OpenAI-style key": rb"\bsk-[A-Za-z0-9_-]{32,}",
    "Vast.ai key": rb"(?i:vast\w*[\"']?\s*[:=]\s*[\"']?)[0-9a-f]{64}\b",
    "Supabase token": rb"\bsb(?:p_[0-9a-f]{40}|_secret_[A-Za-z0-9_-]{20,})",
    "JSON web token": rb"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    "AWS key id": rb"\bA(?:KIA|SIA)(?![A-Z0-9]*EXAMPLE)[A-Z0-9]{16}\b",
    "GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{50,})",
    "private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40,}",
    # Tests and documents show DSNs with made-up passwords. Only what a generator makes counts here:
    # 12 characters or more, among them a digit, a small and a capital letter.
    "password in a DSN": rb"\bpostgres(?:ql)?://[^\s:/@]+:"
    rb"(?=[^\s@]*\d)(?=[^\s@]*[a-z])(?=[^\s@]*[A-Z])[^\s@{}<>]{12,}@",
}

ALLOWED: dict[str, str] = {}
"""Fingerprints, as printed, of findings that a person has judged harmless, each with the reason."""

MIN_VALUE_CHARS = 8
"""Shorter values of settings would be found in ordinary words. Chosen, not measured."""


class Finding(NamedTuple):
    """One place that looks like a credential."""

    place: str
    line: int
    kind: str
    fingerprint: str


def patterns() -> dict[str, re.Pattern[bytes]]:
    """What to look for, by the kind named in a report."""
    given = settings.load()
    values = {name: getattr(given, name) for name in settings.Settings.model_fields}
    own = {
        f"value of {name.upper()}": re.escape(value.get_secret_value().encode())
        for name, value in values.items()
        if isinstance(value, SecretStr) and len(value) >= MIN_VALUE_CHARS
    }
    return {kind: re.compile(pattern) for kind, pattern in (FORMATS | own).items()}


def find(place: str, content: bytes, kinds: dict[str, re.Pattern[bytes]]) -> Iterator[Finding]:
    """Everything in `content` that looks like a credential and is not allowed."""
    for kind, pattern in kinds.items():
        for match in pattern.finditer(content):
            fingerprint = hashlib.sha256(match[0]).hexdigest()[:16]
            if fingerprint not in ALLOWED:
                yield Finding(place, content.count(b"\n", 0, match.start()) + 1, kind, fingerprint)


def read_history() -> Iterator[tuple[str, bytes]]:
    """(place, content) of every blob that a commit or the index holds, each once."""
    listing = ["git", "rev-list", "--objects", "--all", "--indexed-objects"]
    reachable = subprocess.check_output(listing).decode().splitlines()
    paths = dict(line.partition(" ")[::2] for line in reachable)
    # all objects: with names through a pipe each end could come to wait for the other
    batch = ["git", "cat-file", "--batch", "--batch-all-objects", "--unordered"]
    with subprocess.Popen(batch, stdout=subprocess.PIPE) as objects:
        while header := objects.stdout.readline().decode().split():
            name, kind, n_bytes = header
            content = objects.stdout.read(int(n_bytes))
            objects.stdout.read(1)
            if kind == "blob" and name in paths:
                yield f"{paths[name]} at {name[:12]}", content
    if objects.returncode:
        raise SystemExit("git cat-file failed: the history was not read")


def read_work_tree() -> Iterator[tuple[str, bytes]]:
    """(path, content) of every file that git does not ignore and does not hold in this form."""
    listing = ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
    for path in filter(None, subprocess.check_output(listing).decode().split("\0")):
        if Path(path).is_file():  # git also lists what is deleted, and links to nowhere
            yield path, Path(path).read_bytes()


def main() -> int:
    """Scans the repository around the current folder."""
    kinds = patterns()
    n_read, findings = 0, []
    for read in (read_history, read_work_tree):
        for place, content in read():
            n_read += 1
            findings += find(place, content, kinds)
    for finding in findings:
        print(f"{finding.place}: line {finding.line}: {finding.kind} [{finding.fingerprint}]")
    print(f"secret scan: {n_read} contents, {len(kinds)} kinds, {len(findings)} found")
    if findings:
        print(
            "Revoke what is real first, then take it out of the history. What is harmless goes "
            "into ALLOWED of .ci/secret_scan.py, with the reason."
        )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

"""Asks the advisory service about every pin of constraints.txt, and says what was learned.

pip-audit alone answers "No known vulnerabilities found", with exit status 0, when the service knows
none of the packages (a mirror without advisories answers 404 for each): then nothing was audited.

Exit status: 0 nothing known against the pins; 1 vulnerable pins; 2 pip-audit failed;
3 not audited, the service could not be reached.
"""

import json
import re
import subprocess
import sys

AUDIT = ["pip_audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip"]
QUIET = ["--format", "json", "--progress-spinner", "off", "--desc", "off"]

UNREACHABLE = re.compile(
    r"ConnectionError|ConnectTimeout|ReadTimeout|Could not connect|ProxyError|SSLError|HTTPError"
)

FOUND, FAILED, NOT_AUDITED = 1, 2, 3


def main() -> int:
    """Audits constraints.txt in the current folder."""
    audit = subprocess.run(
        [sys.executable, "-m", *AUDIT, *QUIET], capture_output=True, text=True, check=False
    )
    try:
        dependencies = json.loads(audit.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        reason = (audit.stderr.strip().splitlines() or ["no output"])[-1]
        if UNREACHABLE.search(audit.stderr):
            print(f"NOT AUDITED: the advisory service cannot be reached ({reason})")
            return NOT_AUDITED
        print(f"pip-audit failed: {reason}")
        return FAILED
    unknown = [pin["name"] for pin in dependencies if "skip_reason" in pin]
    known = [pin for pin in dependencies if "vulns" in pin]
    if not known:
        print(f"NOT AUDITED: the advisory service knows none of the {len(unknown)} pinned packages")
        return NOT_AUDITED
    vulnerable = [pin for pin in known if pin["vulns"]]
    for pin in vulnerable:
        for advisory in pin["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            print(f"{pin['name']} {pin['version']}: {advisory['id']}, fixed in {fixed}")
    if unknown:
        print(f"not known to the service, so not audited: {', '.join(unknown)}")
    print(f"{len(known)} of {len(dependencies)} pins audited, {len(vulnerable)} vulnerable")
    return FOUND if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())

"""A Hugging Face hub on the loopback, with as much of its protocol as its client speaks.

Real HTTP, real ranges, real error headers; repositories are folders of bytes by commit.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "t" * 34


class Repository:
    """Commits of a dataset repository: sha -> file name -> content."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.is_gated = False

    def push(self, files: dict[str, bytes], *, branch: str = "main") -> str:
        """Makes a commit of those files and moves the branch to it."""
        content = hashlib.sha1(branch.encode(), usedforsecurity=False)
        for name in sorted(files):
            content.update(name.encode() + files[name])
        sha = content.hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha


class Hub(ThreadingHTTPServer):
    """Answers for its repositories, and counts what it sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.sent_bytes = 0  # of files
        self.failures: dict[str, int] = {}  # part of a path -> status it is answered with

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def repository(self, name: str) -> Repository:
        """The repository of that name, made when first asked for."""
        return self.repositories.setdefault(name, Repository())


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    hub = Hub()
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Quiet."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        for part, status in self.server.failures.items():
            if part in path:
                self._send(status, b"", {})
                return
        # a revision may hold a quoted slash
        parts = [unquote(part) for part in path.strip("/").split("/")]
        is_api = parts[0] == "api"
        owner, name, *rest = parts[2:] if is_api else parts[1:]
        repository = self.server.repositories.get(f"{owner}/{name}")
        if repository is None:
            self._refuse(404, "RepoNotFound")
            return
        verb, revision, *inside = rest or ["revision", "main"]
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            self._refuse(404, "RevisionNotFound")
            return
        is_member = self.headers.get("authorization") == f"Bearer {TOKEN}"
        if repository.is_gated and not is_member and verb != "revision":
            self._refuse(403 if self.headers.get("authorization") else 401, "GatedRepo")
            return
        files = repository.commits[sha]
        if verb == "revision":
            self._send_json({"id": f"{owner}/{name}", "sha": sha, "siblings": []})
        elif verb == "tree":
            recursive = "recursive=true" in self.path.lower()
            self._send_json(_tree(files, under="/".join(inside), recursive=recursive))
        elif verb == "resolve" and "/".join(inside) in files:
            self._send_file(files["/".join(inside)], sha)
        else:
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": sha})

    def _send_file(self, content: bytes, sha: str) -> None:
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": sha,
            "Accept-Ranges": "bytes",
        }
        status, wanted = 200, self.headers.get("range")
        if wanted is not None:
            first, last = map(int, wanted.removeprefix("bytes=").split("-"))
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            status, content = 206, content[first : last + 1]
        if self.command == "GET":
            self.server.sent_bytes += len(content)
        self._send(status, content, headers)

    def _send_json(self, answer: object) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code, **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, text in headers.items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _tree(files: dict[str, bytes], *, under: str, recursive: bool) -> list[dict[str, object]]:
    prefix = f"{under}/" if under else ""
    entries: dict[str, dict[str, object]] = {}
    for path, content in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        folder, slash, _ = path.removeprefix(prefix).partition("/")
        if slash and not recursive:
            place = prefix + folder
            entries[place] = {"type": "directory", "path": place, "oid": "0" * 40, "size": 0}
        else:
            oid = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            entries[path] = {"type": "file", "path": path, "oid": oid, "size": len(content)}
    return list(entries.values())

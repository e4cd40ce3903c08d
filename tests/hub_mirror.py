"""A hub on this machine: folders served the way huggingface.co serves repositories.

    with mirror({"owner/model": folder}) as address: ... HF_ENDPOINT=address

Enough of the protocol for `transformers`, `tokenizers` and `datasets` to download through their own
code: revisions, file lists, files with their hashes, and what is missing.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", COMMIT)
API = re.compile(
    r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?"
)
FILE = re.compile(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub(ThreadingHTTPServer):
    """The server; `asked` are the paths of its requests."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = repositories
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body)

    def log_message(self, *_: object) -> None:
        """Silence."""

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        if match := FILE.fullmatch(path):
            return self._file(*match.groups())
        if match := API.fullmatch(path):
            return self._api(*match.groups())
        return self._missing("RepoNotFound")

    def _api(self, name: str, verb: str | None, revision: str | None, within: str | None) -> None:
        folder = self.server.repositories.get(name)
        if folder is None:
            return self._missing("RepoNotFound")
        if (revision or "main") not in REVISIONS:
            return self._missing("RevisionNotFound")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        rows = [entry(path, folder) for path in files]
        if verb in ("tree", "paths-info"):
            return self._json([row for row in rows if row["path"].startswith(within or "")])
        listed = [{"rfilename": row["path"]} for row in rows]
        return self._json(
            {"id": name, "sha": COMMIT, "siblings": listed, "tags": [], "private": False}
        )

    def _file(self, name: str, revision: str, inside: str) -> None:
        folder = self.server.repositories.get(name)
        if folder is None:
            return self._missing("RepoNotFound")
        if revision not in REVISIONS:
            return self._missing("RevisionNotFound")
        path = folder / inside
        if not path.is_file():
            return self._missing("EntryNotFound")
        text = path.read_bytes()
        return self._send(text, "ETag", f'"{hashlib.sha256(text).hexdigest()}"')

    def _json(self, found: Any) -> None:
        self._send(json.dumps(found).encode(), "Content-Type", "application/json")

    def _send(self, text: bytes, name: str, value: str) -> None:
        """A body under a header of its own; the header alone where that is all that is asked."""
        self.send_response(200)
        self.send_header(name, value)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def entry(path: Path, folder: Path) -> dict[str, Any]:
    """A file as a listing of a repository's tree has it."""
    text = path.read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
    return {"type": "file", "path": str(path.relative_to(folder)), "size": len(text), "oid": oid}


@contextmanager
def mirror(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """Serves folders as repositories, by name."""
    hub = Hub(repositories)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()

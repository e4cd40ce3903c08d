"""Downloads that fail: one message, and what came is kept."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atkd.data import sources
from atkd.runtime import network
from atkd.runtime.files import InputError

BODY = b'[{"instruction": "Go."}]'
ENTRY = {"sha256": hashlib.sha256(BODY).hexdigest()}


class Cut(http.server.BaseHTTPRequestHandler):
    """Hangs up half-way, unless it is asked for the rest."""

    def do_GET(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        self.wfile.write(BODY[start:] if start else BODY[:9])

    def log_message(self, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cut) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies that it found first
    for name in network.VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.case(
    "data",
    "A server that hangs up in the middle of a download",
    "cannot be fetched (9 of 24 bytes came); run again to resume",
)
def test_a_download_that_was_cut_goes_on(says: str, server: str, tmp_path: Path) -> None:
    entry = ENTRY | {"url": f"{server}/rows.json"}
    with pytest.raises(InputError) as caught:
        sources.download(entry, tmp_path)
    assert says in str(caught.value)
    assert sources.download(entry, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("url", "variable", "value"),
    [
        pytest.param(
            "https://example.invalid/rows.json", "HTTPS_PROXY", "http://proxy:port",
            marks=pytest.mark.case(
                "machine",
                "A download with a malformed HTTPS_PROXY",
                "https://example.invalid/rows.json: cannot be fetched (nonnumeric port: 'port'; "
                "the environment sets HTTPS_PROXY, which connections obey); run again to resume",
            ),
        ),
        pytest.param(
            "http://127.0.0.1:1/rows.json", "SSL_CERT_FILE", "/nowhere.pem",
            marks=pytest.mark.case(
                "machine",
                "A download from a server that is not there, with an SSL_CERT_FILE",
                "http://127.0.0.1:1/rows.json: cannot be fetched ([Errno 111] Connection refused; "
                "the environment sets SSL_CERT_FILE, which connections obey); run again to resume",
            ),
        ),
        pytest.param(
            "rows.json", "ALL_PROXY", "",
            marks=pytest.mark.case(
                "data",
                "A download whose url has no scheme",
                "rows.json: cannot be fetched (unknown url type: 'rows.json'); run again to resume",
            ),
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_fetched_is_one_message(
    url: str, variable: str, value: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError) as caught:
        sources.download(ENTRY | {"url": url}, tmp_path)
    assert str(caught.value) == says


@pytest.mark.case(
    "machine",
    "A hub data set with a malformed HTTPS_PROXY",
    "owner/rows: cannot be loaded at main (Invalid port: 'port'; the environment sets HTTPS_PROXY, "
    "which connections obey)",
)
def test_a_hub_that_cannot_be_reached_is_one_message(
    says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OddError(Exception):
        """Of an HTTP client: no kind that is known here."""

    def load_dataset(*_: Any, **__: Any) -> None:
        raise OddError("Invalid port: 'port'")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:port")
    with pytest.raises(InputError) as caught:
        list(sources.read_hub({"id": "owner/rows"}, []))
    assert str(caught.value) == says

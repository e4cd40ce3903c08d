"""A chat-completion server on this machine that answers, or fails in the way a test asks for."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, bytes]
Script = Callable[["Server", str, int], Reply | None]


def completion(text: str, tokens: int | None = 30) -> Reply:
    """A proper reply."""
    usage = {} if tokens is None else {"usage": {"total_tokens": tokens}}
    body = {"id": "c", "choices": [{"message": {"content": text}, "finish_reason": "stop"}]} | usage
    return 200, json.dumps(body).encode()


def ratings(bias: int = 0) -> Script:
    """Rates each text by the number it holds in brackets; what stands first gets `bias` more."""

    def script(server: Server, prompt: str, attempt: int) -> Reply:
        first, second = (int(found) for found in re.findall(r"\[(\d+)\]", prompt))
        return completion(f"Ratings: {first + bias} {second}")

    return script


class Server(ThreadingHTTPServer):
    """`script(server, prompt, attempt)` gives status and body, None cuts the reply short."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, script: Script, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.script, self.lock = script, threading.Lock()
        self.seen: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.attempts: dict[str, int] = {}
        self.open = self.most_open = 0
        self.headers: dict[str, str] = {}
        self.pause_s = 0.0  # after each byte
        self.deaf = False  # for scripts that answer in vain

    @property
    def endpoint(self) -> str:
        """The address to configure."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_POST(self) -> None:
        """Answers by the script."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt, server = body["messages"][0]["content"], self.server
        with server.lock:
            server.seen.append(body)
            server.keys.add(self.headers["authorization"])
            server.attempts[prompt] = attempt = server.attempts.get(prompt, 0) + 1
            server.open += 1
            server.most_open = max(server.most_open, server.open)
        try:
            self._send(server.script(server, prompt, attempt))
        finally:
            with server.lock:
                server.open -= 1

    def _send(self, reply: Reply | None) -> None:
        status, body = reply or completion("Ratings: 1 1")
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        body = body if reply else body[: len(body) // 2]
        step = 1 if self.server.pause_s else max(len(body), 1)
        for place in range(0, len(body), step):
            self.wfile.write(body[place : place + step])
            time.sleep(self.server.pause_s)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def serving(script: Script, port: int = 0) -> Iterator[Server]:
    """A server for the block; after it nobody listens."""
    server = Server(script, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Waits for a condition, and fails without it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)

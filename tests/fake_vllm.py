"""A stand-in of `vllm serve`: the part of its protocol that is used, answered by transformers.

    write(folder)   puts a command `vllm` into a folder, for PATH

What it says and refuses follows vLLM's OpenAI-compatible server; greedy answers alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ASKED = {"model", "prompt", "max_tokens", "temperature", "seed", "return_token_ids",
         "stop_token_ids", "skip_special_tokens"}  # fmt: skip


def write(folder: Path) -> Path:
    """A folder with the command."""
    folder.mkdir(parents=True, exist_ok=True)
    command = folder / "vllm"
    command.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({__file__!r}, "
                       "run_name='__main__')\n", "utf-8")  # fmt: skip
    command.chmod(0o755)
    return folder


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Any

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._send(200 if self.path == "/health" else 404, b"")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/completions" or {*asked} - ASKED or asked["model"] != "model":
            return self._send(400, json.dumps({"error": {"message": "bad request"}}).encode())
        ids, why = self.server.answer(
            asked["prompt"], asked["max_tokens"], asked["stop_token_ids"], asked["temperature"]
        )
        choice = {"index": 0, "text": "", "finish_reason": why, "token_ids": ids}
        made = {"id": "1", "object": "text_completion", "created": 0, "model": "model",
                "choices": [choice]}  # fmt: skip
        return self._send(200, json.dumps(made).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """A model that answers one prompt at a time."""

    daemon_threads = True

    def __init__(self, port: int, folder: str, context: int) -> None:
        import threading

        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.context, self.one = context, threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    def answer(
        self, prompt: list[int], room: int, stops: list[int], temperature: float
    ) -> tuple[list[int], str]:
        """Ids of a greedy answer, its stop among them, and why it ended."""
        import torch

        assert temperature == 0 and len(prompt) + room <= self.context
        ids = list(prompt)
        with self.one, torch.no_grad():
            for _ in range(room):
                ids.append(int(self.model(torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] in stops:
                    return ids[len(prompt) :], "stop"
        return ids[len(prompt) :], "length"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("folder")
    for name in ("served-model-name", "host", "port", "dtype", "max-model-len"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    if args.dtype not in ("float32", "bfloat16"):
        raise SystemExit(f"unknown dtype {args.dtype}")
    Server(int(args.port), args.folder, int(args.max_model_len)).serve_forever()


if __name__ == "__main__":
    main()

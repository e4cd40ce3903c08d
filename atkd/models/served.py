"""Answers by a vLLM server that a job starts for its model, in place of this process's own.

An extra (`pip install vllm`). The server is asked over HTTP for ids by ids, so that text is never
split anew; it takes many prompts at once and fills its batches itself. Sampled answers are seeded,
but are others than this package's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from atkd.models.tokenizers import vocabulary_size
from atkd.runtime import packages
from atkd.runtime.files import InputError
from atkd.runtime.progress import Progress

COMMAND, NAME = "vllm", "model"
AT_ONCE = 256  # requests under way
PATIENCE = 900.0  # seconds until it has to be ready: it compiles and reads the weights
PAUSE = 0.5


@contextlib.contextmanager
def serving(folder: Path, dtype: str, context: int) -> Iterator[str]:
    """A server of the model in a folder; its address. InputError if it does not start."""
    packages.check_command(COMMAND, "compute.answers")
    port = _free_port()
    line = [COMMAND, "serve", str(folder), "--served-model-name", NAME, "--host", "127.0.0.1"]
    line += ["--port", str(port), "--dtype", dtype, "--max-model-len", str(context)]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(process, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, log: Any) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(PAUSE)
    log.seek(0)
    said = [text for text in log.read().splitlines() if text.strip()]
    why = said[-1][:200] if said else f"not ready after {PATIENCE:.0f} seconds"
    raise InputError(f"vllm serve: did not start ({why})")


def answers(
    address: str,
    prompts: Sequence[list[int]],
    keys: Sequence[str],
    rooms: Sequence[int],
    tokenizer: Any,
    temperature: float,
    progress: Progress,
) -> list[list[int]]:
    """Ids of an answer to each prompt, as `generation.answers` gives them.

    InputError if the model chose an id that the tokenizer has not.
    """
    import openai

    client = openai.OpenAI(base_url=address, api_key=os.environ.get("VLLM_API_KEY", "none"))
    size, eos = vocabulary_size(tokenizer), tokenizer.eos_token_id

    def ask(at: int) -> list[int]:
        seed = int.from_bytes(hashlib.sha256(keys[at].encode()).digest()[:4], "big") // 2
        extra = {"return_token_ids": True, "stop_token_ids": [eos], "skip_special_tokens": False}
        made = client.completions.create(
            model=NAME, prompt=prompts[at], max_tokens=rooms[at], temperature=temperature,
            seed=seed, extra_body=extra,
        ).choices[0]  # fmt: skip
        ids = list((made.model_extra or {}).get("token_ids") or ())
        if made.finish_reason == "stop" and ids[-1:] != [eos]:
            ids.append(eos)
        if ids and max(ids) >= size:
            raise InputError(f"vllm: an answer holds the id {max(ids)}; expected less than {size}")
        progress.add(tokens=len(ids))
        return ids

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(ask, range(len(prompts))))

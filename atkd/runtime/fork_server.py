"""A process that has imported what jobs import, and becomes each of them by a fork.

    python -m atkd.runtime.fork_server SOCKET

Importing torch, transformers and lm-eval takes three CPU-seconds, which is most of a small job. A
workflow whose jobs run here, on CPUs, keeps one such process and names its socket in ATKD_WARM. A
stage's command line then hands itself over with its streams, folder and environment, and ends with
the status that comes back. Where nobody answers, or another Python does, it runs by itself. Only
packages are imported beforehand, never this one, so that edits count at once.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VARIABLE = "ATKD_WARM"
ACCEPTED = "accepted\n"
LONGEST = 103  # bytes of a socket's path on all systems
PREPARED = ("accelerate", "lm_eval.evaluator", "safetensors.torch")
# The environment and the package that two command lines must share to run in one process.
HERE = [str(Path(place).resolve()) for place in (sys.prefix, Path(__file__).parents[1])]


def start(modules: Sequence[str] = ()) -> subprocess.Popen[bytes] | None:
    """Starts the process for the jobs of this one; keep it, for it ends when it is let go.

    `modules`: what these jobs need beside PREPARED, as their models' code. None where the
    environment has ATKD_WARM, if only set to nothing, or where no folder can hold a socket.
    """
    if VARIABLE in os.environ:
        return None
    path = _place()
    if path is None:
        return None
    os.environ[VARIABLE] = str(path)
    command = [sys.executable, "-m", "atkd.runtime.fork_server", str(path)]
    command += ["--packages", *PREPARED, *modules]
    return subprocess.Popen(command, stdin=subprocess.PIPE, cwd=Path(HERE[1]).parent)


def _place() -> Path | None:
    """A path for a socket, in the folder for temporary files or, where that is long, in /tmp."""
    for folder in (None, "/tmp"):
        try:
            made = tempfile.mkdtemp(prefix="atkd-", dir=folder)
        except OSError:
            continue
        path = Path(made, "socket")
        if len(os.fsencode(path)) <= LONGEST:
            return path
        os.rmdir(made)
    return None


def hand_over(module: str = "atkd") -> int | None:
    """Exit status of this command line of `module`, run by the server; None where there is none."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    order = {"here": HERE, "module": module, "argv": sys.argv, "folder": os.getcwd()}
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(path)
            socket.send_fds(line, [b"\n"], [0, 1, 2])
            line.sendall(json.dumps(order | {"environment": environment}).encode() + b"\n")
            replies = line.makefile()
            if replies.readline() != ACCEPTED:
                return None
        except OSError:
            return None
        with contextlib.suppress(OSError):
            if status := replies.readline():
                return int(status)
        return 128 + signal.SIGKILL  # no word: it was killed


def serve(path: str, packages: Sequence[str]) -> None:
    """Imports the packages, then forks for every connection until standard input ends."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen(64)
        prepare(packages)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
        while True:
            ready, _, _ = select.select([door, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            line, _ = door.accept()
            if os.fork() == 0:
                door.close()
                work(line)
            line.close()


def prepare(packages: Sequence[str]) -> None:
    """Imports what jobs need, once, and keeps it from the garbage collector."""
    gc.disable()
    for name in packages:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()


def work(line: socket.socket) -> None:
    """The forked child: runs the command line of the other end, and ends with it."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _, streams, _, _ = socket.recv_fds(line, 1, 3)
        order = json.loads(line.makefile().readline())
        if order["here"] != HERE:
            return
        line.sendall(ACCEPTED.encode())
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        end_with(line)
        status = run(order)
        fcntl.fcntl(line, fcntl.F_SETFL, 0)
        line.sendall(str(status).encode())
    finally:
        os._exit(status)


def end_with(line: socket.socket) -> None:
    """Kills this process when the other end is closed."""
    signal.signal(signal.SIGIO, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    fcntl.fcntl(line, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(line, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([line], [], [], 0)[0]:
        os._exit(1)


def run(order: dict[str, Any]) -> int:
    """Runs an order's command line; returns its exit status."""
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = order["argv"]
    keep_to_threads()
    status: Any = 0
    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return status if isinstance(status, int) else int(status is not None)


def keep_to_threads() -> None:
    """Does what torch, imported before OMP_NUM_THREADS was known, would have done by itself."""
    if "torch" in sys.modules and os.environ.get("OMP_NUM_THREADS", "").isdigit():
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def main() -> None:
    """Serves command lines at a socket until standard input ends."""
    parser = argparse.ArgumentParser(
        prog="python -m atkd.runtime.fork_server", description=main.__doc__
    )
    parser.add_argument("socket", help="path of the socket to make")
    parser.add_argument("--packages", nargs="*", default=PREPARED, help="what to import")
    args = parser.parse_args()
    path = Path(args.socket)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            serve(args.socket, args.packages)
    except Exception as error:  # of imports: there is no common kind; jobs do them by themselves
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"fork server: ended ({said}); every job imports by itself", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()


if __name__ == "__main__":
    main()

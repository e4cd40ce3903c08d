"""Command lines run by a process that has imported their packages: same streams, same endings."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import ROOT

from atkd.runtime import fork_server

JOB = """
import os, sys, time
from atkd.runtime import cli, fork_server
from atkd.runtime.files import InputError

def main():
    what = sys.argv[1]
    if what == "wait":
        print(os.getpid(), flush=True)
        time.sleep(60)
    if what == "bad input":
        raise InputError("key: found 3; expected 4")
    if what == "error":
        raise RuntimeError("broken")
    if what == "threads":
        import torch
        print(torch.get_num_threads())
    if what == "exit":
        sys.exit("ends early")
    os.environ["LATER"] = "mine"
    print(what, sys.argv, os.getcwd(), os.environ["COLOUR"], "json" in sys.modules)
    print("parent", os.getppid(), file=sys.stderr)

if __name__ == "__main__":
    if (status := fork_server.hand_over("job")) is not None:
        raise SystemExit(status)
    cli.run(main)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the job's module lies."""
    made = tmp_path_factory.mktemp("job")
    (made / "job.py").write_text(JOB, encoding="utf-8")
    return made


def environment(folder: Path, socket: Path | None) -> dict[str, str]:
    paths = os.pathsep.join([str(folder), str(ROOT)])
    found = os.environ | {"PYTHONPATH": paths, "COLOUR": "blue"}
    return found | {"ATKD_WARM": "" if socket is None else str(socket)}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def serving(
    folder: Path, socket: Path, root: Path = ROOT, packages: tuple[str, ...] = ("json", "argparse")
) -> subprocess.Popen[bytes]:
    """A fork server, by default one that has imported little."""
    socket.parent.mkdir()
    python = Path(sys.executable).with_name("python3")  # an environment's Python has several names
    command = [str(python), "-m", "atkd.runtime.fork_server", str(socket), "--packages", *packages]
    clean = environment(folder, None) | {"PYTHONPATH": os.pathsep.join([str(folder), str(root)])}
    made = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=root, env=clean)
    until(socket.exists)
    return made


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    socket = tmp_path / "room" / "socket"
    process = serving(folder, socket)
    yield socket, process
    process.kill()
    process.communicate()


def job(folder: Path, socket: Path | None, *words: str) -> subprocess.CompletedProcess[str]:
    """The job's command line, run to its end."""
    command = [sys.executable, "-m", "job", *words]
    options = {"env": environment(folder, socket), "capture_output": True, "text": True}
    return subprocess.run(command, cwd=folder, timeout=30, **options)


@pytest.mark.parametrize("what", ["plain words", "bad input", "exit", "error"])
def test_a_handed_over_command_line_ends_as_it_would_by_itself(
    what: str, folder: Path, server: tuple[Path, subprocess.Popen[bytes]]
) -> None:
    socket, process = server
    alone, forked = (job(folder, place, what) for place in (None, socket))
    assert forked.returncode == alone.returncode
    assert forked.stdout == alone.stdout
    if what == "plain words":
        assert f"parent {process.pid}" in forked.stderr and str(process.pid) not in alone.stderr
    elif what == "error":
        for made in (alone, forked):
            assert made.stderr.splitlines()[-1] == "RuntimeError: broken"
    else:
        assert forked.stderr == alone.stderr != ""


def test_what_a_job_changes_stays_its_own(
    folder: Path, server: tuple[Path, subprocess.Popen[bytes]]
) -> None:
    first, second = (job(folder, server[0], "plain words").stdout for _ in range(2))
    assert first == second


@pytest.fixture
def asking(
    folder: Path, server: tuple[Path, subprocess.Popen[bytes]]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command line that waits for its job, and the job's process number."""
    command = [sys.executable, "-m", "job", "wait"]
    options = {"env": environment(folder, server[0]), "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, **options) as process:
        yield process, int(process.stdout.readline())
        process.kill()


def test_a_job_dies_with_the_command_line_that_asked_for_it(
    folder: Path,
    server: tuple[Path, subprocess.Popen[bytes]],
    asking: tuple[subprocess.Popen[bytes], int],
) -> None:
    process, number = asking
    assert number != process.pid and psutil.pid_exists(number)
    process.kill()
    until(lambda: not psutil.pid_exists(number))
    assert job(folder, server[0], "plain words").returncode == 0


def test_a_killed_job_is_reported_as_killed(
    asking: tuple[subprocess.Popen[bytes], int],
) -> None:
    process, number = asking
    os.kill(number, signal.SIGKILL)
    assert process.wait(timeout=20) == 128 + signal.SIGKILL


def test_it_ends_with_its_standard_input_and_leaves_nothing(
    server: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    socket, process = server
    process.stdin.close()
    assert process.wait(timeout=20) == 0
    assert not socket.parent.exists()


def test_without_a_fork_server_a_command_line_runs_by_itself(folder: Path, tmp_path: Path) -> None:
    alone = job(folder, tmp_path / "nobody", "plain words")
    assert alone.returncode == 0 and f"parent {os.getpid()}" in alone.stderr


@pytest.mark.parametrize("count", ["1", "3"])
def test_a_job_keeps_to_its_threads(
    count: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = serving(folder, tmp_path / "room" / "socket", packages=("torch",))
    monkeypatch.setenv("OMP_NUM_THREADS", count)
    try:
        found = job(folder, tmp_path / "room" / "socket", "threads")
    finally:
        process.kill()
        process.communicate()
    assert found.stdout.splitlines()[0] == count


def test_another_packages_process_is_not_asked(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "atkd", tmp_path / "other/atkd")
    process = serving(folder, tmp_path / "room" / "socket", tmp_path / "other")
    try:
        found = job(folder, tmp_path / "room" / "socket", "plain words")
    finally:
        process.kill()
        process.communicate()
    assert found.returncode == 0 and f"parent {os.getpid()}" in found.stderr


def started(
    monkeypatch: pytest.MonkeyPatch, folder: str, modules: tuple[str, ...] = ()
) -> subprocess.Popen[bytes] | None:
    """A server for this process's jobs, where temporary files go to `folder`."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, folder)
    monkeypatch.setattr(fork_server, "PREPARED", ("json",))
    monkeypatch.setenv(fork_server.VARIABLE, "")  # so that it is restored after the test
    monkeypatch.delenv(fork_server.VARIABLE)
    return fork_server.start(modules)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            "a" * 90,
            marks=pytest.mark.case(
                "machine",
                "A TMPDIR so long that a socket's path in it has more than 107 bytes",
                "The socket stands in /tmp; jobs run as elsewhere.",
            ),
        ),
        pytest.param(
            "nowhere",
            marks=pytest.mark.case(
                "machine",
                "A TMPDIR that does not exist",
                "The socket stands in the next folder for temporary files; jobs run as elsewhere.",
            ),
        ),
    ],
)
def test_a_folder_for_temporary_files_that_does_not_do(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "nowhere":
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
    process = started(monkeypatch, str(tmp_path / name))
    assert process is not None
    place = Path(os.environ[fork_server.VARIABLE])
    try:
        assert len(os.fsencode(place)) < 108 and tmp_path not in place.parents
        until(place.exists)
        found = job(folder, place, "plain words")
        assert f"parent {process.pid}" in found.stderr
    finally:
        process.communicate()
    assert not place.parent.exists()
    assert name == "nowhere" or not list((tmp_path / name).iterdir())


@pytest.mark.case(
    "machine",
    "No folder for temporary files can be written",
    "No fork server; every job imports by itself.",
)
def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdtemp(**_: Any) -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    assert started(monkeypatch, "/nowhere") is None
    assert fork_server.VARIABLE not in os.environ


@pytest.mark.case(
    "machine",
    "A fork server that dies at its start, for a package that cannot be imported",
    "fork server: ended (ModuleNotFoundError: No module named 'no_such_model'); every job imports "
    "by itself",
)
def test_a_server_that_dies_at_its_start(
    says: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    process = started(monkeypatch, str(tmp_path), ("no_such_model",))
    assert process is not None
    found = job(folder, Path(os.environ[fork_server.VARIABLE]), "plain words")
    assert process.wait(timeout=20) == 1
    process.communicate()
    assert found.returncode == 0 and f"parent {os.getpid()}" in found.stderr
    assert capfd.readouterr().err == f"{says}\n" and not list(tmp_path.iterdir())


def test_a_socket_that_hangs_up(folder: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        door.listen()
        command = [sys.executable, "-m", "job", "plain words"]
        options = {"env": environment(folder, tmp_path / "door"), "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, **options) as alone:
            door.accept()[0].close()  # unread: the other end's next read fails
            said = alone.communicate()[1].decode()
        assert alone.returncode == 0 and f"parent {os.getpid()}" in said

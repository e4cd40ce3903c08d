"""Devices are handed out once each, waited for, and free again when their job ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from atkd import __main__
from atkd.runtime import devices
from atkd.runtime.devices import VISIBLE
from atkd.runtime.files import InputError

# Claims devices, says which, and holds them until it may go.
JOB = """
import os, sys
from atkd.runtime import devices
devices.claim(int(sys.argv[1]), [0, 1, 2])
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
{then}
"""
WAITS = JOB.format(then="sys.stdin.read()")
BECOMES = JOB.format(then="os.execvp('cat', ['cat'])")  # as a job of several processes does


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of this test alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(devices.tempfile, "tempdir", None)
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr(devices, "PAUSE", 0.01)


def start(count: int, code: str = WAITS) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def got(job: subprocess.Popen[str]) -> str:
    assert job.stdout
    return job.stdout.readline().strip()


@pytest.mark.parametrize("code", [WAITS, BECOMES])
def test_jobs_get_devices_of_their_own_and_wait_for_free_ones(code: str) -> None:
    first, second = start(2, code), start(1, code)
    try:
        assert sorted(f"{got(first)},{got(second)}".split(",")) == ["0", "1", "2"]
        third = start(2)
        assert third.stderr and third.stderr.readline() == "waiting for 2 of 3 GPUs\n"
        first.communicate()
        assert len(got(third).split(",")) == 2
        third.communicate()
    finally:
        first.kill()
        second.kill()
        first.communicate()
        second.communicate()


def test_a_killed_job_holds_nothing() -> None:
    job = start(3)
    assert got(job) == "0,1,2"
    job.kill()
    job.communicate()
    after = start(3)
    assert got(after) == "0,1,2"
    after.communicate()


def test_nothing_is_taken_where_nothing_is_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    devices.claim(0, [0, 1])
    devices.claim(1, [])
    assert VISIBLE not in devices.os.environ and not devices.locks().exists()
    monkeypatch.setenv(VISIBLE, "3")
    devices.claim(1, [0, 1])
    assert devices.os.environ[VISIBLE] == "3" and not devices.locks().exists()


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match=r"compute\.gpus: a job asks for 3; this machine has 2"):
        devices.claim(3, [0, 1])


def test_devices_are_those_that_the_system_lists(tmp_path: Path) -> None:
    for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert devices.present(tmp_path) == [2, 10]


CONFIG = "config/smoke.yaml"
TRAIN = ["train", "--config", CONFIG, "--run", "models/opt/1.3b/seed1/teacher"]
ANSWER = ["evaluate", "--config", CONFIG, "--run", "opt/125m/-/sft/1"]


@pytest.mark.parametrize(("line", "processes"), [(TRAIN, 2), (ANSWER, 0)])
def test_a_training_on_several_devices_becomes_several_processes(
    line: list[str], processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atkd import config

    asked, became = [], []
    loaded = config.load
    monkeypatch.setattr(config, "load", lambda path: with_gpus(loaded(path), 2))
    monkeypatch.setattr(devices, "claim", asked.append)
    monkeypatch.setattr(__main__.os, "execv", lambda path, argv: became.append(argv))
    monkeypatch.setattr(__main__, "import_module", lambda name: pytest.skip.Exception)
    monkeypatch.setattr(sys, "argv", ["atkd", *line])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(AttributeError):  # the stage is not there to be run
        __main__.run(line[0], __main__.STAGES[line[0]])
    assert asked == [2 if processes else 1]
    assert [f"--nproc-per-node={processes}" in argv for argv in became] == [True][: processes // 2]
    if became:
        assert became[0][-4:] == line[1:] and became[0][:2] == [sys.executable, "-m"]


def with_gpus(found: dict, count: int) -> dict:
    return found | {"compute": found["compute"] | {"device": "auto", "gpus": count}}

"""The GPUs of one machine, handed out to the jobs of its runs: a lock for each.

Snakemake counts GPUs but does not say which one is whose, so that jobs would all take the first. A
job takes the locks of as many devices as it asks for and sees those alone, until it ends; a dead
one holds nothing. Where CUDA_VISIBLE_DEVICES is set, by SLURM or by a person, it decides.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from atkd.runtime.files import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"
PAUSE = 0.5  # seconds between two looks for a free device
_held: list[IO[str]] = []  # open as long as this process lives


def present(folder: Path = Path("/dev")) -> list[int]:
    """Numbers of the machine's GPUs."""
    names = (re.fullmatch(r"nvidia(\d+)", path.name) for path in folder.glob("nvidia*"))
    return sorted(int(name[1]) for name in names if name)


def locks() -> Path:
    """The folder of the locks, one per user of the machine."""
    return Path(tempfile.gettempdir()) / f"atkd-devices-{os.getuid()}"


def claim(count: int, devices: list[int] | None = None) -> None:
    """Waits for `count` free devices and shows this process, and what it starts, those alone.

    Does nothing where CUDA_VISIBLE_DEVICES is set, nothing is asked for, or there is no GPU (which
    is for the job to say). InputError if the machine has fewer than asked for.
    """
    devices = present() if devices is None else devices
    if VISIBLE in os.environ or not count or not devices:
        return
    if count > len(devices):
        raise InputError(
            f"config key compute.gpus: a job asks for {count}; this machine has {len(devices)}"
        )
    locks().mkdir(mode=0o700, exist_ok=True)
    told = False
    while not (taken := _take(count, devices)):
        if not told:
            print(f"waiting for {count} of {len(devices)} GPUs", file=sys.stderr, flush=True)
        told = True
        time.sleep(PAUSE)
    os.environ[VISIBLE] = ",".join(map(str, taken))


def _take(count: int, devices: list[int]) -> list[int]:
    """Locks `count` devices, or none."""
    import fcntl  # of POSIX alone

    found: dict[int, IO[str]] = {}
    for device in devices:
        handle = open(locks() / str(device), "a", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            continue
        os.set_inheritable(handle.fileno(), True)
        found[device] = handle
        if len(found) == count:
            _held.extend(found.values())
            return list(found)
    for handle in found.values():
        handle.close()
    return []

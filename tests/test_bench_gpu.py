"""The GPU benchmark's lines, run at tiny sizes on a processor."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from helpers import ROOT


def test_the_script_measures_what_is_there_and_names_what_is_not(tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--device", "cpu", "--small"]
    line += ["--rounds", "1", "--output", str(tmp_path / "gpu.md")]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "gpu.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", said, re.MULTILINE))
    for own in ("ATKD, unknown", "JSD", "DKD", "ATKD, live, 125M <- toy", "125M, this harness"):
        assert re.fullmatch(r"[\d,.]+", rows[own]), (own, rows[own])
    assert re.fullmatch(r"[\d,.]+", rows["on-policy ATKD, 125M <- toy"])
    peer = rows["DKD, orda-kernel"]
    assert re.fullmatch(r"[\d,.]+|not measured: .*orda_kernel.*", peer), peer
    assert "no orda-kernel" in said or "orda-kernel " in said
    none = subprocess.run([*line, "--budget", "-1"], capture_output=True, text=True, cwd=tmp_path)
    assert none.returncode == 0
    assert (
        none.stdout.count("not measured: out of time") == len(rows) - 4
    )  # but three heads and a rule

"""The examples run offline, in seconds, and the student comes closer to its teacher."""

from __future__ import annotations

import re
import runpy
import tempfile
from pathlib import Path

import pytest
from helpers import ROOT

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("name", ["plain_loop", "transformers_trainer", "trl_gkd"])
def test_examples_run(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name == "trl_gkd":
        monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        pytest.importorskip("trl", reason="the extra `trl` is not installed")
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    told = re.findall(r"\bloss(?:': ')? ?([\d.]+)", capsys.readouterr().out)
    losses = [float(loss) for loss in told]
    assert len(losses) == 4 and losses == sorted(losses, reverse=True) and losses[-1] > 0


def test_every_example_is_run() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {"plain_loop", "transformers_trainer", "trl_gkd", "tiny"}

"""The paper's configuration, every line of it but the downloads from afar, on stand-ins."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import ROOT
from hub_mirror import mirror
from rehearsal import FILES, SEVERAL, overlay, repositories

from atkd.forecast.shapes import KNOWN
from atkd.plan import Plan
from atkd.runtime.files import read_json


@pytest.mark.slow
def test_the_papers_configuration_ends_on_stand_ins(tmp_path: Path) -> None:
    if not os.environ.get("ATKD_DATA"):
        pytest.skip("no data root: set ATKD_DATA to a folder with data/ and tokenizers/")
    root = Path(os.environ["ATKD_DATA"]).resolve()
    with mirror(repositories(root, tmp_path / "hub")) as hub:
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(overlay(hub.address)), "utf-8")
        home = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
        line = [str(Path(sys.executable).with_name("snakemake")), "-s", str(ROOT / "Snakefile")]
        line += ["--directory", str(tmp_path / "run"), "--cores", "2", "--resources", "gpu=2"]
        line += ["--configfile", str(ROOT / "config/paper.yaml"), str(tmp_path / "small.yaml")]
        with open(tmp_path / "log", "w", encoding="utf-8") as log:
            done = subprocess.run(line, env=os.environ | home, stdout=log, stderr=log)
        assert done.returncode == 0, (tmp_path / "log").read_text("utf-8")[-4000:]
        asked = {path.split("/resolve/")[0].strip("/") for path in hub.asked}
        assert asked >= set(KNOWN) | {FILES}
    results = tmp_path / "run/results/paper"
    plan = Plan(read_json(results / "config.json"))
    with open(results / "scores.csv", encoding="utf-8") as handle:
        names = ("family", "student", "teacher", "method", "seed")
        scored = {"/".join(row[name] for name in names) for row in csv.DictReader(handle)}
    assert scored == {run.key for run in plan.runs} and len(scored) == 97
    assert (results / "index.html").is_file()
    for name in SEVERAL:
        family, size = ("opt", "6.7b") if "opt" in name else ("llama", "7b")
        facts = read_json(results / f"models/{family}/{size}/seed1/teacher/provenance.json")
        assert facts["settings"]["compute"]["sharded"] is True, facts

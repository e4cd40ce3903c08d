"""CONTRIBUTING's examples as they stand: each added to one file of a copied checkout, and run."""

from __future__ import annotations

import csv
import html
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, Snakemake, copy_of_checkout, smoke

# What is added -> the one file at whose end its example goes.
PLACES = {
    "divergence": "atkd/losses/divergences.py",
    "method": "atkd/methods.py",
    "study": "atkd/analyses.py",
    "task": "atkd/tasks.py",
    "family": "atkd/models/families.py",
    "metric": "atkd/evaluation/metrics.py",
    "figure": "atkd/reporting/figures.py",
    "table": "atkd/reporting/diagnostics.py",
}
PROBES = ("uncertainty", "landscape", "diversity", "curves", "explorer")
AGREES = """
import torch
from atkd import fused_kd_loss, kd_loss
noise = torch.Generator().manual_seed(0)
s, t = (torch.randn(9, 7, generator=noise, dtype=torch.float64) for _ in range(2))
s.requires_grad_()
y, eye = torch.randint(7, (9,), generator=noise), torch.eye(7, dtype=torch.float64)
for name, more in (("toy_divergence", {}), ("atkd", {"divergence": "toy_divergence"})):
    plain = kd_loss(name, s, t, y, **more)
    fused = fused_kd_loss(name, s, eye, t, eye, y, **more)
    for loss in (plain, fused):
        assert loss.item() > 0
    one, two = (torch.autograd.grad(loss, s)[0] for loss in (plain, fused))
    torch.testing.assert_close(plain, fused)
    torch.testing.assert_close(one, two)
"""


def examples() -> dict[str, str]:
    """The example of every addition; the sentence before it names its file."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = {}
    for match in re.finditer(r"([^\n]+)\n\n```python (\w+)\n(.*?)```", text, re.DOTALL):
        said, kind, code = match.groups()
        assert f"`{PLACES[kind]}`" in said, f"{kind}: the sentence before names another file"
        found[kind] = code
    assert found.keys() == PLACES.keys()
    return found


def config() -> dict[str, Any]:
    """Smoke with the toys in it."""
    found = smoke()
    models = found["families"]["llama"]["models"]
    found |= {
        "name": "toys",
        "pairs": [{"family": "toy2", "student": "68m", "teacher": "1.1b"}],
        "families": {"toy2": {"tokenizer": {"train": 400}, "models": models}},
        "methods": ["none", "sft", "supervised_kd", "supervised_kd_atkd", "toy_method"],
        "tasks": ["dolly", "mmlu"],
        "extra_tasks": ["toy_task"],
        "analyses": ["toy_study", *PROBES],
    }
    found["evaluation"]["limit"] = {"dolly": 4, "mmlu": 4, "toy_task": 4}
    return found


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory, snakemake: Snakemake) -> Path:
    """A finished run of a checkout to which every example was added."""
    root = copy_of_checkout(tmp_path_factory.mktemp("toys") / "checkout")
    for kind, code in examples().items():
        with open(root / PLACES[kind], "a", encoding="utf-8") as handle:
            handle.write(f"\n\n{code}")
    (root / "config/toys.yaml").write_text(yaml.safe_dump(config()), encoding="utf-8")
    done = snakemake(root, "--cores", "2", "--configfile", "config/toys.yaml", timeout=300)
    assert done.returncode == 0, done.stdout[-4000:]
    return root


def test_a_toy_of_each_is_added_by_one_file_and_runs(toys: Path) -> None:
    changed = {
        str(path.relative_to(toys))
        for path in (toys / "atkd").rglob("*.py")
        if path.read_bytes() != (ROOT / path.relative_to(toys)).read_bytes()
    }
    assert changed == set(PLACES.values()) and len(PLACES) == len(set(PLACES.values()))
    with open(toys / "results/toys/scores.csv", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["family"] for row in rows} == {"toy2"}
    assert {"toy_method", "supervised_kd"} <= {row["method"] for row in rows}
    assert {row["metric"] for row in rows if row["task"] == "toy_task"} >= {"score", "toy_metric"}


def test_toys_are_shown(toys: Path) -> None:
    results = toys / "results/toys"
    page = (results / "index.html").read_text(encoding="utf-8")
    shown = ("figures/toy_figure.svg", "figures/toy_figure.txt", "tables/toy_table.md")
    for name in (*shown, "figures/toy_study.svg", "tables/toy_study.md"):
        assert (results / name).is_file(), name
    title = (results / "tables/toy_table.md").read_text(encoding="utf-8").partition("\n")[0]
    assert 'alt="toy_figure"' in page and title.strip("*") in html.unescape(page)
    assert "Toy task (world)" in page and "Toy KD" in page


def test_probes_that_a_configuration_names_are_part_of_its_run(toys: Path) -> None:
    results = toys / "results/toys"
    page = (results / "index.html").read_text(encoding="utf-8")
    for name in PROBES[:-1]:
        assert (results / f"tables/{name}.md").is_file(), name
        title = (results / f"tables/{name}.md").read_text(encoding="utf-8").partition("\n")[0]
        assert html.escape(title.strip("*")) in page
    assert '<a href="explorer.html">' in page and (results / "explorer.html").is_file()


def test_snakemakes_own_report_holds_every_table_and_figure(
    toys: Path, snakemake: Snakemake
) -> None:
    line = ["--report", "report.html", "--configfile", "config/toys.yaml"]
    done = snakemake(toys, *line)
    assert done.returncode == 0, done.stdout[-3000:]
    page = (toys / "report.html").read_text(encoding="utf-8")
    results = toys / "results/toys"
    shown = [*(results / "figures").glob("*.svg"), *(results / "tables").glob("*.md")]
    assert len(shown) > 20
    for path in (*shown, results / "index.html"):
        assert path.name in page, path.name
    assert not re.search(r'<(?:script|link)[^>]+(?:src|href)="http', page)


def test_a_toy_divergence_is_the_same_in_every_form(toys: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGREES], cwd=toys, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr

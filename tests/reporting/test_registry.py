"""One function makes a table or figure: its files, its place on the page, captions, rules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT
from made_runs import change_record, judge_of, write_run

from atkd.reporting import figures, registry, report
from atkd.reporting.inputs import Numbers, Run
from atkd.reporting.table import Table
from atkd.statistics.estimates import read_record


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A table and a figure of their own."""
    registry.tables()
    monkeypatch.setattr(registry, "_TABLES", dict(registry._TABLES))
    monkeypatch.setattr(registry, "_FIGURES", dict(registry._FIGURES))

    @registry.table("toy_{family}", category="Toys", caption="Toys of a family.", section="toys")
    def toy(run: Run, family: str) -> Table:
        return Table(f"Toys of {family}", ["a", "b"], [["one", "two"]], ["noted"], run.cells)

    @registry.figure("toyplot", caption="A toy is drawn.", section="toys")
    def plot(numbers: Numbers) -> figures.Drawing:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots()
        axes.plot(numbers.cells.value)
        return figure, numbers.cells

    yield


def made(folder: Path, **options: object) -> Path:
    """A small run."""
    return write_run(folder, documents=4, tasks=("koala", "bbh", "unseen"), **options)


def test_one_function_is_a_table_everywhere(toys: None, tmp_path: Path) -> None:
    run = made(tmp_path, families=("opt", "llama"))
    names = registry.outputs(read_record(run / "run.json"))
    files = [f"tables/toy_{f}.{k}" for f in ("opt", "llama") for k in ("csv", "md", "tex", "json")]
    files += [f"figures/toyplot.{kind}" for kind in ("svg", "png", "txt")]
    assert set(files) <= set(names)
    report.redraw(run)
    assert all((run / name).is_file() for name in files)
    page = (run / "index.html").read_text()
    section = page.split('<h2 id="toys">Toys</h2>')[1].split("<h2")[0]
    for words in ("Toys of opt", "Toys of llama", "noted", "A toy is drawn.", "image/svg+xml"):
        assert words in section
    assert '<a href="#toys">Toys</a>' in page
    shown = {found.path: found for found in registry.table_outputs(read_record(run / "run.json"))}
    assert shown["tables/toy_opt.csv"].category == "Toys"
    assert shown["tables/toy_opt.csv"].shows == "Toys of a family"
    assert not shown["tables/toy_opt.md"].category


@pytest.mark.parametrize("judge", [False, True])
def test_a_run_writes_what_was_said(judge: bool, tmp_path: Path) -> None:
    """Of a run whose files hold all that its record promises, but secondary metrics."""
    run = made(tmp_path, families=("llama",))
    judge_of(run, llm=judge).to_csv(run / "documents.csv.gz", index=False)
    report.redraw(run, ROOT / "results/published.csv")
    names = registry.outputs(read_record(run / "run.json"))
    found = {f"{p.parent.name}/{p.name}" for kind in ("tables", "figures") for p in
             (run / kind).iterdir()}  # fmt: skip
    assert {name for name in names if "/secondary." not in name} == found
    assert len(names) == len(set(names))


def test_what_applies_follows_from_the_record(tmp_path: Path) -> None:
    run = made(tmp_path, families=("llama",), methods=("gkd",))

    def stems() -> set[str]:
        names = registry.outputs(read_record(run / "run.json"))
        return {Path(name).stem for name in names}

    plain = {"controls", "gains", "main_llama", "bits_per_byte_llama", "extra_llama", "costs"}
    plain |= {"published", "secondary", "estimates", "differences", "scaling", "scaling_llama"}
    plain |= {"claims", "efficiency"}
    assert stems() == plain | {"judge_agreement", "rouge_l_llama", "skills_llama"}
    assert not any(name.startswith("figures/gains") for name in
                   registry.outputs(read_record(run / "run.json")))  # fmt: skip
    change_record(run, source="local", extra_tasks=[])
    assert stems() == plain - {"extra_llama"}
    change_record(run, judge=True)
    assert {"judge_agreement", "judge_ratings", "rouge_l_llama"} <= stems()
    change_record(run, tasks=["mmlu"])
    assert stems() == plain - {"extra_llama"}
    key = "llama/68m/7b/gkd+test_template/1"
    change_record(run, runs=[*read_record(run / "run.json").runs, key])
    assert "deviations" in stems()


def test_names_are_known_without_what_draws_them() -> None:
    code = (
        "import sys, json\n"
        "from atkd.reporting import registry\n"
        "from atkd.statistics.estimates import read_record\n"
        "print(len(registry.outputs(read_record('results/reference/world/run.json'))))\n"
        "print(sorted({'pandas', 'numpy', 'matplotlib', 'jinja2', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    count, heavy = done.stdout.splitlines()
    assert int(count) > 80 and heavy == "[]"


def test_snakemakes_report_says_what_each_output_shows() -> None:
    found = {one.name: one.shows for one in (*registry.tables(), *registry.figures())}
    assert all(found.values()) and all(len(text) < 250 for text in found.values())
    assert found["scaling"] == "Student's average score against its teacher's size"


def test_the_frozen_run_is_what_its_record_says() -> None:
    folder = ROOT / "results/reference/world"
    names = registry.outputs(read_record(folder / "run.json"))
    found = {f"{p.parent.name}/{p.name}" for kind in ("tables", "figures")
             for p in (folder / kind).iterdir() if p.suffix != ".json"}  # fmt: skip
    assert {name for name in names if not name.endswith(".json")} == found

"""Figures: every one is drawn, the same bytes twice, and a corner of the grid is enough."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from helpers import ROOT
from made_runs import change_record, register_mine, write_run

from atkd.reporting import figures, score_tables
from atkd.reporting.inputs import run_in
from atkd.runtime.files import InputError


def drawn(folder: Path, **options: object) -> list[str]:
    """Draws a synthetic run's figures."""
    run = write_run(folder, **options)
    score_tables.draw(run_in(run), run / "tables")
    return figures.draw(run / "tables", run / "figures")


def test_every_figure_with_its_caption_and_fixed_bytes(tmp_path: Path) -> None:
    options = {"families": ("llama", "pythia"), "documents": 6, "tasks": ("koala", "bbh")}
    names = drawn(tmp_path, **options)
    plain = ["efficiency", "forest", "gains", "gap"]
    assert names == [*plain, "scaling", "scaling_llama", "scaling_pythia"]
    first = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert len(first) == 3 * len(names)
    figures.draw(tmp_path / "tables", tmp_path / "figures")
    for name, data in first.items():
        assert (tmp_path / "figures" / name).read_bytes() == data, name
    text = first["scaling.txt"].decode()
    for words in ("higher is better", "12 documents", "seeds: 1", "documents only", "analogues"):
        assert words in text


@pytest.mark.parametrize("gap", [0.0, 0.2, 5.0])
@pytest.mark.parametrize("upper", ["sft", "none"])
def test_labels_beside_a_panel_never_lie_on_each_other(gap: float, upper: str) -> None:
    values = {"sft": 20.0, "none": 20.0} | {upper: 20.0 + gap}
    rows = [{"method": m, "value": v, "label": m, "x": 0.0} for m, v in values.items()]
    rows.append({"method": "teacher", "value": 60.0, "label": "Teacher", "x": 1e9})
    _, axes = figures.panels(figsize=(4, 2))
    figures.level_panel(axes, pd.DataFrame(rows), (18.0, 24.0))
    heights = [t.get_position()[1] for t in axes.texts if t.get_text().startswith(("sft", "none"))]
    low, high = axes.get_ylim()
    inches = abs(heights[0] - heights[1]) / (high - low) * 2 * axes.get_position().height
    assert len(heights) == 2 and inches > 7.5 / 72  # the size of the type


@pytest.mark.parametrize("methods", [(), ("mine",), ("seqkd", "mine_atkd", "mine")])
def test_draws_what_there_is(
    tmp_path: Path, methods: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    register_mine(monkeypatch)
    options = {"families": ("opt",), "documents": 2, "tasks": ("koala",), "methods": methods}
    names = drawn(tmp_path, **options)
    assert ("gains" in names) == ("forest" in names) == ("mine_atkd" in methods)
    assert "scaling_opt" in names


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, families=("opt",), documents=2, tasks=("koala",))
    with pytest.raises(InputError, match=r"tables: folder not found"):
        figures.draw(run / "tables", tmp_path)
    (run / "tables").mkdir()
    with pytest.raises(InputError, match=r"tables/\w+\.csv: expected a CSV"):
        figures.draw(run / "tables", tmp_path)


def test_captions_say_the_world_by_its_source(tmp_path: Path) -> None:
    options = {"families": ("opt",), "documents": 2, "tasks": ("koala",)}
    drawn(tmp_path, config="anything", **options)
    assert "analogues" in (tmp_path / "figures/scaling.txt").read_text()
    change_record(tmp_path, source="local", config="world")
    figures.draw(tmp_path / "tables", tmp_path / "figures")
    assert "analogues" not in (tmp_path / "figures/scaling.txt").read_text()


HOSTILE = """text.usetex: True
svg.fonttype: none
font.size: 30
figure.figsize: 1, 1
savefig.transparent: True
axes.formatter.use_locale: True
backend: module://nowhere
"""


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its figures drawn here."""
    folder = tmp_path_factory.mktemp("plain")
    drawn(folder, families=("opt",), documents=4, tasks=("koala", "bbh"))
    return folder


@pytest.mark.parametrize(
    ("place", "variables"),
    [
        pytest.param(
            "",
            {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONHASHSEED": "7",
             "SOURCE_DATE_EPOCH": "1", "LC_ALL": "de_DE.ISO-8859-1", "PYTHONIOENCODING": "ascii"},
            marks=pytest.mark.case(
                "machine",
                "MPLBACKEND=module://matplotlib_inline.backend_inline, as notebooks set it; "
                "another locale, SOURCE_DATE_EPOCH, PYTHONHASHSEED",
                "The figures have the bytes that they always have.",
            ),
        ),
        pytest.param(
            "matplotlibrc",
            {"MPLBACKEND": "nonsense", "MPLCONFIGDIR": "/proc/none", "HOME": "/proc/none"},
            marks=pytest.mark.case(
                "machine",
                "A matplotlibrc in the working folder (text.usetex, other fonts and sizes), an "
                "unknown MPLBACKEND, a home folder that cannot be written",
                "The figures have the bytes that they always have.",
            ),
        ),
        pytest.param(
            "own/rc",
            {"MATPLOTLIBRC": "own/rc", "PANDAS_COPY_ON_WRITE": "0",
             "PANDAS_FUTURE_INFER_STRING": "0"},
            marks=pytest.mark.case(
                "machine",
                "MATPLOTLIBRC names a file with text.usetex, other fonts and sizes",
                "The figures have the bytes that they always have.",
            ),
        ),
        ("config/matplotlibrc", {"MPLCONFIGDIR": "config"}),
        ("matplotlibrc", {"broken": "yes"}),
    ],
)  # fmt: skip
def test_figures_are_independent_of_the_users_settings(
    place: str, variables: dict[str, str], plain: Path, tmp_path: Path
) -> None:
    if place:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(HOSTILE)
        if "broken" in variables:
            (tmp_path / place).write_bytes(b"\xff\xfe no text")
    command = [sys.executable, "-m", "atkd", "figures", "--tables", str(plain / "tables")]
    command += ["--output", str(tmp_path / "figures")]
    there = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(command, cwd=tmp_path, env=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert bytes_of(tmp_path / "figures") == bytes_of(plain / "figures")


def test_settings_of_a_session_are_passed_over_and_left_alone(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATPLOTLIBRC", "mine")
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "svg.hashsalt": "x"}):
        backend = matplotlib.get_backend(auto_select=False)
        figures.draw(plain / "tables", tmp_path)
        assert matplotlib.rcParams["text.usetex"] and matplotlib.rcParams["font.size"] == 30
        assert matplotlib.get_backend(auto_select=False) == backend
    assert bytes_of(tmp_path) == bytes_of(plain / "figures")
    assert os.environ["MATPLOTLIBRC"] == "mine"

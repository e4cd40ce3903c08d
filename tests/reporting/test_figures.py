"""Figures: every one is drawn, the same bytes twice, and a corner of the grid is enough."""

from __future__ import annotations

from pathlib import Path

import pytest
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
    assert names == ["forest", "gains", "scaling", "scaling_llama", "scaling_pythia"]
    first = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert len(first) == 3 * len(names)
    figures.draw(tmp_path / "tables", tmp_path / "figures")
    for name, data in first.items():
        assert (tmp_path / "figures" / name).read_bytes() == data, name
    text = first["scaling.txt"].decode()
    for words in ("higher is better", "12 documents", "seeds: 1", "documents only", "analogues"):
        assert words in text


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
    with pytest.raises(InputError, match=r"estimates\.csv: expected a CSV"):
        figures.draw(run / "tables", tmp_path)


def test_captions_say_the_world_by_its_source(tmp_path: Path) -> None:
    options = {"families": ("opt",), "documents": 2, "tasks": ("koala",)}
    drawn(tmp_path, config="anything", **options)
    assert "analogues" in (tmp_path / "figures/scaling.txt").read_text()
    change_record(tmp_path, source="local", config="world")
    figures.draw(tmp_path / "tables", tmp_path / "figures")
    assert "analogues" not in (tmp_path / "figures/scaling.txt").read_text()

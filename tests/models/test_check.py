"""Teacher and student must read one tokenizer's ids: proven before anything trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atkd.models import check, tokenizers
from atkd.runtime import cli
from atkd.runtime.files import InputError, read_json

TEXT = [
    "the cat sat on the mat and the dog sat on the cat " * 4,
    "a man and a map met on a mat " * 4,
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family's tokenizer, the same in another folder, and a different one."""
    root = tmp_path_factory.mktemp("folders")
    for name, texts in (("opt", TEXT), ("same", TEXT), ("other", TEXT[::-1][:1])):
        tokenizers.save(tokenizers.train_tokenizer("opt", texts, 266), root / name)
    return root


def settings(root: Path, teacher: dict[str, Any]) -> dict[str, Any]:
    models = {"125m": {"build": {}}, "1.3b": teacher}
    return {
        "pairs": [{"family": "opt", "student": "125m", "teacher": "1.3b"}],
        "models": {"opt": models},
    }


def test_models_with_the_familys_ids_pass(folders: Path) -> None:
    found = check.check_pairs(settings(folders, {"folder": str(folders / "same")}), folders)
    assert [(row["size"], row["ids"], row["own_tokenizer"]) for row in found] == [
        ("125m", 266, False),
        ("1.3b", 266, True),
    ]


def test_another_tokenizer_is_named_with_the_first_id_that_differs(folders: Path) -> None:
    wrong = settings(folders, {"folder": str(folders / "other")})
    message = (
        r"families\.opt\.models\.1\.3b: teacher and student must share one tokenizer.* at id \d+"
    )
    with pytest.raises(InputError, match=message):
        check.check_pairs(wrong, folders)


def test_a_missing_folder_is_named(folders: Path) -> None:
    with pytest.raises(InputError, match=r"none is not a folder"):
        check.check_pairs(settings(folders, {"folder": str(folders / "none")}), folders)


def test_the_command_line_reports_or_ends_with_one_message(
    folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(name: str) -> None:
        chosen = json.dumps(settings(folders, {"folder": str(folders / name)}))
        line = ["check", "--settings", chosen, "--tokenizers", str(folders)]
        monkeypatch.setattr("sys.argv", [*line, "--output", str(tmp_path / f"{name}.json")])
        cli.run(check.main)

    run("same")
    assert len(read_json(tmp_path / "same.json")["tokenizers"]) == 2
    with pytest.raises(SystemExit):
        run("other")
    error = capsys.readouterr().err
    assert error.startswith("error: families.opt.models.1.3b: ") and error.count("\n") == 1
    assert not (tmp_path / "other.json").exists()

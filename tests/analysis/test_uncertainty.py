"""What models are certain of, against whole logits; statistics against plain computations."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from looked_at import command, numbered_rows, trained_on, write_files, write_models

from atkd.analysis import uncertainty
from atkd.analysis.uncertainty import BINS, REFERENCES, TRAINING
from atkd.data import prompts
from atkd.models import tokenizers
from atkd.runtime.files import write_csv, write_jsonl

RUNS = (
    "opt/-/1b/teacher/1", "opt/-/2b/teacher/1", "opt/1m/-/none/1", "opt/1m/-/sft/1",
    "opt/1m/2b/supervised_kd/1",
)  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The CSV of five random models on seven rows of each kind, by the command line."""
    folder = tmp_path_factory.mktemp("uncertainty")
    rows = numbered_rows(7)
    tokenizer = trained_on(rows, 275)
    models = write_models(folder, RUNS, tokenizer, scale=20)  # far from uniform
    write_files(folder, rows, tokenizer)
    write_jsonl(folder / "train.jsonl", rows[::-1])
    settings = json.dumps({"tasks": ["dolly"], "batch_size": 3, "rows": 5})
    argv = command("uncertainty run", folder, RUNS, settings, "one.csv")
    argv += ["--data", str(folder / "train.jsonl")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", argv)
        uncertainty.main()
    with open(folder / "one.csv", encoding="utf-8") as handle:
        table = list(csv.DictReader(handle))
    return {"rows": rows, "tokenizer": tokenizer, "models": models, "table": table}


def chances(found: dict[str, Any], run: str, rows: list[dict[str, str]]) -> list[float]:
    """The probability of every response token, from one sample's whole logits at a time."""
    tokenizer, values = found["tokenizer"], []
    for row in rows:
        asked = tokenizers.encode_prompt(tokenizer, prompts.template(row["instruction"]))
        said = tokenizers.encode_response(tokenizer, row["output"], eos=True)
        with torch.no_grad():
            logits = found["models"][run](torch.tensor([asked + said])).logits[0, :, :]
        vocabulary = tokenizers.vocabulary_size(tokenizer)
        p = logits[:, :vocabulary].double().softmax(-1)
        values += [p[len(asked) + at - 1, token].item() for at, token in enumerate(said)]
    return values


def values(found: dict[str, Any], texts: str, model: str, role: str) -> dict[str, float]:
    return {
        row["statistic"] + (f"/{row['student']}" if row["student"] else ""): float(row["value"])
        for row in found["table"]
        if (row["texts"], row["model"], row["role"]) == (texts, model, role)
    }


@pytest.mark.parametrize("texts", [TRAINING, REFERENCES])
def test_uncertainty_is_what_whole_logits_say(found: dict[str, Any], texts: str) -> None:
    rows = found["rows"][::-1][:5] if texts == TRAINING else found["rows"]
    u = torch.tensor([1 - p for p in chances(found, RUNS[0], rows)], dtype=torch.float64)
    mine = values(found, texts, "1b", "teacher")
    assert mine["mean"] == pytest.approx(u.mean().item(), abs=2e-6)
    assert mine["decile_50"] == pytest.approx(u.quantile(0.5).item(), abs=2e-6)
    shares = [mine[f"bin_{at:02d}"] for at in range(BINS)]
    counts = torch.histc(u, BINS, 0, 1) / len(u)
    assert shares == pytest.approx(counts.tolist(), abs=2e-6) and math.isclose(sum(shares), 1)


def test_a_teacher_is_held_against_students(found: dict[str, Any]) -> None:
    p, base, sft = (torch.tensor(chances(found, RUNS[n], found["rows"])) for n in (0, 2, 3))
    mine = values(found, REFERENCES, "1b", "teacher")
    assert mine["rank_correlation/1m"] == pytest.approx(
        pd.Series((1 - p).numpy()).corr(pd.Series(-sft.log().numpy()), method="spearman"), abs=2e-6
    )
    u = 1 - p.double()
    easy = u < u.sort().values[(len(u) - 1) // 2]
    assert mine["p_easy_median/1m"] == pytest.approx(base[easy].median().item(), abs=2e-6)
    assert mine["p_hard_median/1m"] == pytest.approx(base[~easy].median().item(), abs=2e-6)
    assert "rank_correlation/1m" not in values(found, REFERENCES, "1m", "sft")


def test_students_are_held_against_the_halves_of_their_own_teacher(found: dict[str, Any]) -> None:
    two, base, taught = (torch.tensor(chances(found, RUNS[n], found["rows"])) for n in (1, 2, 4))
    mine, other = (values(found, REFERENCES, name, "teacher") for name in ("2b", "1b"))
    u = 1 - two.double()
    easy = u < u.sort().values[(len(u) - 1) // 2]
    for name, half in (("easy", easy), ("hard", ~easy)):
        for method, p in (("none", base), ("supervised_kd", taught)):
            missed = (p[half] < 0.5).double().mean().item()
            assert mine[f"{name}_missed_{method}/1m"] == pytest.approx(missed, abs=2e-6)
            nats = -p[half].log().mean().item()
            assert mine[f"{name}_nats_{method}/1m"] == pytest.approx(nats, rel=1e-4)
    assert "easy_missed_none/1m" in other and "easy_missed_supervised_kd/1m" not in other
    assert not values(found, REFERENCES, "1m", "supervised_kd")


def test_ranks_share_ties() -> None:
    values_N = torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0])
    assert uncertainty.ranks(values_N).tolist() == [3, 0, 3, 1, 3]
    assert uncertainty.rank_correlation(values_N, torch.ones(5)) == 0


def test_files_are_collected(found: dict[str, Any], tmp_path: Path) -> None:
    names = []
    for seed in (1, 2):
        path = tmp_path / f"{seed}.csv"
        rows = [row | {"seed": str(seed)} for row in found["table"]]
        write_csv(path, uncertainty.COLUMNS, rows)
        names.append(str(path))
    output = tmp_path / "all.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["x", "collect", "--found", *names, "--output", str(output)])
        uncertainty.main()
    assert len(pd.read_csv(output)) == 2 * len(found["table"])

"""Fidelity of tiny models: against whole logits, against the truth, whatever the tiles."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from looked_at import command, trained_on, write_files, write_models

from atkd.evaluation import fidelity, references
from atkd.evaluation.probe import Given
from atkd.evaluation.settings import FidelitySettings
from atkd.models import checkpoints, tokenizers
from atkd.runtime.files import InputError, write_jsonl
from atkd.runtime.provenance import Stage

TEXT = "{Mia|She*3} {lives {now|*2}|is} in <town=Rome> ."
WORDINGS = {
    f"{who} {verb} in Rome.": chance * share
    for who, chance in (("Mia", 0.25), ("She", 0.75))
    for verb, share in (("lives now", 1 / 6), ("lives", 1 / 3), ("is", 0.5))
}
RUNS = ("opt/-/1b/teacher/1", "opt/-/2b/teacher/1", "opt/1m/-/sft/1", "opt/1m/1b/gkd/1")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Models of all runs, data and prompt files; the student of 1b equals its teacher."""
    folder = tmp_path_factory.mktemp("fidelity")
    rows = [
        {"id": f"d-{n}", "instruction": f"Say {n}." * (1 + n % 3), "input": "", "grammar": TEXT}
        | {"output": f"{'Mia' if n % 2 else 'She'} lives now in Rome."}
        for n in range(7)
    ]
    tokenizer = trained_on(rows, 290)
    write_models(folder, RUNS, tokenizer, (1, 2, 3, 1), scale=20)  # far from uniform
    made = write_files(folder, rows, tokenizer)
    return folder, tokenizer, made


def found(places: Any, **settings: Any) -> dict[tuple[str, str], dict[str, Any]]:
    folder = places[0]
    settings = {"tasks": ["dolly"], "batch_size": 3} | settings
    folders = {run: folder / run for run in RUNS}
    stage = Stage("fidelity", RUNS[0], settings)
    given = Given(folders, folder / "tasks", folder / "prompts")
    rows = fidelity.fidelity(given, FidelitySettings.of(settings), stage)
    names = ("family", "student", "teacher", "method", "seed")
    return {("/".join(row[name] for name in names), row["reference"]): row for row in rows}


def log_p(places: Any, run: str) -> list[Any]:
    """Log-probabilities at the response positions of every document, one by one."""
    folder, tokenizer, rows = places
    model, made = checkpoints.load(folder / run), []
    for row in rows:
        head = tokenizers.encode_prompt(tokenizer, row["prompt"])
        tail = tokenizers.encode_response(tokenizer, row["response"])
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([head + tail])).logits[0]
        made.append(logits[len(head) - 1 : -1, : len(tokenizer)].log_softmax(-1))
    return made


def test_divergences_equal_those_of_whole_logits(places: Any) -> None:
    rows = found(places)
    keys = {(run, name) for run in RUNS[2:] for name in ("1b", "2b")} - {(RUNS[3], "2b")}
    assert set(rows) == keys | {(run, "truth") for run in RUNS}
    for run, name in keys:
        p, q = (torch.cat(log_p(places, r)) for r in (f"opt/-/{name}/teacher/1", run))
        kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum") / len(p)
        row = rows[run, name]
        assert float(row["kl_bits"]) == pytest.approx(float(kl) / math.log(2), abs=2e-5)
        same = (p.argmax(-1) == q.argmax(-1)).double().mean()
        assert float(row["agreement"]) == pytest.approx(100 * float(same), abs=1e-4)
        entropy = torch.distributions.Categorical(logits=p).entropy().mean()
        assert float(row["entropy_bits"]) == pytest.approx(float(entropy) / math.log(2), abs=1e-4)
        assert row["documents"] == 7 and row["tokens"] == len(p)
    twin, other = rows[RUNS[3], "1b"], rows[RUNS[2], "1b"]
    assert (
        float(twin["kl_bits"]) == pytest.approx(0, abs=1e-6) and twin["agreement"] == "100.000000"
    )
    assert float(other["kl_bits"]) > 0.05 and float(other["agreement"]) < 100


def test_the_truth_by_hand(places: Any) -> None:
    _, tokenizer, rows = places
    row = found(places)[RUNS[2], "truth"]
    scored = log_p(places, RUNS[2])
    assert row["tokens"] == sum(map(len, scored))
    total, entropies, agree = 0.0, 0.0, 0
    for document, part in zip(rows, scored, strict=True):
        ids = tokenizers.encode_response(tokenizer, document["response"])
        for place, log_q in enumerate(part):
            mass: dict[int, float] = {}
            for words, chance in WORDINGS.items():
                other = tokenizers.encode_response(tokenizer, words)
                if other[:place] == ids[:place]:
                    mass[other[place]] = mass.get(other[place], 0.0) + chance
            scale = sum(mass.values())
            chances = {token: m / scale for token, m in mass.items()}
            total += sum(
                p * (math.log2(p) - float(log_q[t]) / math.log(2)) for t, p in chances.items()
            )
            entropies -= sum(p * math.log2(p) for p in chances.values())
            top = int(log_q.argmax())
            agree += chances.get(top, 0.0) == max(chances.values())
    count = row["tokens"]
    assert float(row["kl_bits"]) == pytest.approx(total / count, abs=1e-4)
    assert float(row["entropy_bits"]) == pytest.approx(entropies / count, abs=1e-5)
    assert float(row["agreement"]) == pytest.approx(100 * agree / count, abs=1e-4)


def test_batches_and_tiles_change_nothing(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = found(places)
    monkeypatch.setattr(references, "TILE", 5 * 290)
    again = found(places, batch_size=1)
    assert again.keys() == first.keys()
    for key, row in again.items():
        for name in ("kl_bits", "agreement", "entropy_bits"):
            assert float(row[name]) == pytest.approx(float(first[key][name]), abs=1e-5)
    assert found(places, documents=2)[RUNS[2], "1b"]["documents"] == 2


def test_a_reference_outside_the_grammar_is_left_out_and_counted(
    places: Any, tmp_path: Path
) -> None:
    folder, tokenizer, prompts_made = places
    rows = [json.loads(line) for line in (folder / "tasks/dolly.jsonl").read_text().splitlines()]
    stranger = prompts_made[3] | dict.fromkeys(("target", "response"), "Bob lives in Rome.")
    rest = [*prompts_made[:3], *prompts_made[4:]]
    for name, asked in (("with", [*prompts_made[:3], stranger, *prompts_made[4:]]), ("no", rest)):
        for run in RUNS:
            (tmp_path / name / run).parent.mkdir(parents=True)
            (tmp_path / name / run).symlink_to(folder / run)
        write_jsonl(tmp_path / name / "prompts/dolly.jsonl", asked)
        write_jsonl(tmp_path / name / "tasks/dolly.jsonl", rows)
    whole, others = (found((tmp_path / name, tokenizer, rest)) for name in ("with", "no"))
    assert whole.keys() == others.keys()
    for (run, reference), row in whole.items():
        true = reference == "truth"
        assert (row["documents"], row["left_out"]) == ((6, 1) if true else (7, 0))
        if true:
            other = others[run, reference]
            assert other["left_out"] == 0 and row["tokens"] == other["tokens"]
            for name in ("kl_bits", "agreement", "entropy_bits"):
                assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-5)


def test_without_grammars_there_is_no_truth(places: Any, tmp_path: Path) -> None:
    folder = places[0]
    rows = [json.loads(line) for line in (folder / "tasks/dolly.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "dolly.jsonl", [{"id": row["id"]} for row in rows])
    settings = FidelitySettings(tasks=["dolly"])
    texts = fidelity.read_texts(tmp_path, folder / "prompts", places[1], settings)
    assert not any(text.truth for text in texts)
    with pytest.raises(InputError, match="no references found"):
        fidelity.read_texts(tmp_path, folder / "prompts", places[1], FidelitySettings(tasks=[]))


def test_command_line(places: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = places[0]
    argv = command("fidelity run", folder, RUNS, '{"tasks": ["dolly"]}', "")[:-1]
    monkeypatch.setattr("sys.argv", [*argv, str(tmp_path / "one.csv")])
    fidelity.main()
    monkeypatch.setattr("sys.argv", [word for word in sys.argv if word != str(folder / RUNS[-1])])
    with pytest.raises(InputError, match="expected a folder for each"):
        fidelity.main()
    one = (tmp_path / "one.csv").read_text()
    (tmp_path / "two.csv").write_text(one)
    two = [str(tmp_path / name) for name in ("one.csv", "two.csv")]
    output = str(tmp_path / "all.csv")
    monkeypatch.setattr("sys.argv", ["fidelity", "collect", "--found", *two, "--output", output])
    fidelity.main()
    text = Path(output).read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 7 and sorted(one.splitlines()) == sorted(text.splitlines())
    assert json.loads((tmp_path / "one.provenance.json").read_text())["stage"] == "fidelity"


@pytest.mark.case(
    "model",
    "Fidelity to a teacher that bans tokens by logits of -inf",
    "as with -1e9 in their place; against a student that bans others: inf",
)
def test_banned_tokens_count_as_those_of_no_probability() -> None:
    noise = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(5, 8, generator=noise), torch.randn(11, 8, generator=noise)
    bias = torch.zeros(11).index_fill_(0, torch.tensor([3, 7]), -math.inf)
    student = fidelity.View(hidden.flip(0), weight, None)
    banning, low = (fidelity.View(hidden, weight, b) for b in (bias, bias.clamp(min=-1e9)))
    for found, wanted in zip(
        fidelity.compare(banning, student), fidelity.compare(low, student), strict=True
    ):
        assert found.isfinite().all() and torch.equal(found, wanted)
    assert fidelity.compare(student, banning)[0].tolist() == [math.inf] * 5

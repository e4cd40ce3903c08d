"""lm-eval's own MMLU on local rows: its prompts, its shots, accuracy by hand."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from atkd.data import prepare
from atkd.evaluation import mmlu_crosscheck, scores
from atkd.evaluation.settings import CrosscheckSettings
from atkd.models import checkpoints, tokenizers
from atkd.runtime.files import InputError, read_jsonl, write_csv, write_jsonl

pytestmark = pytest.mark.filterwarnings("ignore")
LETTERS = "ABCD"


def question(number: int, split: str, subject: str) -> dict[str, Any]:
    row = {"id": f"m-{number}", "split": split, "subject": subject, "answer": number // 3 % 4}
    return row | {"question": f" How many is {number}? ", "choices": list("wxyz")}


ROWS = [
    question(n, "dev" if n % 4 < 2 else "test", subject)
    for subject, start in (("astronomy", 0), ("home_town", 16))  # lm-eval knows the first alone
    for n in range(start, start + 16)
]


def prompt(row: dict[str, Any], shots: int) -> str:
    """What lm-eval's template asks, written down once more."""

    def text(one: dict[str, Any]) -> str:
        options = "".join(f"\n{c}. {x}" for c, x in zip(LETTERS, one["choices"], strict=True))
        return f"{one['question'].strip()}{options}\nAnswer:"

    dev = [r for r in ROWS if (r["split"], r["subject"]) == ("dev", row["subject"])][:shots]
    about = row["subject"].replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about {about}.\n\n"
    return head + "".join(f"{text(r)} {LETTERS[r['answer']]}\n\n" for r in dev) + text(row)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model, the rows as data, and documents of a run that was asked all but one of them."""
    folder = tmp_path_factory.mktemp("crosscheck")
    tokenizer = tokenizers.train_tokenizer("opt", [prompt(row, 2) for row in ROWS], 300)
    shape = {"hidden_size": 16, "layers": 1, "heads": 2}
    model = checkpoints.build("opt", shape, tokenizer, 400, seed=4)
    model.get_input_embeddings().weight.data *= 20
    checkpoints.save(model, tokenizer, folder / "model", {})
    write_jsonl(folder / "mmlu.jsonl", ROWS)
    asked = [row for row in ROWS if row["split"] == "test"][1:]
    samples = [
        {"id": row["id"], "group": "", "target": LETTERS[row["answer"]], "bits": 1.0, "bytes": 1}
        | {"answer": "C", "options": list(LETTERS), "likelihoods": [0.0, -1.0, -1.0, -1.0]}
        for row in asked
    ]
    write_jsonl(folder / "samples/mmlu.jsonl", samples)
    rows = scores.score_samples(folder / "samples")
    write_csv(folder / "documents.csv.gz", scores.DOCUMENT_COLUMNS, rows)
    return folder, asked


def compared(folder: Path, **settings: Any) -> dict[str, Any]:
    settings = {"context": 400, "batch_size": 4, "shots": {"mmlu": 2}} | settings
    files = (folder / "mmlu.jsonl", folder / "documents.csv.gz")
    given = CrosscheckSettings.of(settings)
    return mmlu_crosscheck.compare(folder / "model", "opt/1/-/sft/1", *files, given)


def test_accuracy_by_hand(places: Any) -> None:
    folder, asked = places
    model = checkpoints.load(folder / "model")
    tokenizer = tokenizers.open_tokenizer({"folder": str(folder / "model")}, "opt")
    ids = [tokenizers.encode_response(tokenizer, f" {letter}", eos=False) for letter in LETTERS]
    right = 0
    for row in asked:
        head = tokenizers.encode_prompt(tokenizer, prompt(row, 2))
        found = []
        for tail in ids:
            logits = model(input_ids=torch.tensor([head + tail])).logits[0].log_softmax(-1)
            scored = zip(range(len(head) - 1, len(head + tail) - 1), tail, strict=True)
            found.append(sum(logits[place, token].item() for place, token in scored))
        right += found.index(max(found)) == row["answer"]
    made = compared(folder)
    assert 0 < right < len(asked)
    assert made["builtin"] == pytest.approx(100 * right / len(asked))
    assert made["documents"] == len(asked) == 15 and made["cut"] == 0 and made["shots"] == 2
    share = sum(row["answer"] == 2 for row in asked) / len(asked)
    assert made["prefix_match"] == pytest.approx(100 * share)
    share = sum(row["answer"] == 0 for row in asked) / len(asked)
    assert made["option_accuracy"] == pytest.approx(100 * share)


def test_tasks_are_lm_evals_own(tmp_path: Path) -> None:
    mmlu_crosscheck.write_tasks(ROWS, {"m-2", "m-18"}, 3, tmp_path)
    known = json.loads((tmp_path / "mmlu_astronomy.yaml").read_text())
    other = json.loads((tmp_path / "mmlu_home_town.yaml").read_text())
    assert known["include"].endswith("tasks/mmlu/default/mmlu_astronomy.yaml")
    assert "description" not in known and known["num_fewshot"] == 3
    assert other["include"].endswith("_default_template_yaml")
    assert other["description"].endswith("about home town.\n\n")
    (row,) = read_jsonl(other["dataset_kwargs"]["data_files"]["test"])
    assert row["id"] == "m-18"
    assert sum(1 for _ in read_jsonl(other["dataset_kwargs"]["data_files"]["dev"])) == 8
    mmlu_crosscheck.write_tasks(ROWS, {"m-2"}, 3, tmp_path / "one")
    group = json.loads((tmp_path / "one/mmlu.yaml").read_text())
    assert group["task"] == ["mmlu_astronomy"]


def test_the_real_files(tmp_path: Path) -> None:
    root = os.environ.get("ATKD_DATA")
    if not root:
        pytest.skip("no data root: set ATKD_DATA to a folder with data/ and tokenizers/")
    prepare.prepare("local", {"limits": {"train": 10}}, 1, tmp_path / "data")
    rows = list(read_jsonl(tmp_path / "data/tasks/mmlu.jsonl", mmlu_crosscheck.FIELDS))
    tests = [row for row in rows if row["split"] == "test"]
    asked = {row["id"] for row in (*tests[:3], *tests[-2:])}
    mmlu_crosscheck.write_tasks(rows, asked, 5, tmp_path / "tasks")
    assert len(list((tmp_path / "tasks").glob("mmlu_*.yaml"))) == 2
    tokenizer = tokenizers.open_tokenizer({"files": f"{root}/tokenizers/opt"}, "opt")
    shape = {"hidden_size": 16, "layers": 1, "heads": 2}
    model = checkpoints.build("opt", shape, tokenizer, 2048, seed=4)
    settings = CrosscheckSettings(context=2048)
    found = mmlu_crosscheck.builtin(model, tokenizer, tmp_path / "tasks", settings)
    assert found["documents"] == 5 and found["cut"] == 0
    assert found["builtin"] in (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)


def test_cut_prompts_are_counted(places: Any) -> None:
    assert compared(places[0], context=60)["cut"] == 15


def test_command_line(places: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = places
    argv = ["crosscheck", "run", "--model", str(folder / "model"), "--run", "opt/1/-/sft/1"]
    argv += ["--data", str(folder / "mmlu.jsonl"), "--documents", str(folder / "documents.csv.gz")]
    settings = json.dumps({"context": 400, "shots": {"mmlu": 1}})
    output = tmp_path / "one.json"
    monkeypatch.setattr("sys.argv", [*argv, "--settings", settings, "--output", str(output)])
    mmlu_crosscheck.main()
    table = tmp_path / "all.csv"
    argv = ["crosscheck", "collect", "--found", str(output), "--output", str(table)]
    monkeypatch.setattr("sys.argv", argv)
    mmlu_crosscheck.main()
    (row,) = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    assert row["run"] == "opt/1/-/sft/1" and float(row["prefix_match"]) > 0 and row["shots"] == "1"
    assert float(row["builtin"]) == pytest.approx(json.loads(output.read_text())["builtin"])


def test_a_run_without_mmlu_is_refused(places: Any, tmp_path: Path) -> None:
    rows = scores.read_documents(places[0] / "documents.csv.gz")
    other = [row | {"task": "drop"} for row in rows]
    path = tmp_path / "documents.csv.gz"
    write_csv(path, scores.DOCUMENT_COLUMNS, other)
    with pytest.raises(InputError, match="no rows of task mmlu, expected a run that was asked it"):
        mmlu_crosscheck.compare(
            tmp_path, "opt/1/-/sft/1", places[0] / "mmlu.jsonl", path, CrosscheckSettings()
        )

"""Tiny models of the three families through lm-eval: ids seen, stops, vocabulary, repeats."""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import with_a_hole

from atkd.data import prepare, prompts, sequences
from atkd.data.prompts import PromptSettings
from atkd.evaluation import evaluate, scores
from atkd.evaluation.metrics import METRICS, Metric, Ratio
from atkd.evaluation.settings import EvaluationSettings
from atkd.models import checkpoints, generation, tokenizers
from atkd.runtime.files import InputError, read_json, read_jsonl, write_json, write_jsonl
from atkd.runtime.provenance import Stage
from atkd.tasks import AVERAGES
from atkd.tasks import TASKS as TASKS_OF_ALL

FAMILIES = ("opt", "pythia", "llama")
CORPUS = [f"Human:\nSay {n} twice.\n\nAssistant:\n{n} {n}, it is.\nAnswer: B" for n in range(60)]
TASKS = ("dolly", "mmlu")
CONTEXT = 96
pytestmark = pytest.mark.filterwarnings("ignore")


def open_rows(count: int) -> list[dict[str, Any]]:
    draw = random.Random(3)
    return [
        {
            "id": f"d-{n}",
            "instruction": " ".join(draw.choices(["say", "it", "twice", "café"], k=1 + n % 7)),
            "input": "is 12\n" if n % 3 else "",
            "output": f"{n} {n}, it is.\n\nSo.",
        }
        for n in range(count)
    ]


def choice_rows(count: int) -> list[dict[str, Any]]:
    row = {"subject": "s_t", "question": "Say B?", "choices": ["1", "2", "3", "4"], "answer": 1}
    splits = ["dev"] * 2 + ["test"] * count
    return [row | {"id": f"m-{n}", "split": split} for n, split in enumerate(splits)]


def make(family: str, folder: Path, rows: int | None = None, **roles: Any) -> tuple[Path, Path]:
    """A random model (with spare embedding `rows`) and its prompt files."""
    tokenizer = tokenizers.train_tokenizer(family, CORPUS, 320)
    shape = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate": 48}
    shape |= {"rows": rows} if rows else {}
    model = checkpoints.build(family, shape, tokenizer, CONTEXT, seed=5)
    checkpoints.save(model, tokenizer, folder / "model", {})
    settings = {"context": CONTEXT, "max_new_tokens": {"generation": 16}, "shots": {"mmlu": 1}}
    for name, made in (("dolly", open_rows(20)), ("mmlu", choice_rows(6))):
        rows_made, _ = prompts.build(name, made, tokenizer, PromptSettings.of(settings))
        write_jsonl(folder / "prompts" / f"{name}.jsonl", rows_made)
    return folder / "model", folder / "prompts"


def run(places: tuple[Path, Path], output: Path, batch_size: int = 16) -> dict[str, bytes]:
    settings = {"tasks": list(TASKS), "context": CONTEXT, "batch_size": batch_size}
    stage = Stage("evaluate", "opt/1/-/sft/1", settings)
    evaluate.evaluate_folder(*places, EvaluationSettings.of(settings), output, stage)
    return {task: (output / f"{task}.jsonl").read_bytes() for task in TASKS}


@pytest.fixture(scope="module", params=FAMILIES)
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return request.param, make(request.param, tmp_path_factory.mktemp(request.param), rows=352)


def trained_ids(tokenizer: Any, prompt: str, response: str) -> tuple[list[int], int]:
    """A sample's ids as trained on, and where its targets begin."""
    parts = (
        tokenizers.encode_prompt(tokenizer, prompt),
        tokenizers.encode_response(tokenizer, response),
    )
    made = sequences.sample(*parts, tokenizer.eos_token_id, CONTEXT)
    ((first, last),) = made.spans
    assert last == len(made.ids)
    return made.ids, first


def test_samples(places: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, where = places
    write_jsonl(tmp_path / "a/koala.jsonl", [{"of": "an earlier list of tasks"}])
    first = run(where, tmp_path / "a")
    told = capsys.readouterr().err
    for name in ("answers", "likelihoods"):  # what a job's log is told
        assert re.search(rf"^{name}: \d+ of \d+ \w+ \(100%\), [\d,]+ tokens/s$", told, re.M)
    assert sorted(path.stem for path in (tmp_path / "a").glob("*.jsonl")) == sorted(TASKS)
    assert run(where, tmp_path / "b") == first  # the same run twice
    single = run(where, tmp_path / "c", batch_size=1)
    for task in TASKS:
        rows = [json.loads(line) for line in first[task].splitlines()]
        alone = [json.loads(line) for line in single[task].splitlines()]
        wanted = list(read_jsonl(where[1] / f"{task}.jsonl"))
        assert [row["id"] for row in rows] == [row["id"] for row in wanted]
        assert [row["answer"] for row in rows] == [row["answer"] for row in alone]
        for row, other in zip(rows, alone, strict=True):
            assert row["bits"] == pytest.approx(other["bits"], rel=1e-5)
            assert row["entropy"] == pytest.approx(other["entropy"], rel=1e-4)
            assert row["steps"] == other["steps"]
        names = ["id", "group", "prompt", "target", "answer", "entropy", "steps", "bits", "bytes"]
        names += ["tokens", "token_bits"] + ["options", "likelihoods"] * (task == "mmlu")
        assert list(rows[0]) == names


def test_scores_from_samples_equal_lm_evals(places: Any, tmp_path: Path) -> None:
    run(places[1], tmp_path)
    same_as_lm_evals(tmp_path)


def same_as_lm_evals(samples: Path) -> None:
    """Scores recomputed from samples equal what lm-eval itself has found."""
    made = scores.scores_of(scores.score_samples(samples))
    found = read_json(samples / "lm_eval.json")["results"]
    for row in made:
        task, metric = row["task"], row["metric"]
        parts = {"bits_per_byte": "_bits", "option_accuracy": "_options"}
        parts |= {"calibration_error": "_options", "rouge_l": "", "prefix_match": ""}
        if metric in parts:
            name = task + parts[metric]
            assert row["value"] == pytest.approx(found[name].pop(metric), abs=1e-3)
    left = [metric for metrics in found.values() for metric in metrics]
    assert all(metric.endswith("_stderr") for metric in left), "a number of lm-eval's is not ours"


def test_uneven_groups_with_right_answers(tmp_path: Path) -> None:
    """BBH's subtasks weigh alike, however many documents each has, in lm-eval's number too."""
    from lm_eval.api.model import LM

    tokenizer = tokenizers.train_tokenizer("opt", CORPUS, 320)
    rows = [{"id": f"b-{n}", "task": "few" if n < 3 else "many", "input": f"In {n}", "target": "B"}
            for n in range(9)]  # fmt: skip
    settings = PromptSettings(shots={"bbh": 1}, context=CONTEXT)
    made, _ = prompts.build("bbh", rows, tokenizer, settings)
    write_jsonl(tmp_path / "prompts/bbh.jsonl", made)
    right = {row["prompt"] for row in made if row["group"] == "few" or row["id"] == "b-5"}

    class Knowing(LM):
        def generate_until(self, requests: list[Any]) -> list[Any]:
            found = [evaluate.Answer(" B" if r.args[0] in right else "C") for r in requests]
            for answer in found:
                answer.entropy, answer.steps = 1.0, 1
            return found

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            return [evaluate.Likelihood(-math.log(2), True, [1.0]) for _ in requests]

        loglikelihood_rolling = loglikelihood

    lm = Knowing()
    lm.tokenizer = tokenizer
    samples, numbers = evaluate.run_tasks(lm, tmp_path / "prompts", ["bbh"])
    assert len(samples["bbh"]) == 7
    assert numbers["results"]["bbh"]["prefix_match"] == pytest.approx(100 * (1 + 1 / 5) / 2)
    write_jsonl(tmp_path / "samples/bbh.jsonl", samples["bbh"])
    write_json(tmp_path / "samples/lm_eval.json", numbers)
    same_as_lm_evals(tmp_path / "samples")


def test_a_tasks_own_metric_is_its_row(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task with another metric needs no file: values, groups and the better direction follow."""
    for over_groups in (False, True):
        task = replace(TASKS_OF_ALL["dolly"], metric="toy", over_groups=over_groups)
        monkeypatch.setitem(TASKS_OF_ALL, "dolly", task)
        row = Metric("Toy", "%", 0, False, "Lower is better.", of=lambda row: len(row["answer"]))
        monkeypatch.setitem(METRICS, "toy", row)
        made = evaluate.build_tasks(places[1][1], ["dolly"], "</s>")["dolly"]
        assert made.higher_is_better() == {"toy": False}
        values = [made.process_results({"group": g}, [t])["toy"] for g, t in GROUPED]
        assert made.aggregation()["toy"](values) == (4.0 if over_groups else 3.0)
    monkeypatch.setitem(METRICS, "toy", replace(row, of=lambda row: Ratio(len(row["answer"]), 2)))
    ratio = replace(METRICS["toy"], scale=100.0)
    monkeypatch.setitem(METRICS, "toy", ratio)
    made = evaluate.build_tasks(places[1][1], ["dolly"], "</s>")["dolly"]
    values = [made.process_results({"group": g}, [t])["toy"] for g, t in GROUPED]
    assert made.aggregation()["toy"](values) == 150.0
    monkeypatch.setitem(METRICS, "toy", replace(row, of=None))
    with pytest.raises(InputError, match="metric toy cannot score a single answer"):
        evaluate.build_tasks(places[1][1], ["dolly"], "</s>")


GROUPED = [("a", "12"), ("a", "12"), ("a", "12"), ("b", "123456")]


def test_the_real_tasks(tmp_path: Path) -> None:
    """All eight through lm-eval with a real tokenizer; samples give lm-eval's own numbers."""
    root = os.environ.get("ATKD_DATA")
    if not root:
        pytest.skip("no data root: set ATKD_DATA to a folder with data/ and tokenizers/")
    prepare.prepare("local", {"limits": {"train": 10}}, 1, tmp_path / "data")
    tokenizer = tokenizers.open_tokenizer({"files": f"{root}/tokenizers/pythia"}, "pythia")
    shape = {"hidden_size": 16, "layers": 1, "heads": 2, "rows": 50304}
    checkpoints.save(
        checkpoints.build("pythia", shape, tokenizer, 2048, 1), tokenizer, tmp_path / "m", {}
    )
    longest = {"generation": 8, "mmlu": 2, "drop": 8, "bbh": 32}
    settings = {"limit": dict.fromkeys(AVERAGES["average"], 3), "max_new_tokens": longest}
    for task in AVERAGES["average"]:
        rows = list(read_jsonl(tmp_path / f"data/tasks/{task}.jsonl"))
        made, _ = prompts.build(task, rows, tokenizer, PromptSettings.of(settings))
        write_jsonl(tmp_path / "prompts" / f"{task}.jsonl", made)
    settings = {"tasks": list(AVERAGES["average"]), "batch_size": 4}
    stage = Stage("evaluate", "pythia/1/-/none/1", settings)
    output = tmp_path / "samples"
    places = (tmp_path / "m", tmp_path / "prompts")
    evaluate.evaluate_folder(*places, EvaluationSettings.of(settings), output, stage)
    same_as_lm_evals(output)


def test_ids_fed_are_ids_trained_on(places: Any, tmp_path: Path, monkeypatch: Any) -> None:
    family, where = places
    seen: list[list[int]] = []
    scored: list[list[int]] = []
    original, likelihoods = evaluate.decode, evaluate.log_likelihoods

    def record(model: Any, ids: Any, mask: Any, *rest: Any) -> Any:
        seen.extend(row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True))
        return original(model, ids, mask, *rest)

    def record_pairs(model: Any, pairs: Any, *rest: Any) -> Any:
        scored.extend(prompt + response for prompt, response in pairs)
        return likelihoods(model, pairs, *rest)

    monkeypatch.setattr(evaluate, "decode", record)
    monkeypatch.setattr(evaluate, "log_likelihoods", record_pairs)
    run(where, tmp_path)
    tokenizer = evaluate.models_tokenizer(where[0])
    for row in open_rows(20):
        prompt = prompts.template(row["instruction"], row["input"])
        ids, first = trained_ids(tokenizer, prompt, row["output"])
        assert ids[-1] == tokenizer.eos_token_id and ids[:-1] in scored
        assert ids[:first] in seen
    bos = {"opt": 2, "llama": 1}.get(family)
    assert bos is None or all(ids[0] == bos for ids in seen + scored)


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_with_the_real_tokenizers(family: str, monkeypatch: Any) -> None:
    root = os.environ.get("ATKD_DATA")
    if not root:
        pytest.skip("no data root: set ATKD_DATA to a folder with data/ and tokenizers/")
    tokenizer = tokenizers.open_tokenizer({"files": f"{root}/tokenizers/{family}"}, family)
    view = evaluate.OurModel(None, tokenizer, 512, 4)
    pairs: list[tuple[list[int], list[int]]] = []

    def record(model: Any, asked: Any, *rest: Any) -> list[evaluate.Likelihood]:
        pairs.extend(asked)
        return [evaluate.Likelihood(0.0, False, [])] * len(asked)

    monkeypatch.setattr(evaluate, "log_likelihoods", record)
    for row in open_rows(20):
        prompt = prompts.template(row["instruction"], row["input"])
        ids, _ = trained_ids(tokenizer, prompt, row["output"])
        request = SimpleNamespace(args=(prompt, row["output"]))
        view.loglikelihood([request])
        head, tail = pairs.pop()
        assert [*head, *tail, tokenizer.eos_token_id] == ids
        assert view.encode([request]) == [head]
        assert tokenizer.decode(tail, skip_special_tokens=True) == row["output"]


def test_what_requests_share_is_computed_once(places: Any, monkeypatch: Any) -> None:
    model = checkpoints.load(places[1][0])
    tokenizer = evaluate.models_tokenizer(places[1][0])
    view = evaluate.OurModel(model, tokenizer, CONTEXT, 2)
    rows: list[int] = []
    original = checkpoints.hidden_states

    def record(model: Any, ids: Any, mask: Any) -> Any:
        rows.append(len(ids))
        return original(model, ids, mask)

    monkeypatch.setattr(checkpoints, "hidden_states", record)
    texts = [("Say it.", "s"), ("Say it.", "i"), ("Say it twice.", "s"), ("Say it.", "i it")]
    found = view.loglikelihood([SimpleNamespace(args=text) for text in texts])
    assert sum(rows) == 3 and max(rows) <= 2
    for text, (nats, _, bits) in zip(texts, found, strict=True):
        (alone,) = view.loglikelihood([SimpleNamespace(args=text)])
        assert nats == pytest.approx(alone.nats, rel=1e-5)
        assert sum(bits) == pytest.approx(-nats / math.log(2)) and nats < 0


def test_entropy_is_that_of_the_whole_model(places: Any, tmp_path: Path) -> None:
    run(places[1], tmp_path)
    model, tokenizer = checkpoints.load(places[1][0]), evaluate.models_tokenizer(places[1][0])
    for row in list(read_jsonl(tmp_path / "dolly.jsonl"))[:4]:
        prompt = tokenizers.encode_prompt(tokenizer, row["prompt"])
        ids, found = list(prompt), 0.0
        for _ in range(row["steps"]):
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1, : len(tokenizer)]
            found += torch.distributions.Categorical(logits=logits).entropy().item()
            ids.append(int(logits.argmax()))
        assert row["entropy"] == pytest.approx(found / math.log(2), rel=1e-4)
        assert tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True) == row["answer"]
        assert row["steps"] == 16 or ids[-1] == tokenizer.eos_token_id


def test_options_by_hand(places: Any, tmp_path: Path) -> None:
    run(places[1], tmp_path)
    model, tokenizer = checkpoints.load(places[1][0]), evaluate.models_tokenizer(places[1][0])
    for row in read_jsonl(tmp_path / "mmlu.jsonl"):
        ids = torch.tensor([tokenizers.encode_prompt(tokenizer, row["prompt"])])
        log_p = model(input_ids=ids).logits[0, -1, : len(tokenizer)].log_softmax(-1)
        letters = [
            tokenizers.encode_response(tokenizer, f" {x}", eos=False) for x in row["options"]
        ]
        if all(len(letter) == 1 for letter in letters):
            wanted = [log_p[letter[0]].item() for letter in letters]
            assert row["likelihoods"] == pytest.approx(wanted, rel=1e-4)
        right = row["options"].index(row["target"])
        assert row["bits"] == pytest.approx(-row["likelihoods"][right] / math.log(2), rel=1e-5)


def test_bits_are_those_of_the_whole_model(places: Any, tmp_path: Path) -> None:
    run(places[1], tmp_path)
    model = checkpoints.load(places[1][0])
    tokenizer = evaluate.models_tokenizer(places[1][0])
    for row in list(read_jsonl(tmp_path / "dolly.jsonl"))[:3]:
        found, first = trained_ids(tokenizer, row["prompt"], row["target"])
        ids = torch.tensor(found)
        logits = model(input_ids=ids[None]).logits[0, :-1, : len(tokenizer)]
        picked = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        scored = torch.arange(1, len(ids) - 1) >= first  # without EOS
        bits = -picked[:-1][scored].sum().item() / 0.6931471805599453
        assert row["bits"] == pytest.approx(bits, rel=1e-4)
        assert row["bytes"] == len(row["target"].encode()) and row["tokens"] == int(scored.sum())


@pytest.mark.case(
    "model",
    "An evaluated model whose logits are NaN, or that bans a token of a reference",
    "the model's logits hold nan (-inf); expected finite numbers: named by run, task and document",
)
@pytest.mark.parametrize("fault,what", [(math.nan, "nan"), (-math.inf, "-inf")])
def test_an_answer_of_no_number_names_run_and_document(
    places: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: float, what: str
) -> None:
    _, (folder, asked) = places
    original = checkpoints.project

    def spoiled(model: Any, hidden: Any, vocabulary: int) -> Any:
        logits = original(model, hidden, vocabulary)
        return logits.index_fill(1, torch.arange(40, vocabulary), fault)

    monkeypatch.setattr(checkpoints, "project", spoiled)
    line = ["evaluate", "--model", str(folder), "--prompts", str(asked), "--run", "a/b/c/sft/1"]
    line += ["--settings", json.dumps({"context": CONTEXT}), "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", line)
    pattern = rf"^a/b/c/sft/1: \w+, document '\w+-\d+': the model's logits hold {what}; expected"
    with pytest.raises(InputError, match=pattern):
        evaluate.main()
    assert not list(tmp_path.glob("*.jsonl"))


@pytest.mark.case(
    "data",
    "a folder without prompt files, given to evaluation (it scored nothing and said so to no one)",
    "no prompt files found, expected <task>.jsonl",
)
def test_a_folder_without_prompts_is_named(places: Any, tmp_path: Path, says: str) -> None:
    settings, stage = EvaluationSettings.of({}), Stage("evaluate", "r", {})
    with pytest.raises(InputError, match=f"{tmp_path}: {says}"):
        evaluate.evaluate_folder(places[1][0], tmp_path, settings, tmp_path / "out", stage)


def greedy_of(places: Any, change: Any, new_tokens: int = 8) -> Any:
    model = checkpoints.load(places[1][0])
    tokenizer = evaluate.models_tokenizer(places[1][0])
    rows = tokenizers.encode_prompts(tokenizer, ["Say it.", "Say it twice. It is."])
    ids, mask = generation.padded(rows, tokenizer.pad_token_id, left=True)
    forward = model.forward

    def changed(*args: Any, **kwargs: Any) -> Any:
        found = forward(*args, **kwargs)
        change(found.logits)
        return found

    model.forward = changed
    with torch.inference_mode():
        return tokenizer, generation.decode(
            model, ids, mask, [new_tokens] * len(ids), tokenizer, generation.likeliest
        )


@pytest.mark.case(
    "text",
    "a reference, and an answer, with the id 324 of a tokenizer of 320 tokens",
    "it has its share of the softmax over 325 rows, and is emitted where it is the likeliest",
)
def test_ids_beyond_a_hole_keep_their_probability(places: Any, tmp_path: Path) -> None:
    family, (folder, _) = places
    model = checkpoints.load(folder)
    tokenizer = with_a_hole(evaluate.models_tokenizer(folder), family, tmp_path)
    prompt = tokenizers.encode_prompt(tokenizer, "Say it.")
    (found,) = evaluate.log_likelihoods(model, [(prompt, [324])], tokenizer, CONTEXT)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    shares = logits[:325].softmax(-1)
    assert math.exp(found.nats) == pytest.approx(float(shares[324]), rel=1e-4)
    seen = []

    def choose(logits_bV: torch.Tensor, rows_b: torch.Tensor, step: int) -> torch.Tensor:
        seen.append(logits_bV.softmax(-1)[0, 324].item())
        return torch.full((1,), 324)

    ids, mask = generation.padded([prompt], tokenizer.pad_token_id, left=True)
    answer = generation.decode(model, ids, mask, [1], tokenizer, choose)
    assert answer.tolist() == [[324]] and seen == [pytest.approx(float(shares[324]), rel=1e-4)]
    (token,) = tokenizer.convert_ids_to_tokens([324])
    assert tokenizer.decode([324]) == token.replace("\u0120", " ")
    assert tokenizer.batch_decode([[322, 324]]) == [tokenizer.decode([324])]  # no token is there


@pytest.mark.case(
    "text",
    "an evaluation prompt and a reference that spell `</s>` and `<|endoftext|>`",
    "the model reads them as ordinary tokens, through lm-eval too",
)
def test_special_tokens_in_prompts_and_references_are_text(places: Any, tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    family, (folder, _) = places
    row = {"id": "d", "instruction": "Say <s></s><|endoftext|>.", "input": "</s>"}
    tokenizer = tokenizers.open_tokenizer({"folder": str(folder)}, family)
    settings = PromptSettings.of({"context": CONTEXT, "max_new_tokens": {"generation": 16}})
    ((made,), _) = prompts.build("dolly", [row | {"output": "a</s>b"}], tokenizer, settings)
    model = checkpoints.load(folder)
    builtin = HFLM(pretrained=model, tokenizer=tokenizer, max_length=CONTEXT, backend="causal")
    view = evaluate.language_model(model, evaluate.models_tokenizer(folder), CONTEXT, 4)
    bos = len(tokenizers.encode_prompt(tokenizer, ""))
    (ids,) = view.encode([SimpleNamespace(args=(made["prompt"],))])
    assert len(ids) == made["tokens"] and not set(tokenizer.all_special_ids) & set(ids[bos:])
    assert builtin.tok_encode(made["prompt"]) == ids
    (scored,) = view.loglikelihood([SimpleNamespace(args=(made["prompt"], made["response"]))])
    assert len(scored.bits) == len(tokenizers.encode_response(tokenizer, "a</s>b")) - 1 > 3


def test_spare_rows_are_never_emitted(places: Any) -> None:
    def favour(logits: Any) -> None:
        assert logits.shape[-1] == 352
        logits[..., 320:] += 1e4

    tokenizer, answers = greedy_of(places, favour)
    assert int(answers.max()) < len(tokenizer) == 320


def test_answers_end_at_eos(places: Any) -> None:
    calls = []

    def end_the_first(logits: Any) -> None:
        calls.append(len(logits))
        eos = {"opt": 2, "pythia": 0, "llama": 2}[places[0]]
        logits[..., eos] = -1e4
        if len(calls) == 3:
            logits[0, :, eos] = 1e4
        if len(calls) == 5:
            logits[..., eos] = 1e4

    tokenizer, answers = greedy_of(places, end_the_first)
    assert calls == [2, 2, 2, 1, 1]  # an ended row leaves the batch
    assert (answers[0] == tokenizer.eos_token_id).nonzero()[0].item() == 2
    assert (answers[1] == tokenizer.eos_token_id).nonzero()[0].item() == 4
    assert set(answers[0, 3:].tolist()) <= {tokenizer.pad_token_id}


def test_greedy_equals_generate(places: Any) -> None:
    tokenizer, ours = greedy_of(places, lambda logits: logits[..., 320:].fill_(-1e4))
    model = checkpoints.load(places[1][0])
    rows = tokenizers.encode_prompts(tokenizer, ["Say it.", "Say it twice. It is."])
    ids, mask = generation.padded(rows, tokenizer.pad_token_id, left=True)
    wanted = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=8,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=list(range(320, 352)),
    )[:, ids.shape[1] :]
    assert ours[:, : wanted.shape[1]].tolist() == wanted.tolist()


def test_blank_lines_do_not_stop(places: Any) -> None:
    tokenizer = evaluate.models_tokenizer(places[1][0])
    newline = tokenizers.encode_response(tokenizer, "x\n\nx", eos=False)
    step = iter(newline * 9)

    def favour(logits: Any) -> None:
        logits[..., next(step)] = 1e4

    _, answers = greedy_of(places, favour, new_tokens=len(newline))
    assert tokenizer.decode(answers[0], skip_special_tokens=True).strip() == "x\n\nx"
    made = evaluate.build_tasks(places[1][1], ["dolly"], tokenizer.eos_token)
    assert made["dolly"].config.generation_kwargs["until"] == [tokenizer.eos_token]


def test_bad_input(places: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"koala.jsonl: prompt file not found"):
        evaluate.build_tasks(places[1][1], ["koala"], "</s>")
    (tmp_path / "doly.jsonl").write_text((places[1][1] / "dolly.jsonl").read_text())
    with pytest.raises(InputError, match="unknown task 'doly'; expected one of dolly"):
        evaluate.build_tasks(tmp_path, ["doly"], "</s>")
    settings = EvaluationSettings(tasks=["dolly"], context=40)
    with pytest.raises(InputError, match="tokens, expected at most"):
        evaluate.evaluate_folder(*places[1], settings, tmp_path, Stage("evaluate", "r", {}))


def test_importing_is_light() -> None:
    code = "import sys; import atkd.evaluation.evaluate; print([m for m in sys.modules if m in %r])"
    heavy = ["pandas", "transformers", "lm_eval", "datasets"]  # environment variables come first
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, check=True)
    assert json.loads(done.stdout) == []

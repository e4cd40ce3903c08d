"""Training end to end on tiny models: resume equals undisturbed, micro-batches do not matter."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from accelerate.state import AcceleratorState

from atkd import methods
from atkd.data import sequences
from atkd.methods import METHODS
from atkd.models import checkpoints, tokenizers
from atkd.runtime.files import InputError, read_json, read_jsonl, sha256, write_json, write_jsonl
from atkd.training import loop, teacher, teacher_answers, teacher_cache, train
from atkd.training.objective import Distillation
from atkd.training.teacher import LiveTeacher

FAMILIES = ("opt", "pythia", "llama")
KNOBS = {
    "steps": 6, "batch_size": 8, "learning_rate": 0.01, "warmup_ratio": 0.1, "weight_decay": 0.0,
    "beta2": 0.99, "clip": 1.0, "max_length": 64, "checkpoint_every": 2,
    "gradient_checkpointing": False, "optimiser": "adamw", "packed": True, "saved_dtype": "float32",
}  # fmt: skip
COMPUTE = {"device": "cpu", "precision": "float32", "teacher_dtype": "float32"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, instruction data, tokenizers, and for each family a pretrained base and a teacher."""
    root = tmp_path_factory.mktemp("train")
    names = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal"]
    rows = [
        {
            "id": str(i),
            "instruction": f"Who is {n}?",
            "input": "" if i % 3 else "Say it.",
            "output": f"{n} is number {i}, near {names[i % 5]}.",
        }
        for i, n in enumerate(names * 4)
    ]
    write_jsonl(root / "train.jsonl", rows)
    write_jsonl(root / "pretrain.jsonl", [{"id": r["id"], "text": r["output"] * 3} for r in rows])
    for family in FAMILIES:
        tokenizer = tokenizers.train_tokenizer(family, [json.dumps(r) for r in rows] * 2, 280)
        tokenizers.save(tokenizer, root / family / "tokenizer")
    return root


def settings(family: str, role: str, **knobs: Any) -> dict[str, Any]:
    shape = {"hidden_size": 16, "layers": 2, "heads": 2, "rows": 290}
    length = {"max_length": 128} if role == "base" else {}
    found = {"family": family, "training": KNOBS | length | knobs, "compute": COMPUTE}
    return found | ({"source": {"build": shape}} if role == "base" else {})


def run(root: Path, family: str, role: str, output: Path, **extra: Any) -> Path:
    """One training in this process, as the command line would run it."""
    knobs = extra.pop("knobs", {})
    data = "pretrain" if role == "base" else "train"
    args = SimpleNamespace(
        role=role, run="test", seed=extra.pop("seed", 1), base=None, teacher=None,
        cache=None, text=None,
        tokenizer=str(root / family / "tokenizer"), data=str(root / f"{data}.jsonl"),
        output=str(output),
    )  # fmt: skip
    method, options = extra.pop("method", "none"), extra.pop("options", {})
    vars(args).update(extra)
    chosen = settings(family, role, **knobs)
    if role == "student":
        chosen["recipe"] = asdict(methods.resolve(method, family, options))
    train.train(args, chosen, train.Names.of(args, chosen))
    return output


def weights(folder: Path) -> str:
    return sha256(folder / "model.safetensors")


def trained(world: Path, family: str, role: str) -> Path:
    folder = world / family / role
    if not (folder / "manifest.json").exists():
        base = None if role == "base" else str(trained(world, family, "base"))
        run(world, family, role, folder, base=base, seed=2)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_and_reopens(world: Path, family: str) -> None:
    for role in ("base", "teacher"):
        folder = trained(world, family, role)
        model = checkpoints.load(folder)
        assert model.get_input_embeddings().weight.shape[0] == 290
        checkpoints.check_head(model, 280)
        facts = read_json(folder / "provenance.json")
        assert (
            facts["steps"] == 6 and facts["cost"]["tokens_per_s"] > 0 and facts["versions"]["torch"]
        )
        assert not (folder / "work").exists() and (folder / "metrics.jsonl").exists()


def answered(world: Path, family: str) -> Path:
    """The teacher's answers to the training prompts."""
    path = world / family / "text/teacher.jsonl"
    if not path.exists():
        path.parent.mkdir()
        tokenizer = tokenizers.open_tokenizer({"folder": str(world / family / "tokenizer")}, family)
        prompts = sequences.prompt_ids(str(world / "train.jsonl"), tokenizer)
        model, ids = checkpoints.load(trained(world, family, "teacher")), list(map(str, range(32)))
        knobs = teacher_answers.AnswerSettings(
            family, seed=1, temperature=1.0, max_new_tokens=12, max_length=64, batch_size=5,
            dtype="float32", device="cpu",
        )  # fmt: skip
        teacher_answers.write(path, model, ids, prompts, knobs, tokenizer, "test")
    return path


def cached(world: Path, family: str, kind: str = "ground_truth") -> Path:
    """The teacher's cache."""
    folder, taught = world / family / "cache" / kind, trained(world, family, "teacher")
    if not folder.exists():
        tokenizer = tokenizers.open_tokenizer({"folder": str(taught)}, family)
        answers = answered(world, family) if kind == "teacher" else None
        path = world / "train.jsonl"
        data = sequences.instructions(str(path), tokenizer, 64, answers and str(answers))
        facts = {
            "identity": teacher_cache.identity(taught, path, answers, COMPUTE["teacher_dtype"]),
            "max_length": 64,
        }
        live = teacher.LiveTeacher(checkpoints.load(taught), len(tokenizer))
        teacher_cache.write(folder, live, data, tokenizer.pad_token_id, facts)
    return folder


def needed(world: Path, family: str, method: str) -> dict[str, str]:
    """What a method is given: base, teacher, teacher's answers."""
    made = methods.resolve(method, family, {})
    found = {"method": method, "base": str(trained(world, family, "base"))}
    found |= {"teacher": str(trained(world, family, "teacher"))} if made.distils else {}
    return found | ({"text": str(answered(world, family))} if made.sequences == "teacher" else {})


def losses_of(folder: Path) -> list[float]:
    return [row["loss"] for row in read_jsonl(folder / "metrics.jsonl")]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_micro_batches_do_not_matter(world: Path, tmp_path: Path, method: str) -> None:
    shared = needed(world, "llama", method) | {"options": {"max_new_tokens": 6}}
    whole = run(world, "llama", "student", tmp_path / "a", **shared)
    cut = run(world, "llama", "student", tmp_path / "b", knobs={"micro_batch_size": 2}, **shared)
    # A sampled token may flip where rounding moves its probability over the noise.
    assert losses_of(whole)[:3] == pytest.approx(losses_of(cut)[:3], rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["supervised_kd", "supervised_kd_atkd", "imitkd"])
def test_a_cached_run_equals_a_live_one(
    world: Path, tmp_path: Path, family: str, method: str
) -> None:
    shared = needed(world, family, method) | {"options": {"max_new_tokens": 6}}
    shared["knobs"] = {"steps": 20}
    live = run(world, family, "student", tmp_path / "live", **shared)
    shared["cache"] = str(cached(world, family))
    stored = run(world, family, "student", tmp_path / "cached", **shared)
    assert len(losses_of(live)) == 20
    assert losses_of(stored) == pytest.approx(losses_of(live), rel=2e-4)
    assert losses_of(stored)[:5] == pytest.approx(losses_of(live)[:5], rel=2e-5)


def test_teacher_answers_are_cached_like_the_datas(world: Path, tmp_path: Path) -> None:
    shared = needed(world, "opt", "f_distill_atkd")
    shared |= {"options": {"max_new_tokens": 6, "student_fraction": 0}}
    live = run(world, "opt", "student", tmp_path / "live", **shared)
    shared["cache"] = str(cached(world, "opt", "teacher"))
    stored = run(world, "opt", "student", tmp_path / "cached", **shared)
    assert losses_of(stored) == pytest.approx(losses_of(live), rel=1e-4)
    shared["cache"] = str(cached(world, "opt"))
    with pytest.raises(InputError, match="made with text None; expected"):
        run(world, "opt", "student", tmp_path / "foreign", **shared)


def test_scopes_differ_and_the_corpus_needs_a_cache(world: Path, tmp_path: Path) -> None:
    shared, found = needed(world, "llama", "supervised_kd_atkd"), {}
    shared["cache"] = str(cached(world, "llama"))
    for scope in ("batch", "micro", "sample", "corpus"):
        options = {"options": {"scope": scope}, "knobs": {"micro_batch_size": 4, "steps": 1}}
        folder = run(world, "llama", "student", tmp_path / scope, **shared, **options)
        found[scope] = losses_of(folder)[0]
    assert len(set(found.values())) == 4
    del shared["cache"]
    with pytest.raises(InputError, match="'corpus', which needs a teacher's cache"):
        run(world, "llama", "student", tmp_path / "x", **shared, options={"scope": "corpus"})


def test_the_random_split_is_the_same_whatever_the_micro_batches(
    world: Path, tmp_path: Path
) -> None:
    shared = needed(world, "llama", "supervised_kd_atkd") | {"options": {"split": "random"}}
    whole = run(world, "llama", "student", tmp_path / "a", **shared)
    cut = run(world, "llama", "student", tmp_path / "b", knobs={"micro_batch_size": 2}, **shared)
    ranked = run(world, "llama", "student", tmp_path / "c", **shared | {"options": {}})
    assert losses_of(whole) == pytest.approx(losses_of(cut), rel=1e-3)
    assert losses_of(whole)[0] != pytest.approx(losses_of(ranked)[0], rel=1e-3)


@pytest.mark.parametrize(
    "method",
    [
        "sft+padding_taught",
        "supervised_kd+released",
        "f_distill+tvd_off_answer",
        "imitkd+released",
        "gkd+released",
    ],
)
def test_released_switches_train(world: Path, tmp_path: Path, method: str) -> None:
    base = method.partition("+")[0]
    shared = needed(world, "opt", base) | {"options": {"max_new_tokens": 6}}
    shared["knobs"] = {"steps": 3}
    plain = run(world, "opt", "student", tmp_path / "a", **shared)
    other = run(world, "opt", "student", tmp_path / "b", **shared | {"method": method})
    assert losses_of(plain) != losses_of(other)


def test_missing_parts_are_named(world: Path, tmp_path: Path) -> None:
    base = {"base": str(trained(world, "opt", "base"))}
    for method, words in (("gkd", "--teacher: missing"), ("seqkd", "--text: missing")):
        with pytest.raises(InputError, match=words):
            run(world, "opt", "student", tmp_path / "x", method=method, **base)


def test_micro_scope_depends_on_micro_batches(world: Path, tmp_path: Path) -> None:
    shared = {"method": "supervised_kd_atkd", "base": str(trained(world, "llama", "base"))}
    shared |= {"teacher": str(trained(world, "llama", "teacher")), "options": {"scope": "micro"}}
    whole = run(world, "llama", "student", tmp_path / "a", **shared)
    cut = run(world, "llama", "student", tmp_path / "b", knobs={"micro_batch_size": 2}, **shared)
    losses = [read_json(folder / "provenance.json")["loss"] for folder in (whole, cut)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def killed(
    monkeypatch: pytest.MonkeyPatch, world: Path, family: str, role: str, folder: Path, **how: Any
) -> Path:
    """A run that dies before its sixth step, and is then started again."""
    update = loop.Loop.update

    def dies(self: loop.Loop, *args: Any) -> Any:
        if self.step == 5:
            raise KeyboardInterrupt
        return update(self, *args)

    monkeypatch.setattr(loop.Loop, "update", dies)
    with pytest.raises(KeyboardInterrupt):
        run(world, family, role, folder, **how)
    monkeypatch.setattr(loop.Loop, "update", update)
    return run(world, family, role, folder, **how)


def same_trace(again: Path, plain: Path) -> None:
    """The run went on from its fourth step, to the weights and the log of an undisturbed one."""
    assert read_json(again / "provenance.json")["first_step"] == 4
    assert weights(again) == weights(plain)
    assert (again / "metrics.jsonl").read_text() == (plain / "metrics.jsonl").read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_killed_run_resumes_to_the_same_weights(
    world: Path, tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {"method": "supervised_kd_atkd", "base": str(trained(world, family, "base"))}
    shared |= {"teacher": str(trained(world, family, "teacher"))}
    plain = run(world, family, "student", tmp_path / "plain", **shared)
    again = killed(monkeypatch, world, family, "student", tmp_path / "killed", **shared)
    same_trace(again, plain)


def test_a_base_with_two_optimisers_resumes_too(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On texts that are samples of their own, which makes another model than AdamW on blocks."""
    knobs = {"optimiser": "muon", "packed": False}
    plain = run(world, "llama", "base", tmp_path / "plain", knobs=dict(knobs))
    again = killed(monkeypatch, world, "llama", "base", tmp_path / "killed", knobs=dict(knobs))
    same_trace(again, plain)
    others = [run(world, "llama", "base", tmp_path / name, knobs={name: knobs[name]})
              for name in knobs]  # fmt: skip
    assert len({weights(each) for each in (plain, *others)}) == 3


def test_a_teacher_that_stops_early_is_the_teacher_as_it_was(world: Path, tmp_path: Path) -> None:
    base = str(trained(world, "opt", "base"))
    late = run(world, "opt", "teacher", tmp_path / "late", base=base)
    early = run(world, "opt", "teacher", tmp_path / "early", base=base, knobs={"stop_at": 0.5})
    log = [(each / "metrics.jsonl").read_text().splitlines() for each in (late, early)]
    assert log[1] == log[0][:3] and len(log[0]) == 6
    assert read_json(early / "provenance.json")["steps"] == 3 and weights(early) != weights(late)


def test_same_command_same_weights_and_finished_work_is_kept(world: Path, tmp_path: Path) -> None:
    shared = {"method": "sft", "base": str(trained(world, "opt", "base"))}
    one = run(world, "opt", "student", tmp_path / "a", **shared)
    two = run(world, "opt", "student", tmp_path / "b", **shared)
    other = run(world, "opt", "student", tmp_path / "c", **shared, seed=3)
    assert weights(one) == weights(two) != weights(other)
    assert (one / "manifest.json").read_text() == (two / "manifest.json").read_text()


def base_command(world: Path, output: Path, **knobs: Any) -> list[str]:
    """The command line of one base's training."""
    command = [sys.executable, "-m", "atkd", "train", "--role", "base", "--run", "r", "--seed", "1"]
    command += ["--settings", json.dumps(settings("opt", "base", **knobs)), "--output", str(output)]
    command += ["--tokenizer", str(world / "opt/tokenizer")]
    return [*command, "--data", str(world / "pretrain.jsonl")]


def test_command_line_keeps_a_finished_folder(world: Path, tmp_path: Path) -> None:
    command = base_command(world, tmp_path, steps=1)
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "kept" not in first.stdout and "kept" in again.stdout


@pytest.mark.case(
    "machine",
    "A training job whose log is a file, as on a batch system, read while it runs",
    "A line when it begins, at every tenth and every 30 s: train: 20 of 200 steps (10%), loss "
    "5.61, 98,304 tokens/s, 0:00:03 left",
)
def test_a_jobs_log_tells_how_far_it_is(world: Path, tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    tenth = r"train: {} of 200 steps \({}%\), loss \d\.?\d*, [\d,]+ tokens/s"
    with open(log, "w") as handle:
        command = base_command(world, tmp_path / "base", steps=200, checkpoint_every=500)
        job = subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT)
        while job.poll() is None and not re.search(tenth.format(20, 10), log.read_text()):
            time.sleep(0.01)
        assert job.poll() is None, "the log was empty until the end"
        assert job.wait() == 0
    said = log.read_text().splitlines()
    assert said[0] == "train: 0 of 200 steps (0%)"
    for number, line in zip(range(1, 10), said[1:], strict=False):
        assert re.fullmatch(tenth.format(20 * number, 10 * number) + r", \d:\d\d:\d\d left", line)
    assert re.fullmatch(tenth.format(200, 100), said[10]) and len(said) == 11


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    world: Path, tmp_path: Path
) -> None:
    shared = {"method": "sft", "base": str(trained(world, "opt", "base"))}
    knobs = {"learning_rate": 1e30, "checkpoint_every": 1, "warmup_ratio": 0.5, "clip": 1e30}
    with pytest.raises(InputError, match=r"step \d+: the .* is .*checkpoint is kept"):
        run(world, "opt", "student", tmp_path / "nan", knobs=knobs, **shared)
    assert not (tmp_path / "nan/manifest.json").exists()


@pytest.mark.case(
    "loss",
    "A student's loss that becomes no number, after a learning rate that is too large",
    "test: step 2: the loss is nan on data rows",
)
def test_a_loss_that_is_no_number_names_run_step_and_rows(
    world: Path, tmp_path: Path, says: str
) -> None:
    shared = {"method": "sft", "base": str(trained(world, "llama", "base"))}
    knobs = {"learning_rate": 1e30, "warmup_ratio": 0.0, "clip": 1e30}
    with pytest.raises(InputError, match=says):
        run(world, "llama", "student", tmp_path / "nan", knobs=knobs, **shared)


def test_a_checkpoint_holds_nothing_that_could_run(world: Path, tmp_path: Path) -> None:
    folder = interrupted(world, tmp_path / "student")
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}


def interrupted(world: Path, folder: Path) -> Path:
    """A training stopped in its fifth step; returns its checkpoint."""
    update, base = loop.Loop.update, str(trained(world, "opt", "base"))

    def stopping(state: loop.Loop, *rest: Any) -> Any:
        if state.step == 4:
            raise KeyboardInterrupt
        return update(state, *rest)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Loop, "update", stopping)
        run(world, "opt", "student", folder, method="sft", base=base)
    return folder / "work/step-0000004"


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(
            emptied,
            marks=pytest.mark.case(
                "model",
                "A training checkpoint whose folder was emptied",
                "work/step-0000004: a damaged checkpoint ([Errno 2] No such file or directory",
            ),
        ),
        pytest.param(
            lambda folder: (folder / "step.json").write_text("{}"),
            marks=pytest.mark.case(
                "model",
                "A training checkpoint that does not say its step",
                "work/step-0000004: a damaged checkpoint ('step'); delete this folder to train "
                "from the start",
            ),
        ),
        pytest.param(
            lambda folder: os.truncate(folder / "model.safetensors", 999),
            marks=pytest.mark.case(
                "model",
                "A training checkpoint whose weights are cut off",
                "work/step-0000004: a damaged checkpoint (model.safetensors: 999 bytes, expected",
            ),
        ),
        pytest.param(
            lambda folder: os.truncate(folder / "state.safetensors", 999),
            marks=pytest.mark.case(
                "model",
                "A training checkpoint whose optimiser state is cut off",
                "work/step-0000004: a damaged checkpoint (state.safetensors: 999 bytes, expected",
            ),
        ),
        pytest.param(
            lambda folder: (folder / "random_0.safetensors").write_bytes(b"?"),
            marks=pytest.mark.case(
                "model",
                "A training checkpoint whose random states are damaged (it went on without them)",
                "work/step-0000004: a damaged checkpoint (random_0.safetensors: 1 bytes, expected",
            ),
        ),
    ],
)
def test_a_damaged_checkpoint_says_what_to_delete(
    damage: Any, world: Path, tmp_path: Path, says: str
) -> None:
    damage(interrupted(world, tmp_path / "student"))
    shared = {"method": "sft", "base": str(trained(world, "opt", "base"))}
    with pytest.raises(InputError) as error:
        run(world, "opt", "student", tmp_path / "student", **shared)
    assert says in str(error.value)
    assert "delete this folder to train from the start" in str(error.value)
    shutil.rmtree(tmp_path / "student/work/step-0000004")
    run(world, "opt", "student", tmp_path / "student", **shared)


def test_bf16_autocast_stays_close_to_float32(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {"method": "supervised_kd", "base": str(trained(world, "llama", "base"))}
    shared |= {"teacher": str(trained(world, "llama", "teacher"))}
    exact = run(world, "llama", "student", tmp_path / "float32", **shared)
    monkeypatch.setitem(COMPUTE, "precision", "bf16")
    AcceleratorState._reset_state(True)
    rough = run(world, "llama", "student", tmp_path / "bf16", **shared)
    AcceleratorState._reset_state(True)
    first = [
        json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["loss"]
        for folder in (exact, rough)
    ]
    assert first[0] != first[1] and first[1] == pytest.approx(first[0], rel=0.1)
    assert checkpoints.load(rough).dtype.itemsize == 4  # master weights stay float32


def test_a_student_that_is_its_teacher_has_nothing_to_lose_in_bf16(world: Path) -> None:
    """The teacher's view is of unrounded products, the loss of rounded ones."""
    model = checkpoints.load(trained(world, "llama", "teacher"))
    tokenizer = tokenizers.open_tokenizer({"folder": str(world / "llama/tokenizer")}, "llama")
    data = sequences.instructions(str(world / "train.jsonl"), tokenizer, 64)
    batch = sequences.FixedBatches(data, tokenizer.pad_token_id, "cpu")(0, range(8))
    for loss in ("forward_kl", "atkd", "dkd", "jsd"):
        aim = Distillation(loss, {}, len(tokenizer), LiveTeacher(model, len(tokenizer)))
        piece = aim.signal(batch)
        (weights,) = aim.weights([piece], lambda local_n: (local_n, 0))
        with torch.autocast("cpu", torch.bfloat16):
            found = aim.loss(model, piece.signal.hidden_Nd, batch, piece, weights)
        assert abs(found.item()) < 1e-6, loss


def test_a_checkpoint_of_other_settings_does_not_stand_in_the_way(
    world: Path, tmp_path: Path
) -> None:
    shared = {"method": "sft", "base": str(trained(world, "opt", "base"))}
    stale = tmp_path / "student/work/step-0000004"
    stale.mkdir(parents=True)
    write_json(stale / "step.json", {"step": 4, "identity": "another", "bytes": {}})
    folder = run(world, "opt", "student", tmp_path / "student", **shared)
    assert read_json(folder / "provenance.json")["first_step"] == 0


def test_another_tokenizer_is_refused(world: Path, tmp_path: Path) -> None:
    shared = {"method": "supervised_kd", "base": str(trained(world, "llama", "base"))}
    foreign = trained(world, "opt", "teacher")
    with pytest.raises(InputError, match="tokenizer"):
        run(world, "llama", "student", tmp_path / "x", teacher=str(foreign), **shared)


@pytest.mark.case(
    "loss",
    "A run's model with experts whose configuration asks for the router's auxiliary loss",
    "its configuration asks for the router's auxiliary loss (output_router_logits), which "
    "trainings here do not add",
)
def test_a_routers_loss_is_refused_where_it_would_be_dropped(says: str) -> None:
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2}
    for asked in (True, False):
        config = transformers.MixtralConfig(**shape, vocab_size=280, output_router_logits=asked)
        model = transformers.MixtralForCausalLM(config)
        if asked:
            with pytest.raises(InputError, match=re.escape(says)):
                train.check_router(model)
        else:
            train.check_router(model)


def test_damaged_and_unfinished_models_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: file not found"):
        checkpoints.load(tmp_path)
    folder = run(world, "opt", "base", tmp_path / "cut", knobs={"steps": 1})
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: missing or not of the size"):
        checkpoints.load(folder)


def test_weights_edited_in_place_are_known_by_their_hash(world: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained(world, "opt", "teacher"), tmp_path / "teacher"))
    checkpoints.check_weights(folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match=r"model\.safetensors: not what manifest\.json says"):
        checkpoints.check_weights(folder)


def test_projected_opt_goes_through_its_head(world: Path) -> None:
    tokenizer = tokenizers.open_tokenizer({"folder": str(world / "opt/tokenizer")}, "opt")
    shape = {"hidden_size": 16, "layers": 1, "heads": 2, "embed": 8, "rows": 300}
    model = checkpoints.build("opt", shape, tokenizer, 64, 0)
    checkpoints.check_head(model, len(tokenizer))
    assert checkpoints.head(model).weight.shape == (300, 8)


def test_batches_group_lengths_and_cover_every_sample_once() -> None:
    lengths = [i % 17 + 3 for i in range(100)]
    batches = sequences.epoch_batches(lengths, 8, seed=1, epoch=0)
    seen = [i for batch in batches for i in batch]
    assert len(seen) == len(set(seen)) == 96 and all(len(batch) == 8 for batch in batches)
    assert batches == sequences.epoch_batches(lengths, 8, seed=1, epoch=0)
    assert batches != sequences.epoch_batches(lengths, 8, seed=1, epoch=1)
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
    assert sum(spread) / len(spread) < 4


def test_labels_start_at_the_response_and_end_with_eos(world: Path) -> None:
    tokenizer = tokenizers.open_tokenizer({"folder": str(world / "opt/tokenizer")}, "opt")
    data = sequences.instructions(str(world / "train.jsonl"), tokenizer, 64)
    batch = sequences.FixedBatches(data, tokenizer.pad_token_id, "cpu")(0, [0, 1])
    one, two = data.samples[:2]
    ids = one.ids[one.prompt :] + two.ids[two.prompt :]
    assert batch.targets_N.tolist() == ids and ids[-1] == tokenizer.eos_token_id
    short = sequences.instructions(str(world / "train.jsonl"), tokenizer, len(one.ids))
    assert short.too_long + len(short) == 32


def test_only_the_first_process_of_a_training_takes_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with train.only_trainer(str(tmp_path)):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        with train.only_trainer(str(tmp_path)):
            pass
        monkeypatch.setenv("RANK", "0")
        with (
            pytest.raises(InputError, match="is in use by process"),
            train.only_trainer(str(tmp_path)),
        ):
            pass

"""One step of the loop equals the method's loss on the full logits of the same batches."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from atkd import kd_loss
from atkd.data.sequences import Batch
from atkd.losses.functional import SETTINGS
from atkd.methods import METHODS, resolve
from atkd.models import checkpoints, tokenizers
from atkd.runtime.files import write_jsonl
from atkd.training import train
from atkd.training.settings import TrainingSettings

V, ROWS, MICRO = 262, 275, ([0, 1], [2, 3, 4])
KNOBS = {
    "steps": 4, "batch_size": 5, "learning_rate": 0.1, "warmup_ratio": 0.0, "weight_decay": 0.0,
    "beta2": 0.99, "clip": 1e30, "max_length": 60, "gradient_checkpointing": False,
    "checkpoint_every": 100, "optimiser": "adamw", "packed": True, "saved_dtype": "float32",
}  # fmt: skip
COMPUTE = {"device": "cpu", "precision": "float32", "teacher_dtype": "float64"}


def build(family: str, tokenizer: Any, width: int, seed: int) -> Any:
    """A random float64 model with rows beyond the vocabulary, far from uniform."""
    shape = {"hidden_size": width, "layers": 1, "heads": 2, "rows": ROWS}
    model = checkpoints.build(family, shape, tokenizer, 128, seed).double()
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(10.0 if each.ndim == 2 else 1.0)
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of unequal lengths, a teacher's answers to it, and a tokenizer and teacher a family."""
    root = tmp_path_factory.mktemp("loop")
    texts = [("go " * (i % 3 + 1), "on and on " * (1, 2, 1, 3, 2, 1)[i]) for i in range(6)]
    rows = [{"id": str(i), "instruction": a, "output": b} for i, (a, b) in enumerate(texts)]
    write_jsonl(root / "train.jsonl", rows)
    for family in ("opt", "llama"):
        tokenizer = tokenizers.train_tokenizer(family, ["go on and on"] * 9, V)
        draw = random.Random(0)
        answers = [[draw.randrange(5, V) for _ in range(2 + i)] for i in range(6)]
        answers = [[*ids, tokenizer.eos_token_id] for ids in answers]
        write_jsonl(root / f"{family}.jsonl", [{"id": "", "ids": ids} for ids in answers])
        checkpoints.save(
            build(family, tokenizer, 12, 2), tokenizer, root / family, {"identity": "teacher"}
        )
    return root


def start(world: Path, family: str, method: str) -> Any:
    """A student's training that is set up as the command line would, and what it is made of."""
    row, teacher = METHODS[method], world / family
    args = SimpleNamespace(
        role="student", seed=1, data=str(world / "train.jsonl"), cache=None,
        text=str(world / f"{family}.jsonl") if row.sequences == "teacher" else None,
        teacher=str(teacher) if row.distils else None,
    )  # fmt: skip
    options = {"max_new_tokens": 9} if "student_fraction" in row.settings else {}
    recipe = asdict(resolve(method, family, options))
    chosen = {"family": family, "training": KNOBS, "recipe": recipe, "compute": COMPUTE}
    tokenizer = tokenizers.open_tokenizer({"folder": str(teacher)}, family)
    student = build(family, tokenizer, 8, 1)
    student.to(torch.float64 if row.distils else torch.float32)
    settings = TrainingSettings.of(chosen)
    job = train.set_up(args, settings, tokenizer, student, "cpu")
    return SimpleNamespace(
        job=job, tokenizer=tokenizer, student=student,
        teacher=checkpoints.load(teacher, "cpu", "float64") if row.distils else None,
    )  # fmt: skip


def batches_of(job: Any, by_student: bool) -> list[Batch]:
    """Two micro-batches of the first step whose answers are the student's, or are not."""
    drawn = getattr(job.supply, "by_student", lambda step: False)
    step = next(step for step in range(99) if drawn(step) == by_student)
    return [job.supply(step, indices) for indices in MICRO]


def whole_step(made: Any, method: str, batches: list[Batch]) -> tuple[torch.Tensor, int]:
    """The method's loss over all answer tokens of a step, from full logits; how many they are."""
    row, samples, found = METHODS[method], made.job.supply, []
    samples = getattr(samples, "fixed", samples).sequences.samples
    for batch, indices in zip(batches, MICRO, strict=True):
        inputs = {"input_ids": batch.input_ids_BT, "attention_mask": batch.attention_mask_BT}
        student = made.student(**inputs).logits
        with torch.no_grad():
            teacher = made.teacher(**inputs).logits if row.distils else student
        for b, index in enumerate(indices):
            first, last = samples[index].prompt, int(batch.attention_mask_BT[b].sum())
            for place in range(first, last):
                logits = (each[b, place - 1, :V] for each in (student, teacher))
                found.append((*logits, batch.input_ids_BT[b, place]))
    student, teacher, targets = (torch.stack(each) for each in zip(*found, strict=True))
    if row.loss == "cross_entropy":
        return torch.nn.functional.cross_entropy(student, targets), len(targets)
    settings = {name: value for name, value in row.settings.items() if name in SETTINGS}
    return kd_loss(row.loss, student, teacher, targets, **settings), len(targets)


def update(job: Any, student: Any, batches: list[Batch]) -> tuple[float, int, dict[str, Any]]:
    """Loss and tokens that the loop reports, and the gradients that its optimiser is given."""
    (optimiser,) = job.state.optimisers
    slopes, step = {}, optimiser.step

    def seen() -> None:
        slopes.update({name: p.grad.clone() for name, p in student.named_parameters()})
        step()

    optimiser.step = seen
    loss, _, count = job.state.update(batches, job.aim)
    return loss, count, slopes


def kinds(method: str) -> list[bool]:
    """Whether the student writes a step's answers: both, where a method mixes."""
    return {0: [False], 0.5: [False, True], 1: [True]}[
        METHODS[method].settings.get("student_fraction", 0)
    ]


TRAINED = [method for method, row in METHODS.items() if row.loss]
STEPS = [(method, by_student) for method in TRAINED for by_student in kinds(method)]


@pytest.mark.parametrize("family", ["llama", "opt"])  # padding is EOS; a tied head
@pytest.mark.parametrize("method,by_student", STEPS)
def test_a_step_is_the_loss_of_all_its_answer_tokens(
    world: Path, family: str, method: str, by_student: bool
) -> None:
    made = start(world, family, method)
    batches = batches_of(made.job, by_student)
    assert len({int(batch.supervised_BS.sum()) for batch in batches}) == 2
    exact, count = whole_step(made, method, batches)
    named = dict(made.student.named_parameters())
    wanted = torch.autograd.grad(exact, list(named.values()))
    loss, seen, slopes = update(made.job, made.student, batches)
    assert seen == count and loss == pytest.approx(exact.item(), rel=1e-6)
    rtol = 1e-6 if METHODS[method].distils else 1e-5
    largest = max(each.abs().max().item() for each in wanted)
    for slope, two in zip(slopes.values(), wanted, strict=True):
        torch.testing.assert_close(slope, two, rtol=rtol, atol=0.1 * rtol * largest)
    if family == "llama":
        assert (slopes["lm_head.weight"][V:] == 0).all()


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_eos_is_a_target_of_every_fixed_answer(world: Path, family: str) -> None:
    made = start(world, family, "supervised_kd")
    for batch in batches_of(made.job, by_student=False):
        ends = batch.targets_N.split(batch.sizes)
        assert all(ids[-1] == made.tokenizer.eos_token_id for ids in ends)
        assert int(batch.supervised_BS.sum()) < batch.supervised_BS.numel()


def repadded(batch: Batch, pad: int, before: int, after: int) -> Batch:
    """The same answers with more padding, or, `before` being -1, with all of it on the left."""
    if before >= 0:
        ids, attention, supervised = (
            torch.nn.functional.pad(each, (before, after), value=value)
            for each, value in zip(batch[:3], (pad, 0, False), strict=True)
        )
        return batch._replace(
            input_ids_BT=ids, attention_mask_BT=attention, supervised_BS=supervised
        )
    gaps = (batch.attention_mask_BT == 0).sum(1).tolist()
    rolled = [
        torch.stack([row.roll(gap) for row, gap in zip(each, gaps, strict=True)])
        for each in batch[:3]
    ]
    return Batch(*rolled, batch.rows, batch.fixed)


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("before,after", [(0, 7), (-1, 0), (5, 3)])
def test_neither_side_nor_amount_of_padding_matters(
    world: Path, family: str, before: int, after: int
) -> None:
    found = []
    for change in (False, True):
        made = start(world, family, "supervised_kd_atkd")
        batches, pad = batches_of(made.job, by_student=False), made.tokenizer.pad_token_id
        if change:
            batches = [repadded(each, pad, before, after) for each in batches]
        found.append(update(made.job, made.student, batches))
    (one, count, slopes), (two, same_count, others) = found
    assert one == pytest.approx(two, rel=1e-6) and count == same_count
    largest = max(each.abs().max().item() for each in slopes.values())
    for name, slope in slopes.items():
        torch.testing.assert_close(others[name], slope, rtol=1e-6, atol=1e-7 * largest)

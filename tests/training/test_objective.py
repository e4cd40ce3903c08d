"""A step's objective and its state: what a checkpoint keeps, and whose it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from atkd.data.sequences import BatchSampler, FixedBatches, Sample, Sequences
from atkd.losses import fused
from atkd.models import checkpoints, tokenizers
from atkd.runtime.files import InputError, read_json
from atkd.training import loop, objective
from atkd.training.objective import Distillation, make_objective
from atkd.training.settings import Optimisation
from atkd.training.teacher import LiveTeacher

V, STEPS = 262, 6
KNOBS = {
    "steps": STEPS, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.01,
    "warmup_ratio": 0.0, "weight_decay": 0.0, "beta2": 0.99, "clip": 1.0, "checkpoint_every": 3,
    "gradient_checkpointing": False, "optimiser": "adamw", "packed": True, "saved_dtype": "float32",
    "max_length": 64,
}  # fmt: skip


class Shifting(Distillation):
    """Weighs the loss by a running mean of its own and the number of the step."""

    def __init__(self, loss: str, *arguments: Any, **options: Any) -> None:
        super().__init__("atkd", *arguments, **options)
        self.state |= {"mean": torch.zeros(1)}
        self.steps: list[int] = []

    def loss(self, *arguments: Any, **options: Any) -> torch.Tensor:
        self.steps.append(self.step)
        loss = super().loss(*arguments, **options)
        self.state["mean"] = 0.9 * self.state["mean"] + 0.1 * loss.detach()
        return loss * (1 + self.state["mean"][0] + self.step)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizers.train_tokenizer("llama", ["go on and on"] * 9, V)


@pytest.fixture
def parts(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Any, ...]]:
    """Makes a new loop, objective, supply and order, as a process that starts again would."""
    monkeypatch.setitem(objective.OBJECTIVES, "shifting", Shifting)
    noise = torch.Generator().manual_seed(0)
    rows = [torch.randint(5, V, (n,), generator=noise).tolist() for n in (9, 12, 8, 15, 11, 10)]
    samples = [Sample(ids, ((3, len(ids)),), 3, len(ids)) for ids in rows]
    data = Sequences(samples, list(range(len(rows))), 0)

    def build(width: int, seed: int) -> Any:
        shape = {"hidden_size": width, "layers": 1, "heads": 2, "rows": V}
        return checkpoints.build("llama", shape, tokenizer, 64, seed)

    def start(loss: str) -> tuple[Any, ...]:
        run = loop.accelerator("cpu", "float32")
        state = loop.Loop(run, build(8, 1), Optimisation(**KNOBS), STEPS)
        aim = make_objective(loss, {}, V, LiveTeacher(build(12, 2), V), seed=1)
        order = BatchSampler([len(each) for each in rows], KNOBS["batch_size"], 1)
        return state, aim, FixedBatches(data, 1, "cpu"), order

    return start


def train(made: tuple[Any, ...], work: Path, dies_at: int | None = None) -> dict[str, Any]:
    """Trains to the end, or dies before a step; weights and facts of the finished run."""
    state, aim, supply, order = made

    def supplied(step: int, indices: list[int]) -> Any:
        if step == dies_at:
            raise KeyboardInterrupt
        return supply(step, indices)

    loop.fit(state, aim, supplied, order, work, "me")
    return {"weights": state.module.state_dict(), "facts": aim.facts(), "state": aim.state}


@pytest.mark.parametrize("loss", ["forward_kl", "atkd"])
def test_the_form_that_a_loss_takes_by_its_size_does_not_change_a_training(
    parts: Callable[[str], tuple[Any, ...]], loss: str, tmp_path: Path, monkeypatch: Any
) -> None:
    runs = []
    for limit in (0, 1 << 22):  # logits: tile by tile, all tokens at once
        monkeypatch.setattr(fused, "AT_ONCE", limit)
        monkeypatch.setattr(fused, "CHUNK", 5 * V)
        runs.append(train(parts(loss), tmp_path / str(limit)))
    for name, value in runs[0]["weights"].items():
        torch.testing.assert_close(runs[1]["weights"][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", ["atkd", "shifting"])
def test_a_resumed_run_equals_an_undisturbed_one(
    parts: Callable[[str], tuple[Any, ...]], loss: str, tmp_path: Path
) -> None:
    whole = train(parts(loss), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(parts(loss), tmp_path / "killed", dies_at=5)
    kept = tmp_path / "killed/step-0000003"
    facts = read_json(kept / "step.json")
    assert (facts["step"], facts["identity"]) == (3, "me")
    made = parts(loss)
    again = train(made, tmp_path / "killed")
    assert again["facts"] == whole["facts"] and 0 < whole["facts"]["median_uncertainty"] < 1
    assert again["state"] == whole["state"] and whole["state"]["median_steps"] == STEPS
    for name, value in whole["weights"].items():
        assert torch.equal(again["weights"][name], value), name
    if loss == "shifting":
        assert made[1].steps == [3, 3, 4, 4, 5, 5] and whole["state"]["mean"] > 0


def test_facts_are_the_mean_of_the_steps_medians(
    parts: Callable[[str], tuple[Any, ...]],
) -> None:
    state, aim, supply, order = parts("atkd")
    medians = []
    for step in range(3):
        batches = [supply(step, order[step][i : i + 2]) for i in (0, 2)]
        signals = [aim.signal(batch).uncertainty_N for batch in batches]
        medians.append(torch.cat(signals).median().item())
        state.update(batches, aim)
    assert aim.facts() == {"median_uncertainty": round(sum(medians) / 3, 6)}
    assert parts("forward_kl")[1].facts() == {}


@pytest.mark.parametrize(("wrote", "reads"), [("shifting", "atkd"), ("atkd", "shifting")])
def test_a_checkpoint_of_another_objective_is_refused(
    parts: Callable[[str], tuple[Any, ...]], wrote: str, reads: str, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(parts(wrote), tmp_path, dies_at=4)
    one, other = (type(parts(name)[1]).__name__ for name in (wrote, reads))
    words = (
        rf"checkpoint: holds the state \[.*\] of an objective {one}; expected .* of {other}; del"
    )
    with pytest.raises(InputError, match=words):
        train(parts(reads), tmp_path)


def test_state_that_has_changed_is_refused_though_the_class_has_not() -> None:
    aim = Distillation("atkd", {}, V)
    with pytest.raises(InputError, match=r"holds the state \['medians'\] of an objective Distil"):
        aim.load_state_dict({"objective": "Distillation", "state": {"medians": [0.1]}})


def test_a_loss_without_an_objective_of_its_own_is_a_distillation() -> None:
    assert type(make_objective("jsd", {"beta": 0.2}, V)) is Distillation
    with pytest.raises(ValueError, match="loss 'shifted' is unknown"):
        make_objective("shifted", {}, V)


@pytest.mark.parametrize("rows", [V, V + 13])
def test_the_head_is_cut_only_where_it_has_more_rows(tokenizer: Any, rows: int) -> None:
    shape = {"hidden_size": 8, "layers": 1, "heads": 2, "rows": rows}
    model = checkpoints.build("llama", shape, tokenizer, 64, 1)
    weight, bias = checkpoints.head_rows(model, V)
    whole = model.get_output_embeddings().weight
    assert len(weight) == V and bias is None and (weight is whole) == (rows == V)

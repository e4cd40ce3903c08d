"""The one optimisation loop: base models, teachers and students, on any number of processes.

A step's loss is a sum over all supervised tokens of the optimiser step, so it does not depend on
micro-batches, accumulation or the number of processes. Checkpoints live in `work/`, which is
nobody's declared output; a killed run continues from the last one to the same result.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atkd.data.sequences import Batch, BatchSampler
from atkd.losses.weighting import gatherer
from atkd.models.checkpoints import hidden_states
from atkd.runtime import packages
from atkd.runtime.files import InputError
from atkd.runtime.progress import Progress
from atkd.training import checkpoint, sharding
from atkd.training.muon import RATE, Muon, hidden_matrices

if TYPE_CHECKING:
    from accelerate import Accelerator

    from atkd.training.objective import Objective
    from atkd.training.settings import Optimisation

KEPT = (
    "expected finite numbers. The last good checkpoint is kept; lower the learning rate or use "
    "float32"
)
Supply = Callable[[int, list[int]], Batch]  # micro-batch of an optimiser step's samples


class Supervised(torch.nn.Module):
    """A model whose forward ends in the loss, so that DDP and FSDP see every parameter's use."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, criterion: Callable[[Any, Tensor], Tensor]) -> Tensor:
        """The criterion of the hidden states at the positions that predict a target."""
        hidden_BTd = hidden_states(self.model, batch.input_ids_BT, batch.attention_mask_BT)
        return criterion(self.model, hidden_BTd[:, :-1][batch.supervised_BS])


def optimisers(model: Any, settings: Optimisation) -> list[torch.optim.Optimizer]:
    """AdamW of all that is trained, or Muon of the hidden matrices and AdamW of the rest.

    Where moments have 8 bits, those of tensors below 4,096 numbers are float32 all the same.
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    betas = (0.9, settings.beta2)
    rest = [each for each in model.parameters() if each.requires_grad]
    if settings.optimiser == "adamw_8bit":
        torchao = packages.needed("torchao.optim", "training.optimiser")
        return [torchao.AdamW8bit(rest, rate, betas, weight_decay=decay)]
    found: list[torch.optim.Optimizer] = []
    if settings.optimiser == "muon":
        matrices = hidden_matrices(model)
        found.append(Muon(matrices, RATE * rate, decay))
        own = set(map(id, matrices))
        rest = [each for each in rest if id(each) not in own]
    return [*found, torch.optim.AdamW(rest, rate, betas, weight_decay=decay, fused=True)]


def accelerator(device: str, precision: str) -> Accelerator:
    """Accelerate's handle on devices, processes and mixed precision."""
    from accelerate import Accelerator

    return Accelerator(cpu=device == "cpu", mixed_precision="bf16" if precision == "bf16" else "no")


class Loop:
    """State of one training: model, optimiser, schedule, step; saved and resumed as a whole.

    `sharded`: whether its processes share the model's weights and states.
    """

    def __init__(
        self,
        run: Accelerator,
        model: Any,
        settings: Optimisation,
        steps: int,
        sharded: bool = False,
    ) -> None:
        from transformers import get_cosine_schedule_with_warmup

        self.run, self.settings, self.step = run, settings, 0
        self.model, self.sharded = model, sharded and run.num_processes > 1
        self.last = settings.last_step(steps)
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        module = Supervised(model)
        if self.sharded:
            sharding.shard(module.to(run.device), model, str(run.device), run.num_processes)
        made = optimisers(model, settings)
        warmup = math.ceil(settings.warmup_ratio * steps)
        prepared = run.prepare(*([] if self.sharded else [module]), *made)
        prepared = prepared if isinstance(prepared, tuple) else (prepared,)
        self.module, *self.optimisers = (module, *prepared) if self.sharded else prepared
        self.schedules = [get_cosine_schedule_with_warmup(each, warmup, steps) for each in made]
        self.module.train()

    def update(self, micro_batches: list[Batch], objective: Objective) -> tuple[float, float, int]:
        """One optimiser step; returns loss, gradient norm, supervised tokens of all processes."""
        gather = gatherer(self.run)
        objective.step = self.step
        signals = [objective.signal(batch) for batch in micro_batches]
        weights = objective.weights(signals, gather)
        total, count = 0.0, 0
        for number, (batch, signal, weight) in enumerate(
            zip(micro_batches, signals, weights, strict=True)
        ):
            last = number == len(micro_batches) - 1

            criterion = partial(objective.loss, batch=batch, signal=signal, weights=weight)
            with self._sync(last):
                loss = self.module(batch, criterion)
                # DDP averages gradients over processes, but the step's loss is a sum.
                self.run.backward(loss * self.run.num_processes)
            part = loss.detach().item()
            self._check_finite(part, batch)
            total += part
            count += int(batch.supervised_BS.sum())
        norm = self._clipped()
        if not math.isfinite(norm):
            raise InputError(f"step {self.step + 1}: the gradient's norm is {norm}; {KEPT}")
        for optimiser, schedule in zip(self.optimisers, self.schedules, strict=True):
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return self._summed(total), norm, int(self._summed(count))

    def _clipped(self) -> float:
        """Clips the gradient and says what its norm was."""
        norm = self.run.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        return float(sharding.gathered(norm).item())

    def _sync(self, last: bool) -> Any:
        if self.sharded:
            self.module.set_requires_gradient_sync(last)
        return contextlib.nullcontext() if last or self.sharded else self.run.no_sync(self.module)

    def _summed(self, value: float) -> float:
        if self.run.num_processes == 1:
            return value
        return self.run.reduce(
            torch.tensor(value, device=self.run.device, dtype=torch.float64)
        ).item()

    def _check_finite(self, loss: float, batch: Batch) -> None:
        if math.isfinite(loss):
            return
        rows = ", ".join(map(str, sorted(batch.rows)))
        why = "the student's hidden states are not finite"
        if math.isinf(loss):
            why = "one of teacher and student gives probability to what the other gives none"
        raise InputError(
            f"step {self.step + 1}: the loss is {loss} on data rows {rows} ({why}); {KEPT}"
        )

    def save(self, work: Path, identity: str, objective: Objective) -> None:
        """Writes a checkpoint, whole or not at all, and drops the one before."""
        part, final = work / "part", work / f"step-{self.step:07d}"
        weights, states = self._state(objective)
        if self.run.is_main_process:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            checkpoint.write_state(part, weights, states)
        self.run.wait_for_everyone()
        checkpoint.write_random(part, self.run.process_index)
        self.run.wait_for_everyone()  # every process writes into the folder that is renamed
        if self.run.is_main_process:
            checkpoint.write_facts(part, self.step, identity)
            part.rename(final)
            for old in work.glob("step-*"):
                if old != final:
                    shutil.rmtree(old)
        self.run.wait_for_everyone()

    def _parts(self, objective: Objective) -> dict[str, Any]:
        """By name what has a state beside the model."""
        parts: dict[str, Any] = {"objective": objective}
        for number, pair in enumerate(zip(self.optimisers, self.schedules, strict=True)):
            parts |= {
                f"{kind}_{number}": each
                for kind, each in zip(("optimiser", "schedule"), pair, strict=True)
            }
        return parts

    def _state(self, objective: Objective) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The model's weights, and by name the states of what else has one; whole tensors."""
        states = {name: part.state_dict() for name, part in self._parts(objective).items()}
        return sharding.gathered((dict(self.model.state_dict()), states))

    def _restore(self, folder: Path, objective: Objective) -> None:
        weights, states = checkpoint.read_state(folder)
        sharding.load_weights(self.model, weights)
        for name, part in self._parts(objective).items():
            if name.startswith("optimiser"):
                sharding.load_optimiser(part, states[name])
            else:
                part.load_state_dict(states[name])

    def resume(self, work: Path, identity: str, objective: Objective) -> None:
        """Continues from the last checkpoint of the same identity; removes those of another.

        InputError names a checkpoint's folder that is damaged.
        """
        found = {each: checkpoint.read_facts(each) for each in sorted(work.glob("step-*"))}
        own = [folder for folder, facts in found.items() if facts["identity"] == identity]
        self.run.wait_for_everyone()  # all have read what the first process removes
        for folder in set(found) - set(own) if self.run.is_main_process else ():
            shutil.rmtree(folder)
        if own:
            with checkpoint.damaged(own[-1]):
                checkpoint.check_sizes(own[-1], found[own[-1]]["bytes"])
                self._restore(own[-1], objective)
                checkpoint.read_random(own[-1], self.run.process_index)
            self.step = found[own[-1]]["step"]
            self.run.print(f"resumed at step {self.step} of {self.last}")


def fit(
    loop: Loop,
    objective: Objective,
    supply: Supply,
    sampler: BatchSampler,
    work: Path,
    identity: str,
) -> dict[str, Any]:
    """Trains to the last step; returns tokens, supervised tokens, last loss and seconds taken."""
    work.mkdir(parents=True, exist_ok=True)
    loop.resume(work, identity, objective)
    seen = {
        "tokens": 0,
        "supervised_tokens": 0,
        "first_step": loop.step,
        "steps": loop.last,
        "loss": math.nan,
    }
    log, start = MetricsLog(work / "metrics.jsonl", loop), time.perf_counter()
    told = loop.run.is_main_process
    with Progress("train", loop.last, "steps", done=loop.step, shown=told) as progress:
        while loop.step < loop.last:
            batches = _micro_batches(loop, supply, sampler[loop.step])
            seen["loss"], norm, count = loop.update(batches, objective)
            seen["supervised_tokens"] += count
            read = sum(int(batch.attention_mask_BT.sum()) for batch in batches)
            seen["tokens"] += read * loop.run.num_processes
            progress.add(tokens=read * loop.run.num_processes, loss=seen["loss"])
            log.add(loop, seen["loss"], norm, count)
            if loop.step % loop.settings.checkpoint_every == 0 and loop.step < loop.last:
                loop.save(work, identity, objective)
    return seen | {"train_s": round(time.perf_counter() - start, 3)}


def _micro_batches(loop: Loop, supply: Supply, indices: list[int]) -> list[Batch]:
    share = len(indices) // loop.run.num_processes
    mine = (
        indices[loop.run.process_index * share :][:share] if loop.run.num_processes > 1 else indices
    )
    size = loop.settings.micro_batch_size or len(mine)
    return [supply(loop.step, mine[i : i + size]) for i in range(0, len(mine), size)]


class MetricsLog:
    """metrics.jsonl: about 100 lines a run; lines past a resumed step are dropped first."""

    def __init__(self, path: Path, loop: Loop) -> None:
        self.path, self.every = path, max(1, loop.last // 100)
        if not loop.run.is_main_process:
            return
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        whole = [line for line in lines if line.endswith("}")]
        kept = [line for line in whole if json.loads(line)["step"] <= loop.step]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def add(self, loop: Loop, loss: float, norm: float, count: int) -> None:
        """Appends the step if it is due."""
        if not loop.run.is_main_process or (loop.step % self.every and loop.step != loop.last):
            return
        rate = float(loop.schedules[-1].get_last_lr()[0])
        row = {
            "step": loop.step,
            "loss": loss,
            "grad_norm": norm,
            "learning_rate": rate,
            "supervised_tokens": count,
        }
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")

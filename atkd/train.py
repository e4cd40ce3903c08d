"""Trains one model: a base (from scratch, or taken over), a teacher, or a student by any method.

    python -m atkd.train --role student --method supervised_kd --base B --teacher T ... --output D

The output folder holds the model, its tokenizer and manifest.json (written last), metrics.jsonl and
provenance.json; work/ holds checkpoints while the job runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from atkd.files import InputError, cli, folder_lock, read_json, sha256
from atkd.fused import Head, fused_uncertainty, weighted_fused_loss
from atkd.objectives import METHODS
from atkd.provenance import Stage, settings_hash
from atkd.weighting import Weights, token_weights

if TYPE_CHECKING:
    from torch import Tensor

    from atkd.sequences import Batch


class Signal(NamedTuple):
    """A teacher's view of one micro-batch: final hidden states [N, d] and uncertainty [N]."""

    hidden_Nd: Tensor | None
    uncertainty_N: Tensor


class LiveTeacher:
    """A teacher that runs beside the student."""

    def __init__(self, model: Any, vocabulary: int) -> None:
        from atkd.models import head_rows

        self.model, self.head = model, Head(*head_rows(model, vocabulary))

    def signal(self, batch: Batch) -> Signal:
        """Hidden states and uncertainty at the supervised positions."""
        import torch

        from atkd.models import hidden_states

        with torch.no_grad():
            hidden_BTd = hidden_states(self.model, batch.input_ids_BT, batch.attention_mask_BT)
            hidden_Nd = hidden_BTd[:, :-1][batch.supervised_BS]
        return Signal(hidden_Nd, fused_uncertainty(hidden_Nd, self.head, batch.targets_N))


class Distillation:
    """A method's objective: divergence and settings from its row, teacher live (or none)."""

    def __init__(
        self,
        divergence: str,
        settings: Mapping[str, Any],
        teacher: LiveTeacher | None,
        vocabulary: int,
    ) -> None:
        self.divergence, self.settings, self.teacher = divergence, settings, teacher
        self.vocabulary = vocabulary
        self.medians: list[float] = []

    def signal(self, batch: Batch) -> Signal:
        """The teacher's view; without a teacher, zeros that only count the tokens."""
        import torch

        if self.teacher is None:
            return Signal(
                None, torch.zeros(batch.targets_N.numel(), device=batch.input_ids_BT.device)
            )
        return self.teacher.signal(batch)

    def weights(
        self, signals: list[Signal], gather: Callable[[Tensor], tuple[Tensor, int]]
    ) -> list[Weights]:
        """Token weights within the split's scope, cut back to the micro-batches."""
        import torch

        sizes = [signal.uncertainty_N.numel() for signal in signals]
        if self.settings.get("scope", "batch") == "micro":
            share = 1 / (len(signals) * gather(signals[0].uncertainty_N.new_zeros(1))[0].numel())
            pieces = [
                token_weights(self.divergence, s.uncertainty_N, self.settings) for s in signals
            ]
            return [Weights(*(share * weight for weight in piece)) for piece in pieces]
        joined_M, start = gather(torch.cat([signal.uncertainty_N for signal in signals]))
        if self.teacher is not None:
            self.medians.append(joined_M.median().item())
        whole = token_weights(self.divergence, joined_M, self.settings)
        own = [weight[start : start + sum(sizes)].split(sizes) for weight in whole]
        return [Weights(*piece) for piece in zip(*own, strict=True)]

    def facts(self) -> dict[str, float]:
        """Mean over steps of the median of the teacher's uncertainty, for provenance."""
        if not self.medians:
            return {}
        return {"median_uncertainty": round(sum(self.medians) / len(self.medians), 6)}

    def loss(
        self, model: Any, hidden_Nd: Tensor, batch: Batch, signal: Signal, weights: Weights
    ) -> Tensor:
        """This micro-batch's part of the step's loss."""
        from atkd.models import head_rows

        student, teacher = (
            Head(*head_rows(model, self.vocabulary)),
            self.teacher and self.teacher.head,
        )
        ours, theirs = (hidden_Nd, student), (signal.hidden_Nd, teacher)
        return weighted_fused_loss(
            self.divergence, *ours, *theirs, batch.targets_N, weights, self.settings
        )


def identity(args: argparse.Namespace, settings: Mapping[str, Any]) -> str:
    """Hash of everything that decides the result: settings, seed, data, base and teacher."""
    from atkd.provenance import versions

    sources = {name: getattr(args, name) for name in ("base", "teacher")}
    manifests = {
        name: sha256(Path(path) / "manifest.json") for name, path in sources.items() if path
    }
    data = sha256(args.data) if args.data else None
    parts = {"role": args.role, "method": args.method, "seed": args.seed, "settings": settings}
    return settings_hash(parts | {"data": data, "from": manifests, "versions": versions()})


def starting_model(args: argparse.Namespace, settings: Mapping[str, Any], tokenizer: Any) -> Any:
    """The model to train: opened or built for a base, the finished base otherwise."""
    from atkd import models

    if args.role != "base":
        return models.load(args.base)
    context = settings["training"]["max_length"]
    return models.open_source(settings["source"], settings["family"], tokenizer, context, args.seed)


def open_teacher(
    args: argparse.Namespace, settings: Mapping[str, Any], device: str, tokenizer: Any
) -> LiveTeacher | None:
    """The live teacher a method needs; InputError where its tokenizer is not the student's."""
    from atkd import models, tokens

    if not args.teacher:
        return None
    theirs = tokens.open_tokenizer({"folder": args.teacher}, settings["family"])
    tokens.same_vocabulary(tokenizer, theirs)
    model = models.load(args.teacher, device, settings["compute"]["teacher_dtype"])
    models.check_head(model, len(tokenizer))
    return LiveTeacher(model, len(tokenizer))


def read_sequences(args: argparse.Namespace, settings: Mapping[str, Any], tokenizer: Any) -> Any:
    """Packed text for a base, instruction data otherwise; says what was too long."""
    from atkd import sequences

    length = settings["training"]["max_length"]
    if args.role == "base":
        return sequences.packed_text(args.data, tokenizer, length)
    found = sequences.ground_truth(args.data, tokenizer, length)
    if found.too_long:
        print(
            f"{args.data}: {found.too_long} samples longer than {length} ids left out", flush=True
        )
    return found


def objective(
    args: argparse.Namespace,
    settings: Mapping[str, Any],
    teacher: LiveTeacher | None,
    vocabulary: int,
) -> Distillation:
    """Cross-entropy for bases and teachers, the method's row for students."""
    if args.role != "student":
        return Distillation("cross_entropy", {}, None, vocabulary)
    row = METHODS[args.method]
    if row.needs_teacher and teacher is None:
        raise InputError(f"--teacher: missing; method {args.method!r} needs one")
    chosen = {**row.settings, **settings["method"]}
    return Distillation(row.loss, chosen, teacher, vocabulary)


def train(args: argparse.Namespace, settings: dict[str, Any], name: str) -> None:
    """Runs the job inside its folder's lock; a finished folder of the same identity is kept."""
    from atkd import loop as loops
    from atkd import models, tokens
    from atkd.sequences import Order

    stage = Stage(args.role, args.run, settings, args.seed)
    models.set_up(args.seed)
    device = models.pick_device(settings["compute"]["device"])
    tokenizer = tokens.open_tokenizer({"folder": args.tokenizer}, settings["family"])
    model = starting_model(args, settings, tokenizer)
    models.check_head(model, len(tokenizer))
    facts: dict[str, Any] = {"device": device, "parameters": model.num_parameters()}
    output = Path(args.output)
    if args.role != "base" or "build" in settings["source"]:
        run = loops.accelerator(device, settings["compute"]["precision"])
        data = read_sequences(args, settings, tokenizer)
        order = Order(
            [len(ids) for ids in data.ids], _batch_size(settings["training"], run), args.seed
        )
        steps = loops.step_count(settings["training"], order.per_epoch)
        teacher = open_teacher(args, settings, str(run.device), tokenizer)
        aim = objective(args, settings, teacher, len(tokenizer))
        state = loops.Loop(run, model, settings["training"], steps)
        stage.ready()
        pad = tokenizer.pad_token_id
        facts |= loops.fit(state, aim, data, order, pad, output / "work", name) | aim.facts()
        facts |= {"samples": len(data), "too_long": data.too_long, "epoch_steps": order.per_epoch}
    if first_process():
        _finish(stage, model, tokenizer, output, name, facts)


def _finish(
    stage: Stage, model: Any, tokenizer: Any, output: Path, name: str, facts: dict[str, Any]
) -> None:
    from atkd import models

    stage.write(
        output / "provenance.json",
        **facts,
        precision=stage.record["settings"]["compute"]["precision"],
    )
    log = output / "work" / "metrics.jsonl"
    if log.exists():
        shutil.copyfile(log, output / "metrics.jsonl")
    models.save(model, tokenizer, output, name)
    shutil.rmtree(output / "work", ignore_errors=True)


def _batch_size(training: Mapping[str, Any], run: Any) -> int:
    size, unit = training["batch_size"], run.num_processes * training.get("micro_batch_size", 1)
    if size % unit:
        raise InputError(
            f"config key training.batch_size: found {size}; expected a multiple of "
            f"micro_batch_size x processes, {unit}"
        )
    return size


def first_process() -> bool:
    """Whether this is the one process of a training that writes files."""
    return int(os.environ.get("RANK", "0")) == 0


def only_trainer(folder: str) -> contextlib.AbstractContextManager[None]:
    """The folder's lock, taken by the first of several processes of one training.

    A single process waits for a training that still runs in the folder. Several do not, since the
    others would wait for the first in a collective and time out.
    """
    if not first_process():
        return contextlib.nullcontext()
    return folder_lock(folder, wait=int(os.environ.get("WORLD_SIZE", "1")) == 1)


def main() -> None:
    """Trains one model into --output; rerunning the same command resumes or keeps what is done."""
    parser = argparse.ArgumentParser(prog="python -m atkd.train", description=main.__doc__)
    parser.add_argument("--role", required=True, choices=["base", "teacher", "student"])
    parser.add_argument(
        "--method", choices=sorted(METHODS), help="student's method (atkd/objectives.py)"
    )
    parser.add_argument("--run", required=True, help="name of the run in score and cost files")
    parser.add_argument("--seed", type=int, required=True, help="seeds weights, order and dropout")
    parser.add_argument(
        "--settings", required=True, help="JSON: family, source, training, method, compute"
    )
    parser.add_argument("--tokenizer", required=True, help="tokenizer folder")
    parser.add_argument("--base", help="folder of the pretrained model (teacher, student)")
    parser.add_argument("--teacher", help="folder of the teacher (methods that need one)")
    parser.add_argument("--data", help="JSON lines to train on")
    parser.add_argument("--output", required=True, help="folder to write")
    args = parser.parse_args()
    settings = json.loads(args.settings)
    name = identity(args, settings)
    with only_trainer(args.output):
        manifest = Path(args.output) / "manifest.json"
        if manifest.exists() and read_json(manifest)["identity"] == name:
            print(f"{args.output}: finished before with the same settings, kept")
            return
        train(args, settings, name)


if __name__ == "__main__":
    cli(main)

"""Trains one model: a base (from scratch, or taken over), a teacher, or a student by any method.

    python -m atkd train --config FILE --run opt/125m/1.3b/supervised_kd/1
    python -m atkd train --role student --settings '{...}' --base B --teacher T ... --output D

The output folder holds the model, its tokenizer and manifest.json (written last), metrics.jsonl and
provenance.json; work/ holds checkpoints while the job runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from atkd.data.template import template
from atkd.methods import Recipe
from atkd.runtime.cli import start_up
from atkd.runtime.files import InputError, folder_lock, read_json, sha256
from atkd.runtime.provenance import Stage, settings_hash, versions

if TYPE_CHECKING:
    from atkd.data.sequences import Order, Sequences
    from atkd.training.loop import Loop, Supply
    from atkd.training.objective import Distillation
    from atkd.training.teacher import LiveTeacher
    from atkd.training.teacher_cache import CachedTeacher


def identity(args: argparse.Namespace, settings: Mapping[str, Any]) -> str:
    """Hash of all that decides the result: settings, seed, template, data, base and teacher."""
    folders = {name: getattr(args, name) for name in ("base", "teacher")}
    found = {name: sha256(Path(path) / "manifest.json") for name, path in folders.items() if path}
    files = {name: getattr(args, name) for name in ("data", "text")}
    found |= {name: sha256(path) for name, path in files.items() if path}
    parts = {
        "role": args.role,
        "seed": args.seed,
        "settings": settings,
        "template": template("a", "b"),
        "cached": bool(args.cache),
        "from": found,
        "versions": versions(),
    }
    return settings_hash(parts)


def starting_model(args: argparse.Namespace, settings: Mapping[str, Any], tokenizer: Any) -> Any:
    """The model to train: opened or built for a base, the finished base otherwise."""
    from atkd.models import checkpoints

    if args.role != "base":
        return checkpoints.load(args.base)
    context = settings["training"]["max_length"]
    return checkpoints.open_source(
        settings["source"], settings["family"], tokenizer, context, args.seed
    )


def open_teacher(
    args: argparse.Namespace, settings: Mapping[str, Any], device: str, tokenizer: Any
) -> LiveTeacher:
    """The teacher that runs beside the student; InputError where its tokenizer is another."""
    from atkd.models import checkpoints, tokenizers
    from atkd.training.teacher import LiveTeacher

    theirs = tokenizers.open_tokenizer({"folder": args.teacher}, settings["family"])
    tokenizers.same_vocabulary(tokenizer, theirs)
    model = checkpoints.load(args.teacher, device, settings["compute"]["teacher_dtype"])
    checkpoints.check_head(model, len(tokenizer))
    return LiveTeacher(model, len(tokenizer))


def open_cache(
    args: argparse.Namespace, settings: Mapping[str, Any], device: str
) -> CachedTeacher | None:
    """The teacher's cache, if one is given; InputError where it is not this teacher's."""
    from atkd.training import teacher_cache

    if not args.cache:
        return None
    if not args.teacher:
        raise InputError("--teacher: missing; the teacher whose cache is given is needed beside it")
    text = Path(args.text) if args.text else None
    facts = {"teacher_dtype": settings["compute"]["teacher_dtype"]}
    wanted = teacher_cache.identity(Path(args.teacher), Path(args.data), text, facts)
    found = teacher_cache.CachedTeacher(Path(args.cache), wanted, device)
    length = settings["training"]["max_length"]
    if found.max_length < length:
        raise InputError(
            f"{args.cache}: holds samples of at most {found.max_length} ids; expected {length}"
        )
    return found


def recipe_of(args: argparse.Namespace, settings: Mapping[str, Any]) -> Recipe:
    """Cross-entropy for bases and teachers, the method's recipe for a student."""
    if args.role != "student":
        return Recipe("cross_entropy")
    found = Recipe(**settings["recipe"])
    if found.loss is None:
        raise InputError("--settings: recipe.loss is null, which trains nothing; expected a loss")
    if found.distils and not args.teacher:
        raise InputError(f"--teacher: missing; the loss {found.loss!r} needs one")
    if found.sequences == "teacher" and not args.text:
        raise InputError("--text: missing; the recipe learns from teacher answers")
    return found


def read_sequences(
    args: argparse.Namespace,
    settings: Mapping[str, Any],
    tokenizer: Any,
    made: Recipe,
    context: int,
) -> Sequences:
    """Packed text for a base, instruction data otherwise; says what was too long."""
    from atkd.data import sequences

    length = settings["training"]["max_length"]
    if args.role == "base":
        return sequences.packed_text(args.data, tokenizer, length)
    if "prompt_doubled" in made.switches:
        length = min(2 * length, context)
    found = sequences.instructions(args.data, tokenizer, length, args.text, made.sample_switches)
    if found.too_long:
        print(
            f"{args.data}: {found.too_long} samples longer than {length} ids left out", flush=True
        )
    return found


def objective(
    args: argparse.Namespace, settings: Mapping[str, Any], made: Recipe, device: str, tokenizer: Any
) -> Distillation:
    """The recipe's loss with the teachers it needs: cached, live for student text, or both."""
    from atkd.training.objective import Distillation

    live = None
    cached = open_cache(args, settings, device) if made.cacheable else None
    if made.distils and (cached is None or made.student_fraction > 0):
        live = open_teacher(args, settings, device, tokenizer)
    return Distillation(made.loss, made.settings, len(tokenizer), live, cached, args.seed)


def supply_of(
    state: Loop, data: Sequences, made: Recipe, tokenizer: Any, max_length: int, seed: int
) -> Supply:
    """Micro-batches of fixed sequences, or of a mixture with the student's own answers."""
    from atkd.data.sequences import Fixed
    from atkd.training.on_policy import Mixture

    fixed = Fixed(data, tokenizer.pad_token_id, str(state.run.device))
    if made.student_fraction == 0:
        return fixed

    def student() -> Any:
        return state.run.unwrap_model(state.module).model

    autocast, switches = state.run.autocast, made.sample_switches
    return Mixture(fixed, student, tokenizer, made.settings, max_length, seed, autocast, switches)


class Job(NamedTuple):
    """A training that is set up: what the loop runs, and facts for provenance."""

    state: Loop
    aim: Distillation
    supply: Supply
    order: Order
    facts: dict[str, Any]


def train(args: argparse.Namespace, settings: dict[str, Any], name: str) -> None:
    """Runs the job inside its folder's lock; a finished folder of the same identity is kept."""
    stage, output = Stage(args.role, args.run, settings, args.seed), Path(args.output)
    with start_up():
        from atkd.models import checkpoints, tokenizers
        from atkd.training import loop

        checkpoints.set_up(args.seed)
        device = checkpoints.pick_device(settings["compute"]["device"])
        tokenizer = tokenizers.open_tokenizer({"folder": args.tokenizer}, settings["family"])
        model = starting_model(args, settings, tokenizer)
        checkpoints.check_head(model, len(tokenizer))
        facts: dict[str, Any] = {"device": device, "parameters": model.num_parameters()}
        trains = args.role != "base" or "build" in settings["source"]
        job = set_up(args, settings, tokenizer, model, device) if trains else None
    stage.ready()
    if job is not None:
        work = output / "work"
        facts |= loop.fit(job.state, job.aim, job.supply, job.order, work, name)
        facts |= job.aim.facts() | job.facts
    if first_process():
        _finish(stage, model, tokenizer, output, name, facts)


def set_up(
    args: argparse.Namespace, settings: Mapping[str, Any], tokenizer: Any, model: Any, device: str
) -> Job:
    """Reads the sequences and opens the teacher that the method needs."""
    from atkd.data.sequences import Order
    from atkd.training import loop

    training, made = settings["training"], recipe_of(args, settings)
    run = loop.accelerator(device, settings["compute"]["precision"])
    data = read_sequences(args, settings, tokenizer, made, model.config.max_position_embeddings)
    lengths = [len(sample.ids) for sample in data.samples]
    order = Order(lengths, _batch_size(training, run), args.seed)
    aim = objective(args, settings, made, str(run.device), tokenizer)
    state = loop.Loop(run, model, training, loop.step_count(training, order.per_epoch))
    supply = supply_of(state, data, made, tokenizer, training["max_length"], args.seed)
    facts = {"samples": len(data), "too_long": data.too_long, "epoch_steps": order.per_epoch}
    return Job(state, aim, supply, order, facts)


def _finish(
    stage: Stage, model: Any, tokenizer: Any, output: Path, name: str, facts: dict[str, Any]
) -> None:
    from atkd.models import checkpoints

    stage.write(
        output / "provenance.json",
        **facts,
        precision=stage.record["settings"]["compute"]["precision"],
    )
    log = output / "work" / "metrics.jsonl"
    if log.exists():
        shutil.copyfile(log, output / "metrics.jsonl")
    checkpoints.save(model, tokenizer, output, name)
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
    parser = argparse.ArgumentParser(prog="python -m atkd train", description=main.__doc__)
    parser.add_argument("--role", required=True, choices=["base", "teacher", "student"])
    parser.add_argument("--run", required=True, help="name of the run in score and cost files")
    parser.add_argument("--seed", type=int, required=True, help="seeds weights, order and dropout")
    parser.add_argument(
        "--settings",
        required=True,
        help="JSON: family, training, compute; a base's source; a student's recipe: loss, "
        "sequences, settings, switches",
    )
    parser.add_argument("--tokenizer", required=True, help="tokenizer folder")
    parser.add_argument("--base", help="folder of the pretrained model (teacher, student)")
    parser.add_argument("--teacher", help="folder of the teacher (methods that need one)")
    parser.add_argument("--cache", help="folder of the teacher's cache, for fixed sequences")
    parser.add_argument("--text", help="teacher's answers (methods that learn from them)")
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

"""Trains one model: a base (from scratch, or taken over), a teacher, or a student by any method.

    python -m atkd train --config FILE --run opt/125m/1.3b/supervised_kd/1
    python -m atkd train --role student --settings '{...}' --base B --teacher T ... --output D

The output folder holds the model, its tokenizer and manifest.json (written last), metrics.jsonl and
provenance.json; work/ holds checkpoints while the job runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from atkd.data import sequences
from atkd.data.sequences import BatchSampler, FixedBatches, Sequences
from atkd.data.template import fingerprint
from atkd.methods import Recipe
from atkd.models import checkpoints, tokenizers
from atkd.models.pruning import keep_layers
from atkd.runtime import arithmetic
from atkd.runtime.cli import json_object, start_up
from atkd.runtime.files import InputError, folder_lock, naming, read_json, sha256
from atkd.runtime.provenance import Stage, settings_hash, versions
from atkd.training import loop, sharding, shipped, teacher_cache
from atkd.training.adapters import Adapted
from atkd.training.loop import Loop, Supply
from atkd.training.objective import Objective, make_objective
from atkd.training.on_policy import OnPolicyBatches, StudentText
from atkd.training.settings import Optimisation, TrainingSettings
from atkd.training.teacher import LiveTeacher
from atkd.training.teacher_cache import CachedTeacher


def ingredients(args: argparse.Namespace, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides the result: settings, seed, template, ids, data, base, teacher."""
    folders = {name: getattr(args, name) for name in ("base", "teacher")}
    files = {name: getattr(args, name) for name in ("data", "text")}
    compute = settings.get("compute", {})
    return {
        "role": args.role,
        "seed": args.seed,
        "settings": settings | {"compute": {k: compute[k] for k in compute if k != "sharded"}},
        "template": fingerprint(),
        "tokenizer": sha256(Path(args.tokenizer) / "tokenizer.json"),
        "cached": bool(args.cache),
        "models": {n: sha256(Path(path) / "manifest.json") for n, path in folders.items() if path},
        "files": {name: sha256(path) for name, path in files.items() if path},
    }


def starting_model(args: argparse.Namespace, settings: TrainingSettings, tokenizer: Any) -> Any:
    """The model to train: opened, built or cut down for a base, the finished base otherwise."""
    if args.role != "base":
        return checkpoints.load(args.base)
    if "from" in settings.source:
        return keep_layers(checkpoints.load(args.base), settings.source["keep_layers"])
    context = settings.training.max_length
    return checkpoints.open_source(settings.source, settings.family, tokenizer, context, args.seed)


def check_router(model: Any) -> None:
    """InputError if the model's own training adds a loss that trainings here do not have."""
    if getattr(model.config.get_text_config(), "output_router_logits", False):
        raise InputError(
            f"model {type(model).__name__}: its configuration asks for the router's auxiliary loss "
            "(output_router_logits), which trainings here do not add; expected false"
        )


def open_teacher(
    args: argparse.Namespace, settings: TrainingSettings, device: str, tokenizer: Any
) -> LiveTeacher:
    """The teacher that runs beside the student; InputError where its tokenizer is another."""
    theirs = tokenizers.open_tokenizer({"folder": args.teacher}, settings.family)
    tokenizers.same_vocabulary(tokenizer, theirs)
    dtype = settings.compute.teacher_dtype
    return LiveTeacher.open(args.teacher, device, dtype, tokenizers.vocabulary_size(tokenizer))


def open_cache(
    args: argparse.Namespace, settings: TrainingSettings, device: str
) -> CachedTeacher | None:
    """The teacher's cache, if one is given; InputError where it is not this teacher's."""
    if not args.cache:
        return None
    if not args.teacher:
        raise InputError("--teacher: missing; the teacher whose cache is given is needed beside it")
    text = Path(args.text) if args.text else None
    dtype = settings.compute.teacher_dtype
    wanted = teacher_cache.identity(Path(args.teacher), Path(args.data), text, dtype)
    found = CachedTeacher(Path(args.cache), wanted, device)
    length = settings.training.max_length
    if found.max_length < length:
        raise InputError(
            f"{args.cache}: holds samples of at most {found.max_length} ids; expected {length}"
        )
    return found


def check_recipe(args: argparse.Namespace, recipe: Recipe) -> None:
    """InputError unless the recipe trains something and all that it needs is given."""
    if recipe.loss is None:
        raise InputError("--settings: recipe.loss is null, which trains nothing; expected a loss")
    if recipe.distils and not args.teacher:
        raise InputError(f"--teacher: missing; the loss {recipe.loss!r} needs one")
    if recipe.sequences == "teacher" and not args.text:
        raise InputError("--text: missing; the recipe learns from teacher answers")


def check_sharding(settings: TrainingSettings) -> None:
    """InputError where processes are to share what has to be whole."""
    training = settings.training
    reasons = {
        "a student that answers is whole": settings.recipe.student_fraction > 0,
        "Muon takes whole matrices": training.optimiser == "muon",
        "moments of 8 bits are for one device": training.optimiser == "adamw_8bit",
        "adapters are for one device": training.lora_rank is not None,
    }
    if settings.compute.sharded and (why := [each for each, holds in reasons.items() if holds]):
        raise InputError(f"config key compute.sharded: found true, but {why[0]}; expected false")


def read_sequences(
    args: argparse.Namespace, settings: TrainingSettings, tokenizer: Any, context: int
) -> Sequences:
    """Text for a base, instruction data otherwise; says what was too long."""
    length, recipe = settings.training.max_length, settings.recipe
    if args.role == "base":
        read = sequences.packed_text if settings.training.packed else sequences.single_texts
        return read(args.data, tokenizer, length)
    if "prompt_doubled" in recipe.switches:
        length = min(2 * length, context)
    found = sequences.instructions(args.data, tokenizer, length, args.text, recipe.sample_switches)
    if found.too_long:
        left_out = f"{found.too_long} samples longer than {length} ids left out"
        print(f"{args.data}: {left_out}", flush=True)
    return found


def objective(
    args: argparse.Namespace, settings: TrainingSettings, device: str, tokenizer: Any
) -> Objective:
    """The recipe's loss with the teachers it needs: cached, live for student text, or both."""
    recipe, live = settings.recipe, None
    cached = open_cache(args, settings, device) if recipe.cacheable else None
    if recipe.distils and (cached is None or recipe.student_fraction > 0):
        live = open_teacher(args, settings, device, tokenizer)
    vocabulary = tokenizers.vocabulary_size(tokenizer)
    return make_objective(recipe.loss, recipe.settings, vocabulary, live, cached, args.seed)


def supply_of(
    state: Loop, data: Sequences, settings: TrainingSettings, tokenizer: Any, seed: int
) -> Supply:
    """Micro-batches of fixed sequences, or of a mixture with the student's own answers."""
    fixed = FixedBatches(data, tokenizer.pad_token_id, str(state.run.device))
    recipe = settings.recipe
    if recipe.student_fraction == 0:
        return fixed

    def student() -> Any:
        return state.run.unwrap_model(state.module).model

    return OnPolicyBatches(
        fixed,
        student,
        tokenizer,
        StudentText.of(recipe.settings),
        settings.training.max_length,
        seed,
        state.run.autocast,
        recipe.sample_switches,
    )


class Job(NamedTuple):
    """A training that is set up: what the loop runs, and facts for provenance."""

    state: Loop
    aim: Objective
    supply: Supply
    sampler: BatchSampler
    adapted: Adapted | None
    facts: dict[str, Any]

    def finished(self) -> Any:
        """The trained model in one piece. Every process has to ask for it."""
        if self.adapted is not None:
            return self.adapted.merged()
        return sharding.whole(self.state.model) if self.state.sharded else self.state.model


class Names(NamedTuple):
    """Hashes of a training's ingredients; `identity` also of the libraries' versions."""

    recipe: str
    identity: str

    @classmethod
    def of(cls, args: argparse.Namespace, settings: Mapping[str, Any]) -> Names:
        """Of a command line."""
        parts = ingredients(args, settings)
        return cls(settings_hash(parts), settings_hash(parts | {"versions": versions()}))


def train(args: argparse.Namespace, given: dict[str, Any], names: Names) -> None:
    """Runs the job inside its folder's lock; a finished folder of the same identity is kept."""
    stage, output = Stage(args.role, args.run, given, args.seed), Path(args.output)
    settings = TrainingSettings.of(given)
    with start_up():
        checkpoints.set_up(args.seed)
        device = checkpoints.pick_device(settings.compute.device)
        tokenizer = tokenizers.open_tokenizer({"folder": args.tokenizer}, settings.family)
        model = starting_model(args, settings, tokenizer)
        check_router(model)
        checkpoints.check_head(model, tokenizers.vocabulary_size(tokenizer))
        facts: dict[str, Any] = {"device": device, "parameters": model.num_parameters()}
        trains = args.role != "base" or "build" in settings.source or settings.recipe.distils
        job = set_up(args, settings, tokenizer, model, device) if trains else None
    stage.ready()
    if job is not None:
        work = output / "work"
        with naming(args.run):
            facts |= loop.fit(job.state, job.aim, job.supply, job.sampler, work, names.identity)
        facts |= job.aim.facts() | job.facts
        model = job.finished()
    if first_process():
        facts["precision"] = settings.compute.precision
        _finish(stage, model, tokenizer, output, names, facts, settings.training.saved_dtype)
    if job is not None and job.state.run.num_processes > 1:
        job.state.run.wait_for_everyone()  # one that ended first could abort the others
        job.state.run.end_training()


def set_up(
    args: argparse.Namespace, settings: TrainingSettings, tokenizer: Any, model: Any, device: str
) -> Job:
    """Reads the sequences and opens the teacher that the method needs."""
    check_recipe(args, settings.recipe)
    check_sharding(settings)
    run = loop.accelerator(device, settings.compute.precision)
    data = read_sequences(args, settings, tokenizer, model.config.max_position_embeddings)
    lengths = [len(sample.ids) for sample in data.samples]
    sampler = BatchSampler(lengths, _batch_size(settings.training, run), args.seed)
    aim = objective(args, settings, str(run.device), tokenizer)
    steps = settings.training.step_count(sampler.per_epoch)
    rank = settings.training.lora_rank
    adapted = Adapted.of(model, rank) if rank else None
    state = Loop(run, model, settings.training, steps, settings.compute.sharded)
    supply = supply_of(state, data, settings, tokenizer, args.seed)
    facts = {"samples": len(data), "too_long": data.too_long, "epoch_steps": sampler.per_epoch}
    return Job(state, aim, supply, sampler, adapted, facts)


def _finish(
    stage: Stage,
    model: Any,
    tokenizer: Any,
    output: Path,
    names: Names,
    facts: dict[str, Any],
    dtype: str,
) -> None:
    stage.write(output / "provenance.json", **facts)
    log = output / "work" / "metrics.jsonl"
    if log.exists():
        shutil.copyfile(log, output / "metrics.jsonl")
    checkpoints.save(model, tokenizer, output, names._asdict(), dtype)
    shutil.rmtree(output / "work", ignore_errors=True)


def _batch_size(training: Optimisation, run: Any) -> int:
    size, unit = training.batch_size, run.num_processes * (training.micro_batch_size or 1)
    if size % unit:
        raise InputError(
            f"config key training.batch_size: found {size}; expected a multiple of "
            f"micro_batch_size x processes, {unit}"
        )
    return size


def take_over(args: argparse.Namespace, given: dict[str, Any], names: Names) -> bool:
    """Finishes a base from one that comes with the project; whether there is one of this recipe."""
    found = shipped.find(Path(args.shipped), names.recipe) if args.shipped else None
    if found is None or not first_process():
        return found is not None
    stage, output = Stage(args.role, args.run, given, args.seed), Path(args.output)
    stage.ready()
    stage.write(output / "provenance.json", **shipped.take_over(found, output))
    family = TrainingSettings.of(given).family
    tokenizers.open_tokenizer({"folder": args.tokenizer}, family).save_pretrained(output)
    checkpoints.finish(output, names._asdict())
    return True


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
    parser.add_argument(
        "--base", help="folder of the pretrained model (teacher, student), or of what a base is of"
    )
    parser.add_argument("--teacher", help="folder of the teacher (methods that need one)")
    parser.add_argument("--cache", help="folder of the teacher's cache, for fixed sequences")
    parser.add_argument("--text", help="teacher's answers (methods that learn from them)")
    parser.add_argument("--data", help="JSON lines to train on")
    parser.add_argument("--shipped", help="finished base to take over if of the same recipe")
    parser.add_argument("--output", required=True, help="folder to write")
    args = parser.parse_args()
    settings = arithmetic.chosen(json_object("--settings", args.settings))
    names = Names.of(args, settings)
    with only_trainer(args.output):
        manifest = Path(args.output) / "manifest.json"
        if manifest.exists() and read_json(manifest)["identity"] == names.identity:
            print(f"{args.output}: finished before with the same settings, kept")
            return
        if not take_over(args, settings, names):
            train(args, settings, names)

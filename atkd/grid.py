"""The models that a checked configuration spans, and how each of them is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from atkd.analyses import ANALYSES, teachers_in
from atkd.methods import deviations, row_of, training_of
from atkd.models.families import size as parameters

RUN_KEYS = ("family", "student", "teacher", "method")


@dataclass(frozen=True)
class Run:
    """One evaluated model; `-` stands for no student, or no teacher."""

    family: str
    student: str
    teacher: str
    method: str
    seed: int

    @property
    def key(self) -> str:
        """Name of the run in score files, and its folder under runs/."""
        return f"{self.family}/{self.student}/{self.teacher}/{self.method}/{self.seed}"

    @classmethod
    def of(cls, names: Mapping[str, str]) -> Run:
        """From the parts of a key, as text."""
        family, student, teacher, method = (names[key] for key in RUN_KEYS)
        return cls(family, student, teacher, method, int(names["seed"]))


class Pair(NamedTuple):
    """A student and a teacher of one family."""

    family: str
    student: str
    teacher: str


def model_seed(config: Mapping[str, Any], seed: int) -> int:
    """Seed of the teacher that a run of `seed` uses."""
    return 0 if config["seeds_cover"] == "student" else seed


def base_seed(config: Mapping[str, Any], seed: int) -> int:
    """Seed of the base that a run of `seed` uses."""
    return seed if config["seeds_cover"] == "all" else 0


def pairs(config: Mapping[str, Any]) -> list[Pair]:
    """The configuration's pairs, in its order."""
    return [Pair(**pair) for pair in config["pairs"]]


def models(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(family, size) of every model of the pairs, in their order, and of what these come from."""
    found = ((pair.family, size) for pair in pairs(config) for size in pair[1:])
    whole = dict.fromkeys(found)
    for family, size in [*whole]:
        while size := config["families"][family]["models"][size].get("from", ""):
            whole[family, size] = None
    return list(whole)


def teachers_of(config: Mapping[str, Any], family: str, student: str) -> list[str]:
    """A student's teachers, in the configuration's order."""
    found = (pair.teacher for pair in pairs(config) if pair[:2] == (family, student))
    return list(dict.fromkeys(found))


def by_size(config: Mapping[str, Any], family: str, student: str) -> list[str]:
    """A student's teachers, smallest first."""
    return sorted(teachers_of(config, family, student), key=parameters)


def assistant(config: Mapping[str, Any], pair: Pair) -> str | None:
    """The next smaller of a student's teachers, which may stand between the two; None if none."""
    ordered = by_size(config, pair.family, pair.student)
    place = ordered.index(pair.teacher)
    return ordered[place - 1] if place else None


def runs(config: Mapping[str, Any]) -> list[Run]:
    """Every model to evaluate, controls included, each once and in a stable order.

    A method that no teacher enters is trained once per student. With `deviations`, every method is
    also run with each switch of the released code that touches it in the family, and with all.
    """
    found: dict[Run, None] = {}
    variants = {
        pair.family: deviations(config, pair.family) if config["deviations"] else []
        for pair in pairs(config)
    }
    for pair, seed in ((pair, seed) for pair in pairs(config) for seed in config["seeds"]):
        teacher = Run(pair.family, "-", pair.teacher, "teacher", model_seed(config, seed))
        found[teacher] = None
        for method in [*config["methods"], *variants[pair.family]]:
            found[_run(config, pair, method, seed)] = None
    for name in config["analyses"]:
        for pair, seed in (
            (pair, seed) for pair in studied(config, name) for seed in config["seeds"]
        ):
            for method in ANALYSES[name].methods:
                found[_run(config, pair, method, seed)] = None
    return list(found)


def studied(config: Mapping[str, Any], name: str) -> Iterator[Pair]:
    """The pairs at which a study trains students."""
    row = ANALYSES[name]
    families = list(dict.fromkeys(pair.family for pair in pairs(config)))
    chosen = families[: row.families] if row.families else families
    for family, student in dict.fromkeys(pair[:2] for pair in pairs(config)):
        if family in chosen:
            for teacher in teachers_in(row.teachers, by_size(config, family, student)):
                yield Pair(family, student, teacher)


def _run(config: Mapping[str, Any], pair: Pair, method: str, seed: int) -> Run:
    teacher = pair.teacher if row_of(method).needs_teacher else "-"
    seed = base_seed(config, seed) if method == "none" else seed
    return Run(pair.family, pair.student, teacher, method, seed)


def training(
    config: Mapping[str, Any], family: str, size: str, role: str, method: str = ""
) -> dict[str, Any]:
    """Settings of training `size` as `role` by a student's method.

    Roles: base, teacher, early_teacher (a teacher that stops early), student.
    """
    stage = "teacher" if role == "early_teacher" else role
    common = config["training"].get(stage, config["training"]["student"])
    found = {key: value for key, value in common.items() if key != "allow_random_student"}
    model = config["families"][family]["models"][size]
    by_size = model.get("training", {}).get(stage, {})
    if stage == "base":
        by_size = by_size | model.get("heal", {})
    early = config["training"]["early_teacher"] if role == "early_teacher" else {}
    for own in (by_size, early, training_of(config, method) if method else {}):
        if "epochs" in own and "steps" not in own:
            found.pop("steps", None)  # which would take the place of epochs
        found |= own
    if found.get("stop_at") == 1:
        del found["stop_at"]  # as is the default of a training
    found["learning_rate"] *= found.pop("rate_factor", 1)
    if longer := found.pop("steps_factor", None):
        if "steps" in found:
            found["steps"] = max(1, round(longer * found["steps"]))
        else:
            found["epochs"] *= longer
    return found


def needs(
    config: Mapping[str, Any], family: str, sizes: Iterable[str], trained: str = ""
) -> dict[str, int]:
    """What a job that loads these sizes asks for: each need is the largest of theirs.

    A size whose training is sharded asks for its GPUs where it is the one that is trained.
    """
    common, models = config["compute"], config["families"][family]["models"]
    found = [(size, common | models[size].get("compute", {})) for size in sizes]
    shared = [own | {"gpus": min(1, own["gpus"])} if own["sharded"] and size != trained else own
              for size, own in found]  # fmt: skip
    keys = ("gpus", "spread", "threads", "memory_mb", "minutes")
    return {key: max(own[key] for own in shared) for key in keys}

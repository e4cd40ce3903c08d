"""What a configuration will cost before anything of it runs: jobs, hours, disk, downloads.

`python -m atkd plan --config config/paper.yaml --machine a100` prints it. Hours are estimates from
floating-point operations, bytes and a few numbers of the machine; no job runs and nothing is read
but the configuration.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from atkd import config as configuration
from atkd import grid
from atkd.forecast.lengths import Lengths, lengths_of
from atkd.forecast.machines import GIB, GPUS, Machine, measured
from atkd.forecast.shapes import KNOWN, shape_of
from atkd.forecast.work import Cost, Work, needs_of
from atkd.grid import Run
from atkd.jobs import JOBS, folder, matched
from atkd.plan import Plan

# The folder, under the results, of what each kind of job makes.
PLACES = {
    **{kind: JOBS[kind][1] for kind in ("base", "teacher", "early_teacher", "cache", "text")},
    "student": "students/{family}/{student}/{teacher}/{method}/seed{seed}",
}
STAGES = {
    "base": "pretrained models", "teacher": "teachers", "early_teacher": "teachers",
    "text": "teachers' answers", "cache": "teacher cache", "student": "students",
    "evaluate": "evaluation", "score": "scores", "exact_judge": "scores",
}  # fmt: skip
CARDS = (24, 40, 80)  # GiB


class Node(NamedTuple):
    """A job: its kind and key, its cost, and the earliest second at which it can end."""

    kind: str
    key: str
    cost: Cost
    end: float


class Forecast:
    """The jobs of a plan with their costs."""

    def __init__(self, plan: Plan, lengths: Lengths, machine: Machine) -> None:
        self.plan, self.machine = plan, machine
        self.work = Work(plan, lengths, machine)
        self.nodes: dict[str, Node] = {}
        for run in plan.runs:
            self._run(run)

    def _run(self, run: Run) -> None:
        before = self._made(self.plan.evaluated_model(run))
        cost = self.work.evaluate(run)
        self._add("evaluate", run.key, cost, before)
        end = before + cost.seconds
        light = ["score", *(["exact_judge"] if self.plan.exact else [])]
        for kind in light:
            self._add(kind, run.key, Cost(self.machine.light), end)

    def _made(self, path: str) -> float:
        """When the file of a model, a cache or answers can be there; adds the jobs that make it."""
        place = folder(path).removeprefix(f"{self.plan.results}/")
        for kind, template in PLACES.items():
            names = matched(template, place)
            if names is None:
                continue
            if path not in self.nodes:
                job = self.plan.job(kind, names)
                before = max((self._made(str(one)) for one in _paths(job.reads)), default=0.0)
                self._add(kind, path, self._cost(kind, job, names), before)
            return self.nodes[path].end
        return 0.0

    def _cost(self, kind: str, job: Any, names: Mapping[str, str]) -> Cost:
        if kind == "student":
            return self.work.student(job, Run.of(names))
        family, size = names["family"], names["size"]
        if kind in ("base", "teacher", "early_teacher"):
            make = self.work.base if kind == "base" else self.work.teacher
            return make(job, family, size)
        return (self.work.cache if kind == "cache" else self.work.text)(family, size)

    def _add(self, kind: str, key: str, cost: Cost, before: float) -> None:
        name = key if kind in PLACES else f"{kind}:{key}"
        self.nodes[name] = Node(kind, key, cost, before + cost.seconds)

    def stages(self) -> dict[str, tuple[int, float, float]]:
        """Stage -> jobs, seconds, bytes on disk."""
        found: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
        for node in self.nodes.values():
            row = found[STAGES[node.kind]]
            row[0] += 1
            row[1] += node.cost.seconds
            row[2] += node.cost.disk
        order = dict.fromkeys(STAGES.values())
        return {name: (int(found[name][0]), *found[name][1:]) for name in order if name in found}  # type: ignore[misc]

    def longest(self) -> float:
        """Seconds of the longest chain of jobs that wait for each other."""
        return max((node.end for node in self.nodes.values()), default=0.0)


def _paths(reads: Mapping[str, Any]) -> Iterator[str]:
    for value in reads.values():
        yield from [value] if isinstance(value, str) else value


def downloads(config: Mapping[str, Any]) -> dict[str, float]:
    """Hub models -> bytes that are downloaded, in float16 where the paper's models are so kept."""
    found = {}
    for family, size in grid.models(config):
        source = config["families"][family]["models"][size]
        if "hub" in source:
            each = 2.0 if source["hub"] in KNOWN else 4.0
            found[source["hub"]] = each * shape_of(config, family, size).parameters
    return found


def fits(plan: Plan) -> list[tuple[str, float]]:
    """What is trained -> bytes that it takes on a device."""
    found = []
    for family, size in grid.models(plan.config):
        teachers = {pair.teacher for pair in grid.pairs(plan.config) if pair.family == family}
        role = "teacher" if size in teachers else "student"
        settings = grid.training(plan.config, family, size, role)
        shape = shape_of(plan.config, family, size)
        own = plan.config["compute"] | plan.config["families"][family]["models"][size].get(
            "compute", {}
        )
        share = max(1, own["gpus"]) if own["sharded"] and role == "teacher" else 1
        name = f"{family} {size} as {role}" + (f", 1 of {share}" if share > 1 else "")
        found.append((name, needs_of(shape, settings, share)))
    return found


def report(config: Mapping[str, Any], machine: Machine, name: str) -> str:
    """The forecast in words and tables."""
    plan, lengths = Plan(config), lengths_of(config)
    here = Forecast(plan, lengths, machine)
    without = Forecast(Plan(dict(config) | {"teacher_cache": []}), lengths, machine)
    stages = here.stages()
    jobs, seconds, disk = (sum(row[at] for row in stages.values()) for at in range(3))
    unit = "GPU hours" if machine.memory else "CPU hours"
    lines = [
        f"{plan.results}: {len(plan.runs)} models, {jobs:,} jobs, on {name} ({machine.about})",
        "",
        f"{'stage':<20}{'jobs':>7}{unit:>12}{'GiB on disk':>13}",
        *(
            f"{stage:<20}{count:>7,}{spent / 3600:>12,.2f}{size / GIB:>13,.2f}"
            for stage, (count, spent, size) in stages.items()
        ),
        f"{'all':<20}{jobs:>7,}{seconds / 3600:>12,.2f}{disk / GIB:>13,.2f}",
        "",
        f"longest chain of jobs: {here.longest() / 3600:,.2f} hours; with {machine.jobs} at once "
        f"no less than {max(here.longest(), seconds / machine.jobs) / 3600:,.2f}",
        _cache(here, without),
        *_downloaded(config),
        *(_fitting(plan) if machine.memory else []),
        f"rows: {lengths.rows:,} of {lengths.prompt + lengths.answer:.0f} tokens, "
        f"{lengths.answer:.0f} of them supervised; "
        f"{sum(asked.items for asked in lengths.tasks.values()):,} items to answer",
    ]
    return "\n".join(lines)


def _cache(here: Forecast, without: Forecast) -> str:
    saved = sum(n.cost.seconds for n in without.nodes.values()) - sum(
        n.cost.seconds for n in here.nodes.values()
    )
    size = here.stages().get("teacher cache", (0, 0.0, 0.0))[2]
    return f"the teacher cache saves {saved / 3600:,.2f} hours for {size / GIB:,.2f} GiB"


def _downloaded(config: Mapping[str, Any]) -> list[str]:
    found = downloads(config)
    if not found:
        return []
    each = "; ".join(f"{name} {size / GIB:.1f}" for name, size in found.items())
    return [f"downloads: {sum(found.values()) / GIB:,.1f} GiB ({each})"]


def _fitting(plan: Plan) -> list[str]:
    lines = ["", f"{'trained':<36}{'GiB':>7}  fits in"]
    for what, size in fits(plan):
        cards = [f"{card} GiB" for card in CARDS if size < 0.92 * card * GIB]
        lines.append(f"{what:<36}{size / GIB:>7,.1f}  {', '.join(cards) or 'none of these'}")
    return [*lines, ""]


def main() -> None:
    """Prints what a configuration will cost; runs nothing of it."""
    parser = argparse.ArgumentParser(prog="python -m atkd plan", description=__doc__)
    parser.add_argument(
        "--config", required=True, nargs="+", dest="files", help="file, and files laid over it"
    )
    parser.add_argument(
        "--machine",
        choices=["this", *GPUS],
        help="this processor, measured, or a GPU, assumed (default: by the file's device)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="jobs that run at once (default: 1)")
    args = parser.parse_args()
    config = configuration.load(*args.files)
    name = args.machine or ("this" if config["compute"]["device"] == "cpu" else "a100")
    machine = measured(args.jobs) if name == "this" else GPUS[name]
    print(report(config, machine, name))

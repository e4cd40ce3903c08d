"""What an edit reruns: one file of every folder, each prompt and template, each settings fragment.

A run is faked (empty outputs, marked as made), so that only listings are needed. The tables name
the rules that an edit starts; with what follows from those they are all that runs again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import PACKAGE, ROOT, Snakemake, copy_of_checkout, edges, smoke

from atkd import code
from atkd.__main__ import STAGES
from atkd.config import checked
from atkd.jobs import JOBS
from atkd.plan import Plan

NAME = ("--configfile", "config/faked.yaml")
FOLLOWS = {
    "data": "tokenizer prompts base teacher text cache student exact_judge",
    "tokenizer": "prompts base teacher student",
    "prompts": "evaluate",
    "base": "teacher student evaluate",
    "teacher": "text cache student evaluate",
    "text": "cache student",
    "cache": "student",
    "student": "evaluate",
    "evaluate": "score exact_judge",
    "score": "scores",
    "exact_judge": "scores",
    "scores": "tables figures page",
    "tables": "figures page",
    "figures": "page",
}
TRAINED = "base teacher text cache student"
DRAWN = "tables figures page"
SCORED = "score scores"
# Edited file -> the rules that it starts.
EDITED = {
    "training/loop.py": TRAINED,
    "losses/kernels.py": TRAINED,
    "models/checkpoints.py": f"{TRAINED} evaluate",
    "models/generation.py": f"{TRAINED} evaluate",
    "models/tokenizers.py": f"tokenizer prompts {TRAINED} evaluate",
    "models/families.py": f"tokenizer prompts {TRAINED} evaluate",
    "data/template.py": f"prompts {TRAINED}",
    "data/sequences.py": TRAINED,
    "data/prompts.py": "prompts",
    "data/prepare.py": "data",
    "data/sources.py": "data",
    "world/skills.py": "data exact_judge",
    "forecast/work.py": "",
    "world/grader.py": "data exact_judge",
    "evaluation/evaluate.py": "evaluate",
    "evaluation/metrics.py": f"evaluate exact_judge {SCORED} {DRAWN}",
    "evaluation/scores.py": f"exact_judge {SCORED} {DRAWN}",
    "evaluation/lm_eval_tasks/metrics.py": "evaluate",
    "evaluation/lm_eval_tasks/base.yaml": "evaluate",
    "evaluation/fidelity.py": "",
    "evaluation/probe.py": "",
    "evaluation/references.py": "",
    "analysis/uncertainty.py": "",
    "judge/judge.py": "exact_judge",
    "judge/verdicts.py": "exact_judge",
    "statistics/intervals.py": DRAWN,
    "reporting/figures.py": DRAWN,
    "tasks.py": f"data prompts evaluate exact_judge {SCORED} {DRAWN}",
    "methods.py": DRAWN,
    "analyses.py": DRAWN,
    "config.py": "",
    "grid.py": "",
    "layout.py": "",
    "jobs.py": "",
    "config.schema.yaml": "",
    "plan.py": "",
    "runtime/files.py": "",
    "integrations.py": "",
}


def first_pair() -> dict[str, Any]:
    """Smoke's first pair alone."""
    found = smoke()
    return found | {"name": "faked", "pairs": found["pairs"][:1]}


def write(root: Path, config: dict[str, Any]) -> None:
    (root / "config/faked.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


@pytest.fixture(scope="module")
def faked(tmp_path_factory: pytest.TempPathFactory, snakemake: Snakemake) -> Path:
    """A checkout in which every output is there, empty, and noted as made by today's code."""
    root = copy_of_checkout(tmp_path_factory.mktemp("faked") / "checkout")
    write(root, first_pair())
    listing = snakemake(root, "-n", *NAME).stdout
    for line in re.findall(r"^ {4}output: (.*)$", listing, re.MULTILINE):
        for name in line.split(", "):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    done = snakemake(root, "--touch", "--forceall", "--cores", "1", *NAME)
    assert "100%" in done.stdout, done.stdout[-2000:]
    assert listed(snakemake, root) == set()
    return root


def listed(snakemake: Snakemake, root: Path) -> set[str]:
    """Rules that a listing would run."""
    listing = snakemake(root, "-n", *NAME).stdout
    assert "Nothing to be done" in listing or "Reasons:" in listing, listing[-2000:]
    stats = listing.rpartition("Job stats:")[2].partition("Reasons:")[0]
    return set(re.findall(r"^(\w+) +\d+$", stats, re.MULTILINE)) - {"all", "total"}


def chain(rules: str) -> set[str]:
    """These rules and all that follow."""
    found, left = set(), rules.split()
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += FOLLOWS.get(name, "").split()
    return found


RULES = {*FOLLOWS, *(name for names in FOLLOWS.values() for name in names.split())}


@pytest.mark.parametrize("name", EDITED)
def test_rules_read_the_files_that_they_use(name: str) -> None:
    direct = {rule for rule in RULES if PACKAGE / name in code.files(rule)}
    assert chain(" ".join(direct)) == chain(EDITED[name])


@pytest.mark.parametrize("name", ["training/loop.py", "evaluation/metrics.py", "config.py"])
def test_editing_a_file_reruns_what_uses_it(faked: Path, snakemake: Snakemake, name: str) -> None:
    path = faked / "atkd" / name
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\n# edited\n", encoding="utf-8")
    try:
        assert listed(snakemake, faked) == chain(EDITED[name])
    finally:
        path.write_text(text, encoding="utf-8")


def test_touching_files_reruns_nothing(faked: Path, snakemake: Snakemake) -> None:
    for path in [*faked.glob("atkd/**/*.py"), *faked.glob("workflow/**/*"), faked / "Snakefile"]:
        path.touch()
    assert listed(snakemake, faked) == set()


def changed(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets a key, dots between its parts."""

    def change(config: dict[str, Any]) -> None:
        *path, last = key.split(".")
        for part in path:
            config = config.setdefault(part, {})
        config[last] = value

    return change


SETTINGS = {
    "data.settings.train": (401, "data"),
    "families.opt.tokenizer.train": (401, "tokenizer"),
    "training.base.learning_rate": (0.004, "base"),
    "training.teacher.learning_rate": (0.004, "teacher"),
    "training.student.learning_rate": (0.004, "student"),
    "training.student.max_length": (255, "text cache student"),
    "method_settings.supervised_kd_atkd": ({"easy_weight": 0.5}, "student"),
    "student_text.max_new_tokens": (7, "student"),
    "teacher_text.max_new_tokens": (7, "text"),
    "released": (["test_template"], "prompts student"),
    "compute.teacher_dtype": ("bfloat16", "base teacher text cache student"),
    "compute.memory_mb": (5000, ""),
    "evaluation.context": (250, "prompts evaluate"),
    "evaluation.batch_size": (8, "evaluate"),
    "evaluation.limit.dolly": (3, "prompts"),
    "evaluation.shots.mmlu": (4, "prompts"),
}


JOBS_OF_A_PAIR = {
    "family": "opt", "size": "1.3b", "student": "125m", "teacher": "1.3b", "seed": "1",
    "sequences": "teacher",
}  # fmt: skip


def decided(config: dict[str, Any]) -> dict[str, set[str]]:
    """Kind of job -> the settings of its jobs of the pair, as rules have them."""
    plan = Plan(checked(config))
    found: dict[str, set[str]] = {}
    for kind in FOLLOWS.keys() - {"tables", "figures", "scores"}:
        names = re.findall(r"{(\w+)}", JOBS[kind][1])
        for method in config["methods"] if "method" in names else [""]:
            if method != "none" or kind != "student":
                wanted = {name: (JOBS_OF_A_PAIR | {"method": method})[name] for name in names}
                found.setdefault(kind, set()).add(repr(plan.job(kind, wanted).settings))
    return found


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_reaches_the_jobs_it_decides(key: str) -> None:
    config, (value, rules) = first_pair(), SETTINGS[key]
    before = decided(config)
    changed(key, value)(config)
    after = decided(config)
    found = {kind for kind in before if before[kind] != after[kind]}
    assert found <= set(rules.split()) and chain(" ".join(found)) == chain(rules)


@pytest.mark.parametrize("key", ["training.teacher.learning_rate", "evaluation.limit.dolly"])
def test_changing_a_setting_reruns_what_it_decides(
    faked: Path, snakemake: Snakemake, key: str
) -> None:
    config = first_pair()
    value, rules = SETTINGS[key]
    changed(key, value)(config)
    write(faked, config)
    try:
        assert listed(snakemake, faked) == chain(rules)
    finally:
        write(faked, first_pair())


def test_a_new_pair_trains_its_own_models_alone(faked: Path, snakemake: Snakemake) -> None:
    config = first_pair()
    shape = {"hidden_size": 24, "layers": 1, "heads": 2}
    config["families"]["opt"]["models"]["350m"] = {"build": shape}
    config["pairs"].append({"family": "opt", "student": "125m", "teacher": "350m"})
    write(faked, config)
    try:
        listing = snakemake(faked, "-n", *NAME).stdout
    finally:
        write(faked, first_pair())
    logs = re.findall(r"^ +log: results/faked/logs/(\S+)\.log$", listing, re.MULTILINE)
    others = {log for log in logs if "350m" not in log}
    # Which tokens are easy for a student without a teacher, each of its teachers says.
    rescored = {f"runs/opt/125m/-/{method}/1/score" for method in ("none", "sft")}
    assert others == {"scores", "tables", "figures", "page"} | rescored
    assert "models/opt/350m/seed1/teacher" in logs


def test_the_table_names_a_file_of_every_folder() -> None:
    folders = {path.parent.relative_to(ROOT / "atkd") for path in (ROOT / "atkd").rglob("*.py")}
    named = {Path(name).parent for name in EDITED}
    assert folders <= named
    assert all((ROOT / "atkd" / name).is_file() for name in EDITED)


# What no rule names: it decides no numbers by itself, or reaches jobs through their settings.
UNNAMED = ("runtime/", "config.py", "methods.py", "analyses.py", "grid.py", "plan.py")


def imported(module: str) -> set[str]:
    """Files of the package that a module imports in the end, itself included."""
    found: set[str] = set()
    left = {module}
    while left:
        path = f"{left.pop().replace('.', '/')}.py"
        if path not in found and (PACKAGE / path).is_file():
            found.add(path)
            left |= set() if path.startswith(UNNAMED) else edges(PACKAGE / path)
    return found


# The stage of the rule judge is also the exact judge's, of which that rule uses nothing.
@pytest.mark.parametrize("rule", sorted(JOBS.keys() - {"judge"}))
def test_rules_name_all_that_their_stages_import(rule: str) -> None:
    named = {str(path.relative_to(PACKAGE)) for path in code.files(rule)}
    wanted = imported(STAGES[JOBS[rule][0]].module.removeprefix("atkd."))
    assert {name for name in wanted - named if not name.startswith(UNNAMED)} == set()


def test_every_rule_that_runs_a_stage_names_its_code() -> None:
    paths = sorted((ROOT / "workflow/rules").glob("*.smk"))
    text = "\n".join(path.read_text("utf-8") for path in paths)
    head = r"^ *(?:use rule \w+ as|rule) (\w+)(?: with)?:\n((?:.+\n)+)"
    rules = dict(re.findall(head, text, re.MULTILINE))
    runs = ("python -m atkd", "command(")
    running = {rule for rule, body in rules.items() if any(each in body for each in runs)}
    assert running == {*code.CODE}
    for rule in running:
        assert f'code=code.digest("{rule}"),' in rules[rule], rule

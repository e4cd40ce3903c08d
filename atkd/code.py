"""Which files of the package decide what each rule of the workflow makes: an edit reruns it.

By folder or file. What decides no numbers by itself, or reaches jobs through their settings, is not
named (the runtime, the configuration, the plan).
"""

from __future__ import annotations

from pathlib import Path

from atkd.runtime.files import sha256
from atkd.runtime.provenance import settings_hash

PACKAGE = Path(__file__).parent
ENDINGS = (".py", ".yaml", ".html")

TOKENIZERS = tuple(f"models/{name}.py" for name in ("tokenizers", "families", "gguf", "weights"))
# Methods, splits and released switches reach a training through its settings (methods.py).
TRAINING = ("training", "losses", "models", "data/sequences.py", "data/template.py")
SCORING = ("evaluation/scores.py", "evaluation/metrics.py", "tasks.py")
LOOKING = ("evaluation/probe.py", "evaluation/references.py", "evaluation/settings.py", "models",
           "world/grammar.py", "tasks.py")  # fmt: skip
SAMPLES = ("data/sequences.py", "data/template.py")
REPORTING = ("statistics", "reporting", "tasks.py", "methods.py", "analyses.py",
             "models/families.py", "evaluation/metrics.py", "evaluation/scores.py")  # fmt: skip

CODE: dict[str, tuple[str, ...]] = {
    "data": ("world", "data/prepare.py", "data/sources.py", "tasks.py"),
    "tokenizer": TOKENIZERS,
    "check": TOKENIZERS,
    **dict.fromkeys(
        ("prompts", "released_prompts"),
        ("data/prompts.py", "data/template.py", *TOKENIZERS, "tasks.py"),
    ),
    **dict.fromkeys(("base", "teacher", "early_teacher", "text", "cache", "student"), TRAINING),
    "evaluate": ("evaluation/evaluate.py", "evaluation/settings.py", "evaluation/metrics.py",
                 "evaluation/lm_eval_tasks", "models", "tasks.py"),
    "score": SCORING,
    "exact_judge": ("judge", "world", *SCORING),
    "judge": ("judge", *SCORING),
    "scores": SCORING,
    "fidelity_of": ("evaluation/fidelity.py", *LOOKING, "world"),
    "fidelity": ("evaluation/fidelity.py",),
    "crosscheck_of": ("evaluation/mmlu_crosscheck.py", "evaluation/settings.py", "models",
                      *SCORING),
    "crosscheck": ("evaluation/mmlu_crosscheck.py",),
    "uncertainty_of": ("analysis/uncertainty.py", "losses/weighting.py", *LOOKING, *SAMPLES),
    "uncertainty": ("analysis/uncertainty.py",),
    "landscape_of": ("analysis/landscape.py", *LOOKING),
    "landscape": ("analysis/landscape.py",),
    "diversity": ("analysis/diversity.py",),
    "curves": ("analysis/curves.py",),
    "explorer": ("analysis/explorer.py", "analysis/uncertainty.py", "losses", *LOOKING, *SAMPLES),
    **dict.fromkeys(("tables", "analysis_table", "figures", "page"), REPORTING),
}  # fmt: skip


def files(rule: str) -> list[Path]:
    """The files that decide what a rule makes."""
    places = [PACKAGE / name for name in CODE[rule]]
    found = [path for place in places for path in (place.rglob("*") if place.is_dir() else [place])]
    return sorted({path for path in found if path.suffix in ENDINGS})


def digest(rule: str) -> str:
    """What stands for them in a rule's parameters.

    A parameter, not inputs: a hundred files of every job are most of the time of a large graph.
    """
    return settings_hash([[str(path.relative_to(PACKAGE)), sha256(path)] for path in files(rule)])

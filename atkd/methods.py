"""The methods: a row each, and a method as a job runs it.

A method is a loss on some sequences under settings. One that a wrapper makes of another (`base`)
keeps the base's sequences and settings and takes the wrapper's loss. A name may carry settings of
its own, `supervised_kd+learning_rate=0.002`, and switches of the released code, which departs from
the paper: `imitkd+greedy_student_text`, or `imitkd+released` for all that touch it. What those do
is in the paper's own repository (WHU-ZQH/ATKD); no line of it is used here. Importing this module
loads no torch.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from atkd.runtime.files import InputError

ALL = "released"
# The settings that a method may have of its own training, and of the models it starts from: its
# student's base or that base fine-tuned, its teacher as it is, one that stopped early, or an
# assistant that the teacher taught. All others are its loss's.
TRAINING = ("learning_rate", "rate_factor", "steps", "steps_factor", "epochs", "batch_size")
MODELS = {"start": "base", "teacher": "final"}


@dataclass(frozen=True)
class Method:
    """One row.

    `loss`: a name of `losses.functional`, `cross_entropy` for one without a teacher's
    distribution, None for a student that is not trained. `sequences`: whose answers the fixed
    sequences hold, `ground_truth` or `teacher`; the setting `student_fraction` is the share of
    steps on the current student's own answers instead. `look`: its colour and marker in figures.
    `base` and `wrapper`: what it is made of.
    """

    title: str
    loss: str | None
    sequences: str = "ground_truth"
    settings: Mapping[str, Any] = field(default_factory=dict)
    look: tuple[str, str] = ("#7A5195", "h")
    base: str = ""
    wrapper: str = ""

    @property
    def distils(self) -> bool:
        """Whether a teacher's distribution enters the loss."""
        return self.loss not in (None, "cross_entropy")

    @property
    def needs_teacher(self) -> bool:
        """Whether a run of the method belongs to one teacher: its distribution or its text."""
        return self.distils or self.sequences == "teacher"


class Wrapper(NamedTuple):
    """What makes a method of another: its title, loss and settings, and those it has no use for."""

    title: str
    loss: str
    settings: Mapping[str, Any]
    replaces: Collection[str] = ()


_SOFT = {"temperature": 1.0, "t_squared": False}  # of every loss with a teacher
_SOME = {"tokens": "all", "hard_fraction": 0.5}  # of those that do not part tokens by themselves
_PLAIN = _SOFT | _SOME
_MIXED = _PLAIN | {"student_fraction": 0.5, "text_temperature": 1.0, "max_new_tokens": 256}
_ONLY_STUDENT = _MIXED | {"student_fraction": 1.0}

WRAPPERS = {
    "atkd": Wrapper(
        "ATKD",
        "atkd",
        {
            "easy_weight": 0.2,
            "hard_fraction": 0.5,
            "split": "median",
            "scope": "batch",
            "divergence": "forward_kl",
        },
        replaces=("tokens",),
    ),
}
# Okabe and Ito's colours, which the colour-blind can tell apart; a marker each for print in grey.
METHODS: dict[str, Method] = {
    "none": Method("No training", None),
    "sft": Method("SFT", "cross_entropy"),
    "seqkd": Method("SeqKD", "cross_entropy", "teacher", look=("#4D4D4D", "P")),
    "supervised_kd": Method(
        "Supervised KD", "forward_kl", "ground_truth", _PLAIN, ("#0072B2", "o")
    ),
    "reverse_kd": Method("Reverse KD", "reverse_kl", "ground_truth", _PLAIN, ("#D55E00", "s")),
    "imitkd": Method("ImitKD", "forward_kl", settings=_MIXED, look=("#009E73", "^")),
    "f_distill": Method("f-distill", "tvd", "teacher", _MIXED, look=("#CC79A7", "D")),
    "gkd": Method("GKD", "jsd", settings={"beta": 0.5} | _ONLY_STUDENT, look=("#B8860B", "v")),
    "dkd": Method(
        "Decoupled KD",
        "dkd",
        settings=_PLAIN
        | {
            "target_weight": 0.2,
            "diversity_weight": 1.0,
            "suppressed": False,
            "divergence": "forward_kl",
        },
        look=("#56B4E9", "X"),
    ),
}


def wrapped(base: str, wrapper: str, **settings: Any) -> Method:
    """The row of `base` under a wrapper; `settings` are this combination's own."""
    row, over = METHODS[base], WRAPPERS[wrapper]
    kept = {key: value for key, value in row.settings.items() if key not in over.replaces}
    return Method(
        f"{row.title} + {over.title}",
        over.loss,
        row.sequences,
        {**kept, **over.settings, **settings},
        row.look,
        base,
        wrapper,
    )


METHODS |= {
    "supervised_kd_atkd": wrapped("supervised_kd", "atkd"),
    "reverse_kd_atkd": wrapped("reverse_kd", "atkd", divergence="reverse_kl"),
    "imitkd_atkd": wrapped("imitkd", "atkd"),
    "f_distill_atkd": wrapped("f_distill", "atkd"),
    "gkd_atkd": wrapped("gkd", "atkd"),
}
BASELINES = ("supervised_kd", "reverse_kd", "imitkd", "f_distill", "gkd")  # the paper's


class Switch(NamedTuple):
    """One departure of the released code, and whether it changes the samples trained on."""

    meaning: str
    changes_samples: bool = False


SWITCHES = {
    "eos_untaught": Switch("padding equals EOS, so that EOS is never a target of KD", True),
    "padding_taught": Switch("SFT is trained on the padding (EOS) up to the maximum length", True),
    "prompt_taught": Switch("OPT's prompt is in the loss", True),
    "tvd_off_answer": Switch("total variation on prompt and padding instead of the answer", True),
    "jsd_as_kl_mixture": Switch("'JSD' is 0.9 forward KL + 0.1 reverse KL"),
    "prompt_doubled": Switch("mixtures' fixed sequences hold the prompt twice", True),
    "split_per_sample": Switch("tokens are ranked per micro-batch, one sample at its default"),
    "test_template": Switch("another prompt template at test than in training"),
    "prompt_end_taught": Switch("on student text the prompt's last token is a target", True),
    "greedy_student_text": Switch("student text is greedy"),
}


def touches(switch: str, family: str, row: Method, settings: Mapping[str, Any]) -> bool:
    """Whether `switch` changes how a method's row, under its settings, is trained or tested."""
    fraction = settings.get("student_fraction", 0)
    fixed_truth = row.loss is not None and row.sequences == "ground_truth" and fraction == 0
    return {
        "eos_untaught": row.distils,
        "padding_taught": row.loss == "cross_entropy" and row.sequences == "ground_truth",
        "prompt_taught": family == "opt" and fixed_truth,
        "tvd_off_answer": row.loss == "tvd",
        "jsd_as_kl_mixture": row.loss == "jsd",
        "prompt_doubled": 0 < fraction < 1,
        "split_per_sample": row.loss == "atkd",
        "test_template": row.loss is not None,
        "prompt_end_taught": fraction > 0,
        "greedy_student_text": fraction > 0,
    }[switch]


@dataclass(frozen=True)
class Recipe:
    """A method as a job runs it: its row under a configuration's settings, and its switches."""

    loss: str | None
    sequences: str = "ground_truth"
    settings: Mapping[str, Any] = field(default_factory=dict)
    switches: Sequence[str] = ()

    @property
    def distils(self) -> bool:
        """Whether a teacher's distribution enters the loss."""
        return self.loss not in (None, "cross_entropy")

    @property
    def student_fraction(self) -> float:
        """Share of steps on the student's own answers."""
        return self.settings.get("student_fraction", 0)

    @property
    def sample_switches(self) -> tuple[str, ...]:
        """The switches that change the samples trained on, so that no cache knows them."""
        return tuple(name for name in self.switches if SWITCHES[name].changes_samples)

    @property
    def cacheable(self) -> bool:
        """Whether a teacher's cache can serve some of its steps."""
        return self.distils and self.student_fraction < 1 and not self.sample_switches


class Name(NamedTuple):
    """A method's name taken apart: the table's row, switches, settings as they are spelled."""

    row: str
    switches: tuple[str, ...]
    settings: dict[str, str]

    @classmethod
    def of(cls, name: str) -> Name:
        """From the name; nothing is looked up."""
        row, *rest = name.split("+")
        pairs = [part.split("=", 1) for part in rest if "=" in part]
        return cls(row, tuple(part for part in rest if "=" not in part), dict(pairs))


def row_of(name: str) -> Method:
    """The table's row of a method, whatever its name carries; InputError if it is unknown."""
    plain = Name.of(name).row
    if plain not in METHODS:
        close = difflib.get_close_matches(plain, METHODS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else f"; expected one of {[*METHODS]}"
        raise InputError(f"unknown method {plain!r}{hint}")
    return METHODS[plain]


# Settings whose usual name is not their key's.
SPELLED = {"hard_fraction": "k", "easy_weight": "λ"}


def title_of(name: str) -> str:
    """How a method is written for people; `teacher` and unknown names too."""
    found = Name.of(name)
    known = {"teacher": "Teacher"} | {key: row.title for key, row in METHODS.items()}
    own = [f"{setting_title(key)} {value}" for key, value in found.settings.items()]
    switched = "".join(f"+{switch}" for switch in found.switches)
    return ", ".join([known.get(found.row, found.row) + switched, *own])


def setting_title(key: str) -> str:
    """How a setting is written for people."""
    return SPELLED.get(key, key.replace("_", " "))


def switches_of(name: str) -> list[str]:
    """The switches a method's name carries; InputError if one is unknown."""
    found = Name.of(name).switches
    unknown = [switch for switch in found if switch not in (*SWITCHES, ALL)]
    if unknown:
        raise InputError(
            f"method {name!r}: unknown switch {unknown[0]!r}; expected one of {[*SWITCHES, ALL]}, "
            "or setting=value"
        )
    return list(SWITCHES) if ALL in found else list(found)


def settings_in(name: str) -> dict[str, Any]:
    """The settings a method's name carries: numbers and true or false as such, others as text."""
    return {key: _spelled(value) for key, value in Name.of(name).settings.items()}


def _spelled(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def trained_as(name: str) -> str:
    """The method whose student this one is tested with: a test template trains nothing."""
    return name.removesuffix("+test_template")


def resolve(
    name: str, family: str, overrides: Mapping[str, Any], released: Collection[str] = ()
) -> Recipe:
    """The method under these overrides, with the switches that touch it."""
    row = row_of(name)
    settings = {**row.settings, **overrides}
    wanted = {*switches_of(name), *released}
    found = tuple(s for s in SWITCHES if s in wanted and touches(s, family, row, settings))
    loss = "kl_mixture" if "jsd_as_kl_mixture" in found else row.loss
    settings |= {"scope": "sample"} if "split_per_sample" in found else {}
    settings |= {"text_temperature": 0.0} if "greedy_student_text" in found else {}
    return Recipe(loss, row.sequences, settings, found)


def own_settings(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a configuration sets for a method, and over it what the method's name does."""
    return {**config["method_settings"].get(Name.of(name).row, {}), **settings_in(name)}


def student_text(config: Mapping[str, Any]) -> dict[str, Any]:
    """How students answer in training, by the names of the methods' settings."""
    names = {"temperature": "text_temperature"}
    return {names.get(key, key): value for key, value in config["student_text"].items()}


def overrides(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings of a method's loss that are not the table's, `student_text` if it needs some."""
    common = student_text(config) if "student_fraction" in row_of(name).settings else {}
    own = own_settings(config, name)
    elsewhere = (*TRAINING, *MODELS)
    return {**common, **{key: value for key, value in own.items() if key not in elsewhere}}


def training_of(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings of a method's own training."""
    own = own_settings(config, name)
    return {key: value for key, value in own.items() if key in TRAINING}


def models_of(config: Mapping[str, Any], name: str) -> dict[str, str]:
    """Which models a method starts from and learns from, by the keys of `MODELS`."""
    own = own_settings(config, name)
    return {key: own.get(key, default) for key, default in MODELS.items()}


def deviations(config: Mapping[str, Any], family: str) -> list[str]:
    """The variants that measure the released code's departures: each switch alone, then all.

    Of every chosen method, those switches that touch it.
    """
    made = []
    for name in config["methods"]:
        found = resolve(name, family, overrides(config, name), SWITCHES).switches
        made += [f"{name}+{switch}" for switch in found]
        made += [f"{name}+{ALL}"] if len(found) > 1 else []
    return made

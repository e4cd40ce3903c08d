"""The released code's departures from the paper, each a named switch, and the samples they make.

What each one is, and what it was found to do, is in the paper's own repository (WHU-ZQH/ATKD); no
line of it is used here. `SWITCHES` says which methods a switch touches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple


class Switch(NamedTuple):
    """One departure: what it does, and whether it changes the samples that are trained on."""

    meaning: str
    changes_samples: bool = False


class Sample(NamedTuple):
    """Token ids, the first `prompt` of which are asked and the first `attended` attended to.

    `spans` are the half-open ranges of places whose token is a target.
    """

    ids: list[int]
    spans: tuple[tuple[int, int], ...]
    prompt: int
    attended: int


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


def touches(switch: str, family: str, row: Any, settings: Mapping[str, Any]) -> bool:
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


def sample(
    prompt: list[int], response: list[int], eos: int, length: int, switches: Collection[str] = ()
) -> Sample:
    """Prompt and response as trained on: every token of the response, EOS included, a target.

    The switches change that; `length` is what padding that is trained on fills up to.
    """
    lead = prompt if "prompt_doubled" in switches else []
    ids = [*lead, *prompt, *response]
    first = len(lead) or len(prompt)
    first = 1 if "prompt_taught" in switches else max(1, first - ("prompt_end_taught" in switches))
    attended = len(ids)
    last = attended - ("eos_untaught" in switches and ids[-1] == eos)
    spans = [(first, last)]
    if {"padding_taught", "tvd_off_answer"} & set(switches):
        ids += [eos] * (length - attended)
        spans = [(1, first)] if "tvd_off_answer" in switches else spans
        spans += [(attended, len(ids))]
    return Sample(ids, tuple(s for s in spans if s[0] < s[1]), len(prompt), attended)

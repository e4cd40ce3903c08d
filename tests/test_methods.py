"""Which tokens of a sample are targets, as stated and under each released switch."""

from __future__ import annotations

import pytest

from atkd import methods
from atkd.data.sequences import sample
from atkd.methods import METHODS, SWITCHES
from atkd.runtime.files import InputError

PROMPT, ANSWER, EOS = [11, 12, 13], [21, 22, 2], 2


def targets(*switches: str, answer: list[int] = ANSWER, length: int = 9) -> list[int]:
    made = sample(PROMPT, answer, EOS, length, switches)
    return [made.ids[i] for first, last in made.spans for i in range(first, last)]


def test_every_token_of_the_answer_is_a_target_and_none_of_the_prompt() -> None:
    assert targets() == ANSWER
    assert targets(answer=[21]) == [21]  # cut off before EOS
    assert sample(PROMPT, ANSWER, EOS, 9) == ([*PROMPT, *ANSWER], ((3, 6),), 3, 6)


@pytest.mark.parametrize(
    "switch,found",
    [
        ("eos_untaught", [21, 22]),
        ("padding_taught", [21, 22, 2, 2, 2, 2]),
        ("prompt_taught", [12, 13, 21, 22, 2]),
        ("tvd_off_answer", [12, 13, 2, 2, 2]),
        ("prompt_end_taught", [13, 21, 22, 2]),
    ],
)
def test_a_switch_moves_the_targets(switch: str, found: list[int]) -> None:
    assert targets(switch) == found


def test_padding_that_is_taught_is_not_attended_to() -> None:
    made = sample(PROMPT, ANSWER, EOS, 9, ["padding_taught"])
    assert len(made.ids) == 9 and made.attended == 6


def test_a_doubled_prompt_is_in_the_loss_once() -> None:
    made = sample(PROMPT, ANSWER, EOS, 20, ["prompt_doubled"])
    assert made.ids == PROMPT + PROMPT + ANSWER and made.ids[: made.prompt] == PROMPT
    assert targets("prompt_doubled") == PROMPT + ANSWER


def test_switches_touch_the_methods_they_are_about() -> None:
    def touched(name: str, family: str = "opt") -> set[str]:
        return set(methods.resolve(f"{name}+released", family, {}).switches)

    assert touched("sft") == {"padding_taught", "prompt_taught", "test_template"}
    assert touched("seqkd") == {"test_template"}
    assert touched("supervised_kd") == {"eos_untaught", "prompt_taught", "test_template"}
    assert "prompt_taught" not in touched("supervised_kd", "llama")
    on_policy = {"prompt_end_taught", "greedy_student_text", "eos_untaught", "test_template"}
    assert touched("f_distill") == on_policy | {"tvd_off_answer", "prompt_doubled"}
    assert touched("gkd") == on_policy | {"jsd_as_kl_mixture"}
    assert touched("imitkd_atkd") == on_policy | {"prompt_doubled", "split_per_sample"}
    assert set().union(*map(touched, METHODS)) == set(SWITCHES)


def test_recipes_apply_overrides_and_switches() -> None:
    made = methods.resolve("gkd+released", "llama", {"beta": 0.3})
    assert made.loss == "kl_mixture" and made.settings["text_temperature"] == 0
    assert made.settings["beta"] == 0.3 and not made.cacheable
    plain = methods.resolve("imitkd_atkd", "opt", {})
    assert plain.cacheable and plain.settings["scope"] == "batch" and plain.switches == ()
    single = methods.resolve("imitkd_atkd+split_per_sample", "opt", {})
    assert single.settings["scope"] == "sample" and single.cacheable
    assert methods.resolve("gkd", "opt", {}, released=["greedy_student_text"]).switches


@pytest.mark.parametrize(
    "name,words", [("imit_kd", "did you mean 'imitkd'"), ("gkd+greedy", "unknown switch 'greedy'")]
)
def test_unknown_names_are_refused(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        methods.resolve(name, "opt", {})


def test_a_name_carries_settings_and_is_written_for_people() -> None:
    name = "supervised_kd_atkd+hard_fraction=0.3+split=topk+learning_rate=1e-3"
    assert methods.row_of(name) is METHODS["supervised_kd_atkd"]
    config = {"method_settings": {"supervised_kd_atkd": {"split": "median"}}, "student_text": {}}
    assert methods.overrides(config, name) == {"hard_fraction": 0.3, "split": "topk"}
    assert methods.training_of(config, name) == {"learning_rate": 1e-3}
    assert methods.title_of(name) == "Supervised KD + ATKD, k 0.3, split topk, learning rate 1e-3"
    assert methods.title_of("gkd+greedy_student_text") == "GKD+greedy_student_text"


def test_deviations_pair_every_method_with_what_touches_it() -> None:
    config = {"methods": ["none", "sft", "gkd"], "method_settings": {}, "student_text": {}}
    found = methods.deviations(config, "pythia")
    assert "sft+padding_taught" in found and "sft+prompt_taught" not in found
    assert "gkd+released" in found and not [name for name in found if name.startswith("none")]

"""What jobs read, are set to and ask for, and the short command lines that spell them out."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, over_world, smoke

from atkd import __main__, config
from atkd.jobs import JOBS
from atkd.plan import Plan
from atkd.runtime.files import InputError, read_json

STUDENT = {"family": "opt", "student": "125m", "teacher": "1.3b"}


def planned(name: str = "smoke", **changes: Any) -> Plan:
    text = (ROOT / f"config/{name}.yaml").read_text(encoding="utf-8")
    return Plan(config.checked(yaml.safe_load(text) | changes))


def student(plan: Plan, method: str, **names: str) -> Any:
    return plan.job("student", STUDENT | {"method": method, "seed": "1"} | names)


@pytest.mark.parametrize(
    ("method", "reads"),
    [
        ("sft", {"base"}),
        ("seqkd", {"base", "text"}),
        ("supervised_kd", {"base", "teacher", "cache"}),
        ("supervised_kd_atkd", {"base", "teacher", "cache"}),
        ("imitkd", {"base", "teacher", "cache"}),
        ("f_distill", {"base", "teacher", "cache", "text"}),
        ("gkd", {"base", "teacher"}),
        ("imitkd+prompt_doubled", {"base", "teacher"}),  # samples that no cache knows
    ],
)
def test_a_student_reads_what_its_method_needs(method: str, reads: set[str]) -> None:
    found = student(planned(), method)
    assert set(found.reads) == reads | {"data", "tokenizer"}
    given = {name for name in found.options if found.options[name] is not None}
    assert given == reads | {"data", "tokenizer", "role", "run", "seed", "output"}


def test_without_a_cache_teachers_run_live_and_ask_for_their_memory() -> None:
    compute = {"memory_mb": 100000, "gpus": 1}
    families = smoke()["families"]
    families["opt"]["models"]["1.3b"]["compute"] = compute
    cached, live = (planned(families=families, **k) for k in ({}, {"teacher_cache": []}))
    assert "cache" not in student(live, "supervised_kd").reads
    assert student(live, "supervised_kd").needs.memory_mb == 100000
    assert student(cached, "supervised_kd").needs.memory_mb == 4000
    assert student(cached, "gkd").needs.gpus == student(cached, "imitkd").needs.gpus == 1


def test_one_base_and_teacher_serve_all_seeds_where_seeds_cover_students() -> None:
    plan = planned(seeds=[1, 2], seeds_cover="student")
    found = student(plan, "supervised_kd", seed="2")
    assert found.reads["base"] == "results/smoke/models/opt/125m/seed0/base/manifest.json"
    assert found.reads["cache"].startswith("results/smoke/cache/opt/1.3b/seed0/ground_truth/")
    assert found.options["output"] == "results/smoke/students/opt/125m/1.3b/supervised_kd/seed2"


def test_one_base_serves_all_seeds_where_they_cover_what_is_tuned() -> None:
    plan = planned(seeds=[1, 2], seeds_cover="tuned")
    base = "results/smoke/models/opt/{}/seed0/base/manifest.json"
    found = student(plan, "supervised_kd", seed="2")
    assert found.reads["base"] == base.format("125m")
    assert found.reads["cache"].startswith("results/smoke/cache/opt/1.3b/seed2/ground_truth/")
    teacher = plan.job("teacher", {"family": "opt", "size": "1.3b", "seed": "2"})
    assert teacher.reads["base"] == base.format("1.3b")
    assert teacher.options["output"] == "results/smoke/models/opt/1.3b/seed2/teacher"
    keys = [run.key for run in plan.runs]
    assert keys.count("opt/125m/-/none/0") == 1 and "opt/-/1.3b/teacher/2" in keys
    models = plan.job("curves", {}).reads["models"]
    assert len(models) == len(set(models)) and base.format("125m") in models


def test_a_method_has_settings_of_its_own() -> None:
    named = "supervised_kd_atkd+learning_rate=0.003+hard_fraction=0.3"
    plan = planned(
        methods=["sft", named], method_settings={"supervised_kd_atkd": {"easy_weight": 0.1}}
    )
    found, plain = student(plan, named).settings, student(plan, "sft").settings
    assert found["training"] == plain["training"] | {"learning_rate": 0.003}
    doubled = student(planned(methods=["sft+rate_factor=2"]), "sft+rate_factor=2")
    rate = doubled.settings["training"]["learning_rate"]
    assert rate == 2 * plain["training"]["learning_rate"]
    longer = student(planned(methods=["sft+steps_factor=1.5"]), "sft+steps_factor=1.5")
    assert longer.settings["training"]["steps"] == 1.5 * plain["training"]["steps"]
    own = {"hard_fraction": 0.3, "easy_weight": 0.1}
    assert found["recipe"]["settings"].items() >= own.items()
    by_epoch = student(planned(methods=["sft+epochs=2"]), "sft+epochs=2").settings["training"]
    assert by_epoch["epochs"] == 2 and "steps" not in by_epoch and plain["training"]["steps"]


def test_a_student_may_start_from_sft_and_learn_from_others() -> None:
    plan = planned("world", analyses=["remedies", "starts"])
    far = {"student": "125m", "teacher": "6.7b"}
    early, helped, tuned = (
        student(plan, f"supervised_kd+{own}", **far).reads
        for own in ("teacher=early", "teacher=assistant", "start=sft")
    )
    results = "results/world"
    assert early["teacher"] == f"{results}/models/opt/6.7b/seed1/early_teacher/manifest.json"
    taught = f"{results}/students/opt/2.7b/6.7b/supervised_kd/seed1/manifest.json"
    assert helped["teacher"] == taught and "cache" not in helped and "cache" in tuned
    assert tuned["base"] == f"{results}/students/opt/125m/-/sft/seed1/manifest.json"
    assert plan.record()["analyses"] == ["remedies", "starts"]
    stopped = plan.job("early_teacher", {"family": "opt", "size": "6.7b", "seed": "1"})
    assert stopped.options["role"] == "teacher" and stopped.settings["training"]["stop_at"] == 0.25
    with pytest.raises(InputError, match="no teacher is smaller"):
        student(plan, "supervised_kd+teacher=assistant")


def test_settings_hold_what_decides_a_result_and_nothing_else() -> None:
    plain, changed = planned(), planned(method_settings={"supervised_kd": {"steps": 3}})
    assert student(plain, "sft").settings == student(changed, "sft").settings
    assert student(plain, "supervised_kd").settings != student(changed, "supervised_kd").settings
    family = smoke()["families"]
    family["opt"]["models"]["125m"]["compute"] = {"minutes": 7}
    more = planned(families=family)
    names = {"family": "opt", "size": "125m", "seed": "1"}
    assert more.job("base", names).settings == plain.job("base", names).settings
    assert more.job("base", names).needs.minutes == 7
    judged = planned(
        evaluation=more.config["evaluation"] | {"judge": {"endpoint": "http://h/v1", "model": "m"}}
    )
    run = STUDENT | {"method": "sft", "teacher": "-", "seed": "1"}
    assert judged.job("evaluate", run) == plain.job("evaluate", run)


def test_released_switches_reach_recipes_and_prompts() -> None:
    plan = planned(protocol="released")
    assert "eos_untaught" in student(plan, "supervised_kd").settings["recipe"]["switches"]
    assert plan.job("prompts", {"family": "opt"}).settings["template"] == "released"
    run = STUDENT | {"method": "sft+test_template", "teacher": "-", "seed": "1"}
    found = planned().job("evaluate", run)
    assert found.options["prompts"] == "results/smoke/released_prompts/opt"
    assert found.options["model"] == "results/smoke/students/opt/125m/-/sft/seed1"


def test_a_teachers_answers_fit_the_longest_sample_of_its_students() -> None:
    families = smoke()["families"]
    families["opt"]["models"]["350m"] = {"build": {"hidden_size": 16, "layers": 1, "heads": 2}}
    families["opt"]["models"]["350m"]["training"] = {"student": {"max_length": 999}}
    pair = {"family": "opt", "student": "350m", "teacher": "1.3b"}
    plan = planned(families=families, pairs=[STUDENT, pair])
    names = {"family": "opt", "size": "1.3b", "seed": "1"}
    assert plan.job("text", names).settings["max_length"] == 999


def test_easy_tokens_are_judged_by_a_runs_own_teacher_or_all_of_its_students() -> None:
    plan = planned("world")
    own = plan.job("score", STUDENT | {"method": "gkd", "seed": "1"}).options["teachers"]
    assert own == ["own=results/world/runs/opt/-/1.3b/teacher/1/samples"]
    sft = STUDENT | {"teacher": "-", "method": "sft", "seed": "1"}
    names = [text.partition("=")[0] for text in plan.job("score", sft).options["teachers"]]
    assert names == ["1.3b", "2.7b", "6.7b"]


def test_the_kin_of_a_student_are_its_runs_and_its_teachers() -> None:
    plan = planned("world", seeds=[1, 2])
    kin = plan.kin_of("opt", "125m", "2")
    assert {run.seed for run in kin} == {2} and {run.family for run in kin} == {"opt"}
    assert sum(run.method == "teacher" for run in kin) == 3
    found = plan.job("fidelity_of", {"family": "opt", "student": "125m", "seed": "2"})
    folders = dict(zip(found.options["runs"], found.options["models"], strict=True))
    assert folders["opt/-/1.3b/teacher/2"] == "results/world/models/opt/1.3b/seed2/teacher"
    assert folders["opt/125m/-/none/2"] == "results/world/models/opt/125m/seed2/base"
    assert folders["opt/125m/-/sft/2"] == "results/world/students/opt/125m/-/sft/seed2"
    assert len(folders) == len(kin) == len(found.reads["models"])


def test_the_record_says_what_was_run_and_on_what() -> None:
    plan = Plan(config.checked(over_world("deviations")))
    record = plan.record()
    assert record["source"] == "world" and record["config"] == "deviations"
    assert "opt/125m/1.3b/gkd+released/3" in record["runs"] and record["judge"] is False
    assert record["runs"] == [run.key for run in plan.runs]
    assert record == read_json(ROOT / "results/reference/deviations/run.json")
    frozen = read_json(ROOT / "results/reference/world/run.json")
    assert planned("world", analyses=[]).record() == frozen


def test_a_sharded_size_asks_for_its_gpus_where_it_is_trained() -> None:
    families = smoke()["families"]
    families["opt"]["models"]["1.3b"]["compute"] = {"gpus": 4, "sharded": True}
    plan = planned(families=families, compute={"device": "auto", "gpus": 1}, teacher_cache=[])
    names = {"family": "opt", "size": "1.3b", "seed": "1"}
    teacher, text = plan.job("teacher", names), plan.job("text", names)
    assert (teacher.needs.gpus, text.needs.gpus) == (4, 1)
    assert teacher.settings["compute"]["sharded"] is True
    live = student(plan, "supervised_kd")
    assert live.needs.gpus == 1 and "sharded" not in live.settings["compute"]


def test_only_training_asks_for_several_gpus() -> None:
    families = smoke()["families"]
    plan = planned(families=families, compute={"device": "auto", "gpus": 2})
    names = {"family": "opt", "size": "1.3b", "seed": "1"}
    assert plan.job("teacher", names).needs.gpus == 2
    assert plan.job("text", names).needs.gpus == 1
    families["opt"]["models"]["1.3b"]["compute"] = {"spread": 3}
    plan = planned(families=families, compute={"device": "auto", "gpus": 2})
    assert plan.job("teacher", names).needs.gpus == 2
    assert plan.job("text", names).needs.gpus == 3
    assert student(plan, "supervised_kd").needs.gpus == 2


def test_every_kind_of_job_is_found_again_by_its_short_command_line() -> None:
    judge = {"endpoint": "http://h/v1", "model": "m"}
    plan = planned("world", evaluation=planned("world").config["evaluation"] | {"judge": judge})
    names = STUDENT | {"size": "1.3b", "seed": "1", "method": "f_distill", "sequences": "teacher"}
    for kind, (stage, template) in JOBS.items():
        wanted = {name: names[name] for name in re.findall(r"{(\w+)}", template)}
        line = shlex.split(plan.command(kind, wanted))
        assert line[:3] == ["python", "-m", "atkd"] and line[3] == stage
        key = line[line.index("--run") + 1]
        kinds = [k for k, (s, t) in JOBS.items() if (s, t) == (stage, template)]
        assert plan.by_hand(stage, key) == plan.job(kinds[0], wanted)
        assert len(" ".join(line)) < 120


def test_a_wrong_key_or_configuration_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"--run: found 'opt/125m'; expected models/\{family\}/"):
        planned().by_hand("train", "opt/125m")
    for stage, key, words in (
        ("train", "models/opd/1.3b/seed1/teacher", "found family 'opd' in .*; expected opt, llama"),
        ("train", "models/opt/13b/seed1/teacher", "found size '13b' in .*; expected 125m, 1.3b"),
        ("evaluate", "opt/125m/1b/gkd/1", "found teacher '1b' in .*; expected 125m, 1.3b"),
        ("evaluate", "opt/125m/1.3b/gkd/one", "found seed 'one' in .*; expected a number"),
        ("train", "opt/125m/1.3b/gdk/1", "unknown method 'gdk' .did you mean 'gkd'"),
        ("train", "models/opt/-/seed1/base", "found size '-' in .*; expected 125m, 1.3b"),
        ("evaluate", "opt/-/1.3b/gkd/1", "found student '-' in .*; expected 125m, 1.3b"),
        ("evaluate", "opt/125m/1.3b/sft/1", "found teacher '1.3b' in .*; expected -"),
        ("evaluate", "opt/125m/1.3b/teacher/1", "found student '125m' in .*; expected -"),
        ("teacher-answers", "text/opt/125m/seed1", "opt 125m: no pair has it as its teacher"),
        ("judge", "all", "evaluation.judge: missing; expected an endpoint and a model"),
    ):
        with pytest.raises(InputError, match=words):
            planned().by_hand(stage, key)
    monkeypatch.delenv("ATKD_WARM", raising=False)
    for text, words in (("name: [", "not valid YAML"), ("3", "expected keys"), ("name: x", "'")):
        (tmp_path / "c.yaml").write_text(text)
        line = ["atkd", "train", "--config", str(tmp_path / "c.yaml"), "--run", "x"]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as caught:
            __main__.main()
        error = capsys.readouterr().err
        assert caught.value.code == 2 and error.startswith("error: ") and words in error
        assert error.count("\n") == 1

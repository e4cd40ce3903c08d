"""The workflow as its users meet it: listings, bad input on the terminal, style, a cluster."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, Snakemake, command, copy_of_checkout, quiet_environment, smoke

from atkd.runtime.files import folder_lock, write_jsonl

TASKS = ("dolly", "selfinst", "vicuna", "koala", "wizardlm", "mmlu", "drop", "bbh")
SMOKE = ("--configfile", "config/smoke.yaml")


def counts(listing: str) -> dict[str, int]:
    """Rule -> number of jobs, from a listing's statistics."""
    found = re.findall(r"^(\w+) +(\d+)$", listing.split("Job stats:")[-1], re.MULTILINE)
    return {name: int(number) for name, number in found}


def smoke_with(folder: Path, name: str, **changes: object) -> str:
    """A configuration file in `folder`: smoke with some keys replaced."""
    config = smoke()
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config | {"name": name} | changes), encoding="utf-8")
    return str(path)


def listing_cpu_s(checkout: Path, snakemake: Snakemake, path: Path) -> float:
    """CPU seconds of listing a configuration's jobs, which must succeed and end in one page."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    root = ["--config", "data_root=data"] if path.stem == "lab" else []
    done = snakemake(checkout, "-n", "--configfile", f"config/{path.name}", *root)
    assert done.returncode == 0, done.stdout
    assert counts(done.stdout)["page"] == 1
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def test_every_configuration_lists_its_jobs_as_fast_as_the_smallest(
    checkout: Path, snakemake: Snakemake
) -> None:
    paths = sorted((ROOT / "config").glob("*.yaml"))
    cost = {path.stem: listing_cpu_s(checkout, snakemake, path) for path in paths}
    assert max(cost.values()) < 4 * cost["smoke"], cost


def test_the_default_is_the_world_and_a_named_configuration_stands_alone(
    checkout: Path, snakemake: Snakemake, tmp_path: Path
) -> None:
    world = snakemake(checkout, "-n")
    assert "results/world/index.html" in world.stdout and "pythia" in world.stdout
    listing = snakemake(checkout, "-n", *SMOKE)
    assert "results/world/" not in listing.stdout and "pythia" not in listing.stdout
    assert counts(listing.stdout) == {
        "data": 1, "tokenizer": 2, "prompts": 2, "base": 4, "teacher": 2, "text": 2,
        "cache": 4, "student": 12, "evaluate": 16, "score": 16, "exact_judge": 16, "scores": 1,
        "tables": 1, "figures": 1, "page": 1, "all": 1, "total": 82,
    }  # fmt: skip
    short = smoke()
    del short["methods"]
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(short), encoding="utf-8")
    done = snakemake(checkout, "-n", "--configfile", str(tmp_path / "short.yaml"))
    assert done.returncode != 0 and "'methods' is a required property" in done.stdout


def test_analyses_are_asked_for_by_name(checkout: Path, snakemake: Snakemake) -> None:
    done = snakemake(checkout, "-n", "-p", "fidelity", "crosscheck", *SMOKE)
    found = counts(done.stdout)
    assert (found["fidelity_of"], found["fidelity"], found["crosscheck"]) == (2, 1, 1)
    assert found["crosscheck_of"] == found["evaluate"] == found["score"] and "scores" not in found
    lines = re.findall(r"atkd fidelity --config (\S+) --run (\S+)", done.stdout)
    known = "results/smoke/config.json"
    assert sorted(lines) == [(known, "llama/68m/seed1"), (known, "opt/125m/seed1")]
    (inputs,) = re.findall(r"rule fidelity_of:\n +input: (.*opt/1.3b.*)", done.stdout)
    models = [path for path in inputs.split(", ") if path.endswith("manifest.json")]
    assert len(models) == found["evaluate"] // 2  # of two families; tests/test_plan.py knows which


LOCAL = "{extra_tasks: [], data: {source: local, settings: {pretrain: text_novels}}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [open", "Config file is not valid JSON or YAML"),
        ("only words", "Config file must be given as JSON or YAML with keys at top level"),
        ("sedes: [1]", "config key (top level): unknown key 'sedes' (did you mean 'seeds'?)"),
        (LOCAL, "config key data_root: missing, but data.source reads 'data'"),
    ],
)
def test_a_wrong_configuration_stops_before_anything_runs(
    checkout: Path, snakemake: Snakemake, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text, encoding="utf-8")
    if text.endswith(("]", "}")):
        path = Path(smoke_with(tmp_path, "wrong", **yaml.safe_load(text)))
    done = snakemake(checkout, "--cores", "1", "--configfile", str(path))
    assert done.returncode != 0 and message in done.stdout
    assert "Traceback" not in done.stdout and len(done.stdout.splitlines()) < 6


TYPED = [
    "seeds=[1,2,3]",
    "training={student: {steps: 3, learning_rate: 1e-3}}",
    "evaluation={limit: {dolly: null}}",
    "deviations=false",
    "teacher_cache=[]",
]


@pytest.mark.case(
    "config",
    "`--config 'training={student: {steps: three}}'`",
    'config key training.student.steps: found "three"; expected integer',
)
def test_values_of_the_command_line_are_typed(
    checkout: Path, snakemake: Snakemake, says: str
) -> None:
    done = snakemake(checkout, "-n", *SMOKE, "--config", *TYPED)
    assert done.returncode == 0, done.stdout
    found = counts(done.stdout)
    assert (found["student"], found["teacher"], found.get("cache")) == (36, 6, None)
    done = snakemake(checkout, "-n", *SMOKE, "--config", "training={student: {steps: three}}")
    assert done.returncode and says in done.stdout and "Traceback" not in done.stdout


@pytest.mark.case(
    "config", "a key twice in a file that Snakemake reads", "key 'seeds' occurs twice"
)
def test_a_key_that_repeats_is_refused(
    checkout: Path, snakemake: Snakemake, tmp_path: Path, says: str
) -> None:
    path = Path(smoke_with(tmp_path, "twice"))
    path.write_text(path.read_text() + "seeds: [2]\n", encoding="utf-8")
    done = snakemake(checkout, "-n", "--configfile", str(path))
    assert done.returncode and f"{path}:" in done.stdout and says in done.stdout


def local(folder: Path, **settings: object) -> dict[str, object]:
    """What a configuration says to read training rows and a text of a folder."""
    row = {"instruction": "Say it.", "input": "", "output": "It."}
    for name in ("rows.jsonl", "dolly.jsonl"):
        write_jsonl(folder / "data" / name, [row | {"instruction": f"Say {name}."}])
    write_jsonl(folder / "data/text.jsonl", [{"text": "A text."}])
    given = {"train": "rows.jsonl", "pretrain": "text.jsonl", "tasks": {"dolly": "dolly.jsonl"}}
    data = {"source": "local", "settings": given | settings}
    return {"data": data, "data_root": str(folder), "tasks": ["dolly"], "extra_tasks": []}


@pytest.mark.case(
    "machine",
    "a data root and a `--directory` with blanks, quotes, $ and braces",
    "the same as any other",
)
def test_results_go_where_directory_says_and_odd_paths_are_paths(
    checkout: Path, snakemake: Snakemake, tmp_path: Path
) -> None:
    folder = tmp_path / 'it\'s "my" $HOME {data} &'
    config = smoke_with(tmp_path, "odd", **local(folder))
    place = tmp_path / "else where's {x} $y"
    place.mkdir()
    given = ("results/odd/data/manifest.json", "--cores", "1", "--configfile", config)
    done = snakemake(checkout, *given, "--directory", str(place))
    assert done.returncode == 0, done.stdout
    assert (place / "results/odd/data/train.jsonl").is_file()
    assert not (checkout / "results/odd").exists()


@pytest.mark.case("machine", "`snakemake -s ../Snakefile` in a subfolder", "the jobs as above it")
def test_it_runs_from_a_subfolder(checkout: Path, snakemake: Snakemake, tmp_path: Path) -> None:
    listed = snakemake(checkout / "workflow", "-n", "-s", "../Snakefile")
    assert listed.returncode == 0, listed.stdout
    assert counts(listed.stdout) == counts(snakemake(checkout, "-n").stdout)
    (tmp_path / "atkd.py").write_text("raise SystemExit('another atkd')")
    given = ("--cores", "1", "-s", str(checkout / "Snakefile"), "results/smoke/data/manifest.json")
    config = ("--configfile", str(checkout / "config/smoke.yaml"))
    done = snakemake(tmp_path, *given, *config)
    assert done.returncode == 0 and (tmp_path / "results/smoke/data/train.jsonl").is_file()


MISSING = [
    pytest.param({"data_root": "/nowhere"}, marks=pytest.mark.case(
        "config", "a data root that is not there",
        "config key data.settings.root: found /nowhere/data; expected a folder")),
    pytest.param({"families": {"opt": {"tokenizer": {"files": "/nowhere"}}}},
        marks=pytest.mark.case("config", "a tokenizer's folder that is not there",
        "config key families.opt.tokenizer.files: found /nowhere; expected a folder")),
    pytest.param({"families": {"opt": {"models": {"1.3b": {"build": None, "folder": "/nowhere"}}}}},
        marks=pytest.mark.case("config", "a model's folder that is not there",
        "config key families.opt.models.1.3b.folder: found /nowhere; expected a folder")),
    pytest.param({"data": {"settings": {"train": "no.jsonl"}}}, marks=pytest.mark.case(
        "data", "a file that is not there",
        "data/no.jsonl not found; expected a file or folder of rows, or one of alpaca_davinci003"
        )),
]  # fmt: skip


@pytest.mark.parametrize("changes", MISSING)
def test_what_is_not_there_is_named_before_other_jobs(
    checkout: Path, snakemake: Snakemake, tmp_path: Path, changes: dict, says: str
) -> None:
    config = smoke_with(tmp_path, "missing", **local(tmp_path))
    more = tmp_path / "more.yaml"
    if "tokenizer" in changes.get("families", {}).get("opt", {}):
        changes["families"]["opt"]["tokenizer"]["train"] = None
    more.write_text(yaml.safe_dump(changes), encoding="utf-8")
    done = snakemake(checkout, "--cores", "1", "--configfile", config, str(more))
    assert done.returncode and says in done.stdout and "Traceback" not in done.stdout
    assert not (checkout / "results/missing/data/manifest.json").exists()


def test_an_endpoint_adds_one_judge_job_and_changes_no_other(
    checkout: Path, snakemake: Snakemake, tmp_path: Path
) -> None:
    evaluation = smoke()["evaluation"]
    judge = {"endpoint": "http://localhost:9/v1", "model": "some-judge", "max_calls": 7}
    listed = {}
    for name, extra in (("without", {}), ("with", {"judge": judge})):
        path = smoke_with(tmp_path, "judged", evaluation=evaluation | extra)
        done = snakemake(checkout, "-n", "-p", "--configfile", path)
        assert done.returncode == 0, done.stdout
        listed[name] = done.stdout
    more = {"judge": 1, "total": counts(listed["without"])["total"] + 1}
    assert counts(listed["with"]) == counts(listed["without"]) | more
    shared = "python -m atkd judge --config results/judged/config.json --run"
    assert f"{shared} all " in listed["with"] and f"{shared} all " not in listed["without"]
    assert "results/judged/judge/documents.csv.gz" in listed["with"]
    assert "results/judged/judge/" not in listed["without"]
    assert all("localhost" not in text for text in listed.values())
    assert all("tables/rouge_l_opt.csv" in text for text in listed.values())  # beside any judge
    rated = re.findall(rf"{shared} ((?:opt|llama)/\S+)", listed["without"])
    assert len(rated) == counts(listed["with"])["evaluate"]


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({"endpoint": "http://me:sk-1@h/v1", "model": "m"}, "evaluation.judge.endpoint: expected"),
        ({"endpoint": "http://h/v1"}, "evaluation.judge: 'model' is a required property"),
        ({"endpoint": "http://h/v1", "model": "m", "prompt": "no.txt"}, "no.txt cannot be read"),
    ],
)
def test_a_wrong_judge_stops_before_anything_runs(
    checkout: Path, snakemake: Snakemake, tmp_path: Path, judge: dict, message: str
) -> None:
    evaluation = smoke()["evaluation"]
    path = smoke_with(tmp_path, "judged", evaluation=evaluation | {"judge": judge})
    done = snakemake(checkout, "-n", "--configfile", path)
    assert done.returncode != 0 and message in done.stdout
    assert "Traceback" not in done.stdout and "sk-1" not in done.stdout


def test_a_bad_line_of_data_is_named_on_the_terminal(
    checkout: Path, snakemake: Snakemake, tmp_path: Path
) -> None:
    row = {"instruction": "Say it.", "input": "", "output": "It."}
    path = tmp_path / "data/alpaca_gpt4_subset/train.jsonl"
    write_jsonl(path, [row, row])
    path.write_text(path.read_text() + '{"instruction": "cut', encoding="utf-8")
    config = smoke_with(tmp_path, "badline", **local(tmp_path, train="alpaca_gpt4_subset"))
    done = snakemake(checkout, "--cores", "1", "--configfile", config)
    errors = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and len(errors) == 1
    assert f"{path}:3: not valid JSON" in errors[0]
    assert "Traceback" not in done.stdout and not (checkout / "results/badline/models").exists()


def test_a_second_run_is_refused_while_listings_are_not(
    checkout: Path, snakemake: Snakemake
) -> None:
    with folder_lock(checkout / "results/smoke"):
        listed = snakemake(checkout, "-n", *SMOKE)
        summary = snakemake(checkout, "--summary", *SMOKE)
        refused = snakemake(checkout, "--cores", "1", *SMOKE)
    assert listed.returncode == 0 == summary.returncode
    holder = f"results/smoke is in use by process {os.getpid()} on {os.uname().nodename}"
    assert refused.returncode != 0 and f"{holder}; wait for it or stop it" in refused.stdout
    assert not (checkout / "results/smoke/data").exists()


def test_the_workflow_passes_its_lint(checkout: Path, snakemake: Snakemake) -> None:
    done = snakemake(checkout, "--lint", *SMOKE)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "tool",
    ["snakefmt --check Snakefile workflow", "ruff check .", "ruff format --check ."],
)
def test_formatters_and_linters_are_clean(tool: str) -> None:
    name, *arguments = tool.split()
    binary = Path(sys.executable).parent / name
    done = subprocess.run(
        [str(binary), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ready_jobs_are_looked_at_when_one_ends_and_not_every_second(
    checkout: Path, snakemake: Snakemake
) -> None:
    targets = [f"results/smoke/tokenizers/{name}/tokenizer.json" for name in ("opt", "llama")]
    line = [*targets, "--cores", "1", "--verbose", "--configfile", "config/smoke.yaml"]
    done = snakemake(checkout, *line, "--forceall")
    assert done.returncode == 0, done.stdout[-3000:]
    looks = done.stdout.count("Resources before job selection")
    assert 3 <= looks <= 4, looks  # data, one tokenizer, the other


STUB = """#!/bin/sh
echo "$@" >> {record}
exit 1
"""


def stub_cluster(folder: Path, record: Path) -> None:
    """SLURM's commands: sbatch notes what it is given and refuses, the others say nothing."""
    folder.mkdir()
    for name in ("sbatch", "sacct", "squeue", "sinfo", "scontrol", "sacctmgr", "scancel", "sshare"):
        path = folder / name
        path.write_text(STUB.format(record=record) if name == "sbatch" else "#!/bin/sh\n")
        path.chmod(0o755)


def fake_preparation(results: Path, families: tuple[str, ...]) -> None:
    """Empty files in place of data, tokenizers and prompts, so that bases come next."""
    tasks = (*TASKS, "unseen")
    names = ["data/train.jsonl", "data/pretrain.jsonl", "data/manifest.json"]
    names += [f"data/tasks/{task}.jsonl" for task in tasks]
    names += [f"tokenizers/{family}/tokenizer.json" for family in families]
    for family in families:
        names += [
            f"prompts/{family}/{name}" for name in ("summary.json", *map("{}.jsonl".format, tasks))
        ]
    for name in [*names, "check.json"]:
        path = results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_cluster_is_asked_for_what_the_configuration_says(tmp_path: Path) -> None:
    root, record = copy_of_checkout(tmp_path / "checkout"), tmp_path / "submitted"
    stub_cluster(tmp_path / "bin", record)
    compute = {"device": "auto", "gpus": 2, "threads": 4, "memory_mb": 9000, "minutes": 90}
    config = smoke_with(tmp_path, "cluster", compute=compute)
    fake_preparation(root / "results/cluster", ("opt", "llama"))
    own = ["base:slurm_partition=gpu", "base:slurm_account=me"]
    arguments = ["--workflow-profile", "profiles/slurm", "--configfile", config, "--retries", "0"]
    arguments += ["--slurm-init-seconds-before-status-checks", "1", "--set-resources", *own]
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        command(*arguments),
        cwd=root,
        env=quiet_environment() | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    lines = record.read_text().splitlines()
    assert len(lines) == 4
    for line in lines:
        asked, wrapped = line.split("--wrap=")
        for wanted in ("-p gpu", "-A me", "-t 90", "--mem 9000", "--cpus-per-task=4", "--gpus=2"):
            assert f" {wanted} " in asked + " "
        # Hooks take the lock of the results folder, which the submitting process holds.
        assert "--no-hooks" in wrapped and "--allowed-rules base" in wrapped

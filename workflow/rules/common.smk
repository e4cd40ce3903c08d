import json
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir)))
# Jobs run in the environment that runs Snakemake, activated or not.
os.environ |= {"PATH": os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])}

from atkd import config as grid
from atkd.evaluation import scores as scoring
from atkd.judge.judge import settings_of as judge_settings_of
from atkd.methods import (
    METHODS,
    SWITCHES,
    deviations,
    overrides,
    resolve,
    row_of,
    switches_of,
    trained_as,
)
from atkd.runtime import fork_server
from atkd.runtime.files import InputError, folder_lock

try:
    config = grid.checked(config, METHODS)
    DATA_ROOT = grid.data_root(config)
    RELEASED = list(SWITCHES) if config["protocol"] == "released" else config["released"]
    for name in config["methods"]:
        resolve(name, "opt", {})
    # Taken out, so that no model is evaluated again because the judge changed.
    JUDGE = config["evaluation"].pop("judge", None)
    JUDGE = JUDGE and judge_settings_of(JUDGE)
except InputError as error:
    raise WorkflowError(str(error))

FAMILIES = list(dict.fromkeys(pair["family"] for pair in config["pairs"]))
TASKS = [*config["tasks"], *config["extra_tasks"]]
OPEN_TASKS = [task for task in TASKS if task not in scoring.UNDERSTANDING]
WORLD = config["data"]["source"] == "world"
STUDENTS = list(dict.fromkeys((pair["family"], pair["student"]) for pair in config["pairs"]))
COMPUTE = config["compute"]
VARIANTS = {f: deviations(config, f) if config["deviations"] else [] for f in FAMILIES}
METHOD_NAMES = {*config["methods"], *sum(VARIANTS.values(), [])}
RUNS = grid.runs(config, {name: row_of(name).needs_teacher for name in METHOD_NAMES}, VARIANTS)


def hold_results():
    """Takes this run's results folder until the process ends; says who holds it otherwise.

    Called when jobs are about to start: listings, reports and the Snakemake processes that jobs of
    a cluster run need no lock. Children do not inherit it, so that a dead run holds nothing.
    """
    folder = Path("results") / config["name"]
    lock = folder_lock(folder, wait=False)
    try:
        lock.__enter__()
    except InputError as error:
        raise WorkflowError(str(error))
    workflow.globals["results_lock"] = lock


def keep_warm():
    """Starts the process that becomes each CPU job of a local run, imports done (atkd/runtime/fork_server.py)."""
    if COMPUTE["device"] == "cpu" and workflow.local_exec:
        workflow.globals["warm_process"] = fork_server.start()


def code(*modules):
    """The package files whose edits must rerun a rule."""
    return [str(path) for path in sorted(Path("atkd").rglob("*.py")) if path.stem in modules]


def needs(wildcards, alone=False):
    """Compute settings of a job, by the models it loads; `alone`: the student, or else the teacher."""
    names = [wildcards.get(role) for role in ("size", "student", "teacher")]
    sizes = [name for name in names if name not in (None, "-")]
    alone = alone or ("method" in wildcards.keys() and not live_teacher(wildcards))
    return grid.needs(config, wildcards.family, sizes[:1] if alone else sizes)


def need(key, alone=False):
    """What a job asks of `key`."""
    return lambda wildcards: needs(wildcards, alone)[key]


def growing(key, alone=False):
    """A resource that doubles, triples, ... with every attempt at a job."""
    return lambda wildcards, attempt: needs(wildcards, alone)[key] * attempt


def launcher(wildcards):
    """What starts a training: one process, or one per GPU."""
    gpus = needs(wildcards)["gpus"]
    if gpus <= 1:
        return "python -m"
    return f"python -m torch.distributed.run --standalone --nproc-per-node={gpus} -m --"


def folder_of(name, levels=1):
    """The folder of a rule's input `name` (the first of several), or one further up."""

    def folder(wildcards, input):
        files = input[name] if isinstance(input[name], str) else input[name][0]
        return Path(files).parents[levels - 1]

    return folder


def as_json(value):
    return json.dumps(value, sort_keys=True)


def rooted(settings, key):
    """The settings with the path under `key` resolved under the data root."""
    return settings | {key: str(Path(DATA_ROOT, settings[key]))} if key in settings else settings


def data_settings(wildcards):
    settings = dict(config["data"]["settings"])
    if config["data"]["source"] == "local":
        settings = rooted({"root": "data"} | settings, "root")
    return as_json(settings)


def tokenizer_settings(wildcards):
    source = config["families"][wildcards.family]["tokenizer"]
    return as_json(rooted(dict(source), "files"))


def prompt_settings(wildcards, released=False):
    template = "released" if released or "test_template" in RELEASED else "stated"
    return as_json({"tasks": TASKS, "template": template} | config["evaluation"])


def released_prompt_settings(wildcards):
    return prompt_settings(wildcards, released=True)


def evaluation_settings(wildcards):
    compute = {"device": COMPUTE["device"]}
    return as_json({"tasks": TASKS} | config["evaluation"] | compute)


def judge_settings(wildcards):
    return as_json(JUDGE)


def record_of_run(wildcards):
    """What run.json says of the run that made the scores."""
    return as_json(
        {
            "config": config["name"],
            "source": config["data"]["source"],
            "seeds": config["seeds"],
            "tasks": config["tasks"],
            "extra_tasks": config["extra_tasks"],
            "families": FAMILIES,
            "pairs": config["pairs"],
            "methods": list(dict.fromkeys(run.method for run in RUNS)),
            "judge": bool(JUDGE),
            "runs": [run.key for run in RUNS],
        }
    )


def check_settings(wildcards):
    """What the check looks at: where each model's own tokenizer would come from."""
    sources = {f: config["families"][f]["models"] for f in FAMILIES}
    return as_json({"pairs": config["pairs"], "models": sources})


def train_settings(role):
    """The settings fragment that training one model depends on, as an input function."""

    def fragment(wildcards):
        family, size = wildcards.family, wildcards.get("student") or wildcards.size
        parts = {
            "family": family,
            "training": grid.training(config, family, size, role),
            "compute": {k: COMPUTE[k] for k in ("device", "precision", "teacher_dtype")},
        }
        if role == "base":
            source = config["families"][family]["models"][size]
            parts["source"] = {k: v for k, v in source.items() if k != "training"}
        if role == "student":
            parts["method"] = overrides(config, wildcards.method)
            parts["released"] = RELEASED
        return as_json(parts)

    return fragment


def base_of(wildcards):
    """The pretrained model a student starts from."""
    seed = grid.model_seed(config, int(wildcards.seed))
    return f"<results>/models/{wildcards.family}/{wildcards.student}/seed{seed}/base/manifest.json"


def recipe_of(wildcards):
    """The method of a student as this configuration runs it."""
    name = wildcards.method
    return resolve(name, wildcards.family, overrides(config, name), RELEASED)


def caches(wildcards):
    """Whether a student reads its teacher's cache."""
    found = recipe_of(wildcards)
    return found.cacheable and found.sequences in config["teacher_cache"]


def live_teacher(wildcards):
    """Whether a student's job runs its teacher."""
    found = recipe_of(wildcards)
    return found.distils and (found.student_fraction > 0 or not caches(wildcards))


def of_teacher(wildcards, kind, name):
    """A file made from a pair's teacher, of the seed that the student's seed uses."""
    seed = grid.model_seed(config, int(wildcards.seed))
    return f"<results>/{kind}/{wildcards.family}/{wildcards.teacher}/seed{seed}/{name}"


def teacher_of(wildcards):
    """The teacher whose distribution a student learns, or nothing."""
    wanted = recipe_of(wildcards).distils
    return of_teacher(wildcards, "models", "teacher/manifest.json") if wanted else []


def cache_of(wildcards):
    """The cache of the teacher on the student's fixed sequences, or nothing."""
    name = f"{recipe_of(wildcards).sequences}/manifest.json"
    return of_teacher(wildcards, "cache", name) if caches(wildcards) else []


def text_of(wildcards):
    """The teacher's answers, or nothing for a method that learns from the data's."""
    wanted = recipe_of(wildcards).sequences == "teacher"
    return of_teacher(wildcards, "text", "teacher.jsonl") if wanted else []


def teacher_flags(wildcards, input):
    """What tells a student's job of its teacher, the teacher's cache and its answers."""
    flags = [f"--teacher {Path(input.teacher).parent}"] if input.teacher else []
    flags += [f"--cache {Path(input.cache).parent}"] if input.cache else []
    return " ".join(flags + ([f"--text {input.text}"] if input.text else []))


def text_settings(wildcards):
    """How a teacher answers; its answers fit the longest sample of any of its students."""
    lengths = [
        grid.training(config, pair["family"], pair["student"], "student")["max_length"]
        for pair in config["pairs"]
        if (pair["family"], pair["teacher"]) == (wildcards.family, wildcards.size)
    ]
    parts = {"family": wildcards.family, "max_length": max(lengths), "device": COMPUTE["device"]}
    return parts | {"dtype": COMPUTE["teacher_dtype"]}


def answer_settings(wildcards):
    parts = text_settings(wildcards) | config["teacher_text"]
    return as_json(parts | {"seed": int(wildcards.seed)})


def cache_settings(wildcards):
    parts = text_settings(wildcards)
    return as_json(parts | {"teacher_dtype": parts.pop("dtype")})


def model_of(wildcards):
    """The model that a run evaluates: a teacher, an untrained base (`none`) or a student."""
    w = wildcards
    if w.method == "teacher":
        return f"<results>/models/{w.family}/{w.teacher}/seed{w.seed}/teacher/manifest.json"
    if w.method == "none":
        return f"<results>/models/{w.family}/{w.student}/seed{w.seed}/base/manifest.json"
    method = trained_as(w.method)
    return (
        f"<results>/students/{w.family}/{w.student}/{w.teacher}/{method}/seed{w.seed}/manifest.json"
    )


def prompts_of(wildcards):
    """The prompt files of a family; those of the released code's template for such a variant."""
    other = "test_template" in switches_of(wildcards.method)
    kind = "released_prompts" if other else "prompts"
    return [f"<results>/{kind}/{wildcards.family}/{task}.jsonl" for task in TASKS]


def teachers_of(wildcards):
    """Whose uncertainty splits a run's tokens: its teacher's, or those of all its student's pairs."""
    if wildcards.get("teacher", "-") != "-":
        return [wildcards.teacher]
    cell = (wildcards.family, wildcards.student)
    names = [p["teacher"] for p in config["pairs"] if (p["family"], p["student"]) == cell]
    return list(dict.fromkeys(names))


def teachers_samples(wildcards):
    """lm_eval.json beside the samples of each of a run's teachers."""
    seed = grid.model_seed(config, int(wildcards.seed))
    folder = f"<results>/runs/{wildcards.family}/-"
    return [f"{folder}/{t}/teacher/{seed}/samples/lm_eval.json" for t in teachers_of(wildcards)]


def teachers_flag(wildcards, input):
    names = ["own"] if wildcards.teacher != "-" else teachers_of(wildcards)
    folders = [Path(path).parent for path in input.teachers]
    return "--teachers " + " ".join(f"{n}={f}" for n, f in zip(names, folders, strict=True))


def kin_of(wildcards):
    """Every run of a student and seed, those of its teachers included."""
    seed, teachers = int(wildcards.seed), teachers_of(wildcards)
    shared = grid.model_seed(config, seed)
    return [
        run
        for run in RUNS
        if run.family == wildcards.family
        and run.seed == (shared if run.method in ("none", "teacher") else seed)
        and (
            run.student == wildcards.student or run.method == "teacher" and run.teacher in teachers
        )
    ]


def kin_models(wildcards):
    return [model_of(run) for run in kin_of(wildcards)]


def kin_flag(wildcards, input):
    pairs = zip(kin_of(wildcards), input.models, strict=True)
    return " ".join(f"{run.key}={Path(model).parent}" for run, model in pairs)


def kin_needs(key):
    """What a job that loads all models of a student, one after the other, asks of `key`."""

    def most(wildcards, attempt=1):
        sizes = [wildcards.student, *teachers_of(wildcards)]
        return grid.needs(config, wildcards.family, sizes)[key] * attempt

    return most


def fidelity_settings(wildcards):
    shared = {
        key: config["evaluation"][key]
        for key in ("batch_size", "dtype")
        if key in config["evaluation"]
    }
    tasks = [task for task in config["tasks"] if task in OPEN_TASKS]
    return as_json({"tasks": tasks, "device": COMPUTE["device"]} | shared)


def run_files(name):
    """One file of every run's folder."""
    return [f"<results>/runs/{run.key}/{name}" for run in RUNS]

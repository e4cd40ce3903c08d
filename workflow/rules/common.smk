import json
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir)))
# Jobs run in the environment that runs Snakemake, activated or not.
os.environ |= {"PATH": os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])}

from atkd import config as grid
from atkd.files import InputError, folder_lock
from atkd.objectives import METHODS

try:
    config = grid.checked(config, METHODS)
    DATA_ROOT = grid.data_root(config)
except InputError as error:
    raise WorkflowError(str(error))

FAMILIES = list(dict.fromkeys(pair["family"] for pair in config["pairs"]))
TASKS = [*config["tasks"], *config["extra_tasks"]]
COMPUTE = config["compute"]
RUNS = grid.runs(config, {name: row.needs_teacher for name, row in METHODS.items()})


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


def code(*modules):
    """The package files whose edits must rerun a rule."""
    return [f"atkd/{name}.py" for name in modules]


def needs(wildcards, alone=False):
    """Compute settings of a job, by the models it loads; `alone`: the student, or else the teacher."""
    names = [wildcards.get(role) for role in ("size", "student", "teacher")]
    sizes = [name for name in names if name not in (None, "-")]
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


def prompt_settings(wildcards):
    return as_json({"tasks": TASKS} | config["evaluation"])


def evaluation_settings(wildcards):
    compute = {"device": COMPUTE["device"]}
    return as_json({"tasks": TASKS} | config["evaluation"] | compute)


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
            parts["method"] = config["method_settings"].get(wildcards.method, {})
        return as_json(parts)

    return fragment


def base_of(wildcards):
    """The pretrained model a student starts from."""
    seed = grid.model_seed(config, int(wildcards.seed))
    return f"<results>/models/{wildcards.family}/{wildcards.student}/seed{seed}/base/manifest.json"


def teacher_of(wildcards):
    """The teacher of a pair, or nothing for a method without one."""
    if wildcards.teacher == "-":
        return []
    seed = grid.model_seed(config, int(wildcards.seed))
    return (
        f"<results>/models/{wildcards.family}/{wildcards.teacher}/seed{seed}/teacher/manifest.json"
    )


def teacher_flag(wildcards, input):
    return f"--teacher {Path(input.teacher).parent}" if input.teacher else ""


def model_of(wildcards):
    """The model that a run evaluates: a teacher, an untrained base (`none`) or a student."""
    w = wildcards
    if w.method == "teacher":
        return f"<results>/models/{w.family}/{w.teacher}/seed{w.seed}/teacher/manifest.json"
    if w.method == "none":
        return f"<results>/models/{w.family}/{w.student}/seed{w.seed}/base/manifest.json"
    return f"<results>/students/{w.family}/{w.student}/{w.teacher}/{w.method}/seed{w.seed}/manifest.json"


def run_files(name):
    """One file of every run's folder."""
    return [f"<results>/runs/{run.key}/{name}" for run in RUNS]

import sys
from pathlib import Path

# What belongs to the project lies beside the Snakefile, wherever results go (--directory).
HOME = Path(os.path.relpath(workflow.basedir))
sys.path.insert(0, workflow.basedir)
# Jobs run in the environment that runs Snakemake, activated or not, and run this package.
paths = [workflow.basedir, *filter(None, [os.environ.get("PYTHONPATH")])]
os.environ |= {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
    "PYTHONPATH": os.pathsep.join(paths),
    "PYTHONSAFEPATH": "1",  # and not one in the working directory
}

from snakemake.exceptions import WorkflowError

from atkd import code
from atkd import config as configuration
from atkd.judge import judge
from atkd.models.families import FAMILIES as KNOWN_FAMILIES
from atkd.plan import Plan
from atkd.runtime import fork_server
from atkd.runtime.files import InputError, folder_lock, write_json
from atkd.tasks import TASKS as KNOWN_TASKS

try:
    for path in workflow.configfiles:  # Snakemake reads them too, but passes over repeated keys
        configuration.read(path)
    config = configuration.checked(config)
    PLAN = Plan(config)
    if PLAN.judge_settings:
        judge.settings_of(PLAN.judge_settings)
except InputError as error:
    raise WorkflowError(str(error))

FAMILIES, TASKS, OPEN_TASKS = PLAN.families, PLAN.tasks, PLAN.open_tasks
RUN = "<results>/runs/{family}/{student}/{teacher}/{method}/{seed}"


def prepare_results():
    """Takes this run's results folder until the process ends, and writes its configuration there.

    Says who holds it otherwise. Called when jobs are about to start: listings, reports and the
    Snakemake processes that jobs of a cluster run need no lock. Children do not inherit it, so that
    a dead run holds nothing.
    """
    lock = folder_lock(PLAN.results, wait=False)
    try:
        configuration.check_folders(config, PLAN.results)
        lock.__enter__()
    except InputError as error:
        raise WorkflowError(str(error))
    workflow.globals["results_lock"] = lock
    write_json(f"{PLAN.results}/config.json", dict(config) | {"data_root": PLAN.data_root})


def look_at_jobs_when_one_ends():
    """Takes away Snakemake's limit of 100 jobs a second.

    To keep to it Snakemake looks at every ready job again a second after each look, so that it soon
    looks as often a second as jobs have finished: 40 % of a core after 170 of them.
    """
    workflow.scheduler.job_rate_limiter = None


def start_fork_server():
    """Starts the process that becomes each CPU job of a local run, its imports done."""
    if config["compute"]["device"] == "cpu" and workflow.local_exec:
        workflow.globals["fork_server"] = fork_server.start(
            [KNOWN_FAMILIES[name].modeling for name in FAMILIES if name in KNOWN_FAMILIES]
        )


def of(kind, what):
    """An input function: what the plan says of a job of this kind."""
    return lambda wildcards: what(PLAN.job(kind, dict(wildcards.items())))


def reads(kind):
    """The files that a job reads, by name."""
    return of(kind, lambda job: job.reads)


def settings(kind):
    """The fragment of the configuration that decides a job's result: another one reruns it."""
    return of(kind, lambda job: repr(job.settings))


def command(kind):
    """A job's command line, which a person can run by hand."""
    return lambda wildcards: PLAN.command(kind, dict(wildcards.items()))


def asks(kind, what):
    """What a job asks of the machine."""
    return of(kind, lambda job: getattr(job.needs, what))


def growing(kind, what):
    """A resource that doubles, triples, ... with every attempt at a job."""
    return lambda wildcards, attempt: attempt * asks(kind, what)(wildcards)


def every_base(wildcards):
    """The last files of the bases of all pairs and seeds."""
    sizes = {
        (pair["family"], pair[role]) for pair in config["pairs"] for role in ("student", "teacher")
    }
    seeds = sorted({PLAN.seed_of_models(seed) for seed in config["seeds"]})
    return [PLAN.model(*size, seed, "base") for size in sorted(sizes) for seed in seeds]

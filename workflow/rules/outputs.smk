from atkd.reporting import registry
from atkd.statistics.estimates import RunRecord

RECORD = RunRecord(**PLAN.record())
UNASKED = [name for name in registry.analyses() if name not in config["analyses"]]
PROBED = [
    f"<results>/analyses/{name}.csv" for name in registry.analyses() if name in config["analyses"]
]
FROZEN = HOME / "results/reference" / config["name"]
REFERENCE = f"--reference {FROZEN}" if (FROZEN / "scores.csv").is_file() else ""


def reported(found):
    """An output of the registry; one with a category is shown in Snakemake's report."""
    path = f"<results>/{found.path}"
    if not found.category:
        return path
    shown = {"category": found.category, "labels": {"shows": found.shows}}
    return report(path, caption="../report/shown.rst", **shown)


def presented(*kinds):
    """The run's tables and figures of these kinds of file."""
    return [f"<results>/{path}" for path in registry.outputs(RECORD) if path.endswith(kinds)]


def deviations_table(wildcards):
    """The table of deviations, of a run that has them."""
    found = presented("deviations.md", "deviations.tex", "deviations.csv", "deviations.json")
    if not found:
        raise WorkflowError("no variant is run: set the config key deviations to true")
    return found

import os
import re

from snakemake.utils import min_version

min_version("9.25")


# A configuration stands alone: the default is read only when no other is given.
if not workflow.configfiles:

    configfile: f"{workflow.basedir}/config/world.yaml"


include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


pathvars:
    results=f"results/{config['name']}",
    logs=f"results/{config['name']}/logs",


wildcard_constraints:
    family="|".join(map(re.escape, config["families"])),
    size="[^/]+",
    student="[^/]+",
    teacher="[^/]+",
    method="[^/]+",
    sequences="ground_truth|teacher",
    seed="[0-9]+",
    task="|".join(KNOWN_TASKS),


include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/present.smk"
include: "workflow/rules/deviations.smk"


rule all:
    default_target: True
    input:
        rules.scores.output,
        rules.tables.output,
        rules.figures.output,
        rules.page.output,


onstart:
    prepare_results()
    look_at_jobs_when_one_ends()
    start_fork_server()


onsuccess:
    shell(
        "! [ -f {PLAN.results:q}/index.html ] || "
        "python -m atkd report summary --run {PLAN.results:q} {REFERENCE}"
    )

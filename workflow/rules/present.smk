include: "outputs.smk"


rule tables:
    input:
        record=rules.scores.output.record,
        scores=rules.scores.output.scores,
        documents=rules.scores.output.documents,
        costs=rules.scores.output.costs,
        published=str(HOME / "results/published.csv"),
        analyses=PROBED,
    output:
        [reported(found) for found in registry.table_outputs(RECORD)],
    log:
        "<logs>/tables.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("tables"),
        folder=subpath(output[0], parent=True),
        analyses=f"--analyses {PLAN.results}/analyses" if PROBED else "",
    shell:
        "python -m atkd tables --record {input.record:q} --scores {input.scores:q} "
        "--documents {input.documents:q} --costs {input.costs:q} --published {input.published:q} "
        "{params.analyses} --output {params.folder:q} > {log:q} 2>&1"


# Tables of probes that the configuration does not name, which can be asked for by name.
rule analysis_table:
    input:
        record=rules.scores.output.record,
        scores=rules.scores.output.scores,
        documents=rules.scores.output.documents,
        analysis="<results>/analyses/{analysis}.csv",
    output:
        collect("<results>/tables/{{analysis}}.{kind}", kind=registry.TABLE_KINDS),
    log:
        "<logs>/analyses/{analysis}_table.log",
    wildcard_constraints:
        analysis="|".join(UNASKED) or "(?!)",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("analysis_table"),
        analyses=subpath(input.analysis, parent=True),
        folder=subpath(output[0], parent=True),
    shell:
        "python -m atkd tables --record {input.record:q} --scores {input.scores:q} "
        "--documents {input.documents:q} --analyses {params.analyses:q} --only {wildcards.analysis} "
        "--output {params.folder:q} > {log:q} 2>&1"


# The analyses that the configuration names, or every probe where it names none.
rule analyses:
    input:
        collect(
            "<results>/tables/{analysis}.md",
            analysis=[name for name in config["analyses"] if name != "explorer"]
            or registry.analyses(),
        ),


rule figures:
    input:
        record=rules.scores.output.record,
        estimates="<results>/tables/estimates.csv",
        differences="<results>/tables/differences.csv",
    output:
        [reported(found) for found in registry.figure_outputs(RECORD)],
    log:
        "<logs>/figures.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("figures"),
        tables=subpath(input.estimates, parent=True),
        folder=subpath(output[0], parent=True),
    shell:
        "python -m atkd figures --record {input.record:q} --tables {params.tables:q} "
        "--output {params.folder:q} > {log:q} 2>&1"


rule page:
    input:
        record=rules.scores.output.record,
        tables=presented(".json"),
        figures=presented(".svg", ".txt"),
        explored="<results>/analyses/explorer.json" if "explorer" in config["analyses"] else [],
        templates=[str(path) for path in sorted((HOME / "atkd/reporting/templates").iterdir())],
    output:
        index=report("<results>/index.html", caption="../report/index.rst", category="Run"),
        samples=report("<results>/samples.html", caption="../report/samples.rst", category="Run"),
    log:
        "<logs>/page.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("page"),
        folder=subpath(output.index, parent=True),
    shell:
        "python -m atkd report html --run {params.folder:q} > {log:q} 2>&1"

rule tables:
    input:
        scores=rules.scores.output.scores,
        documents=rules.scores.output.documents,
        costs=rules.scores.output.costs,
        published="results/published.csv",
        code=code("statistics", "reporting"),
    output:
        main=report(
            collect("<results>/tables/main_{family}.csv", family=FAMILIES),
            caption="../report/main.rst",
            category="Scores",
        ),
        rouge=report(
            collect(
                "<results>/tables/rouge_l_{family}.csv",
                family=(FAMILIES if (PLAN.judge_settings or PLAN.exact) and OPEN_TASKS else []),
            ),
            caption="../report/rouge_l.rst",
            category="ROUGE-L",
        ),
        bits=report(
            collect("<results>/tables/bits_per_byte_{family}.csv", family=FAMILIES),
            caption="../report/bits_per_byte.rst",
            category="Bits per byte",
        ),
        extra=report(
            collect(
                "<results>/tables/extra_{family}.csv",
                family=FAMILIES if config["extra_tasks"] else [],
            ),
            caption="../report/extra.rst",
            category="Generalisation",
        ),
        gains=report("<results>/tables/gains.csv", caption="../report/gains.rst", category="Gains"),
        judge=report(
            collect(
                "<results>/tables/judge_{part}.csv",
                part=(["agreement"] if PLAN.judge_settings or PLAN.exact else [])
                + (["ratings"] if PLAN.judge_settings else []),
            ),
            caption="../report/judge.rst",
            category="Judge",
        ),
        controls=report(
            "<results>/tables/controls.csv",
            caption="../report/controls.rst",
            category="Controls",
        ),
        costs=report("<results>/tables/costs.csv", caption="../report/costs.rst", category="Costs"),
        published=report(
            "<results>/tables/published.csv",
            caption="../report/published.rst",
            category="Paper",
        ),
    log:
        "<logs>/tables.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        folder=subpath(output.costs, parent=True),
    shell:
        "python -m atkd tables --scores {input.scores} --documents {input.documents} "
        "--costs {input.costs} --published {input.published} --output {params.folder} > {log} 2>&1"


rule secondary:
    input:
        scores=rules.scores.output.scores,
        code=code("statistics", "reporting"),
    output:
        report(
            "<results>/tables/secondary.csv",
            caption="../report/secondary.rst",
            category="Secondary metrics",
        ),
    log:
        "<logs>/secondary.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        folder=subpath(output[0], parent=True),
    shell:
        "python -m atkd secondary --scores {input.scores} --output {params.folder} > {log} 2>&1"


rule figures:
    input:
        tables=rules.tables.output.costs,
        code=code("statistics", "reporting"),
    output:
        report(
            collect(
                "<results>/figures/scaling{family}.svg", family=["", *(f"_{f}" for f in FAMILIES)]
            ),
            caption="../report/scaling.rst",
            category="Figures",
        ),
    log:
        "<logs>/figures.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        tables=subpath(input.tables, parent=True),
        folder=subpath(output[0], parent=True),
    shell:
        "python -m atkd figures --tables {params.tables} --output {params.folder} > {log} 2>&1"


rule page:
    input:
        tables=rules.tables.output.costs,
        figures=rules.figures.output,
        secondary=rules.secondary.output,
        published="results/published.csv",
        code=code("statistics", "reporting"),
    output:
        index=report("<results>/index.html", caption="../report/index.rst", category="Run"),
        samples=report("<results>/samples.html", caption="../report/samples.rst", category="Run"),
    log:
        "<logs>/page.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        folder=subpath(output.index, parent=True),
    shell:
        "python -m atkd report html --run {params.folder} --published {input.published} > {log} 2>&1"

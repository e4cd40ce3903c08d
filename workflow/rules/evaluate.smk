rule evaluate:
    input:
        unpack(reads("evaluate")),
    output:
        samples=collect(
            "<results>/runs/{{family}}/{{student}}/{{teacher}}/{{method}}/{{seed}}/samples/{task}.jsonl",
            task=TASKS,
        ),
        summary=f"{RUN}/samples/lm_eval.json",
    log:
        "<logs>/runs/{family}/{student}/{teacher}/{method}/{seed}/evaluate.log",
    conda:
        "../../environment.yml"
    threads: asks("evaluate", "threads")
    resources:
        gpu=asks("evaluate", "gpus"),
        mem_mb=growing("evaluate", "memory_mb"),
        runtime=growing("evaluate", "minutes"),
    params:
        code=code.digest("evaluate"),
        settings=settings("evaluate"),
        command=command("evaluate"),
    shell:
        "{params.command} > {log:q} 2>&1"


rule score:
    input:
        unpack(reads("score")),
    output:
        f"{RUN}/documents.csv.gz",
    log:
        "<logs>/runs/{family}/{student}/{teacher}/{method}/{seed}/score.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("score"),
        command=command("score"),
    shell:
        "{params.command} > {log:q} 2>&1"


# The world's items say what is right.
rule exact_judge:
    input:
        unpack(reads("exact_judge")),
    output:
        documents=f"{RUN}/judge_documents.csv.gz",
        verdicts=f"{RUN}/judge.jsonl",
    log:
        "<logs>/runs/{family}/{student}/{teacher}/{method}/{seed}/exact_judge.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("exact_judge"),
        command=command("exact_judge"),
    shell:
        "{params.command} > {log:q} 2>&1"


if PLAN.judge_settings:

    # One job for all runs: one limit on calls at a time, one budget, one file of paid replies.
    rule judge:
        input:
            unpack(reads("judge")),
        output:
            documents="<results>/judge/documents.csv.gz",
            verdicts="<results>/judge/judge.jsonl",
            summary="<results>/judge/summary.json",
        log:
            "<logs>/judge.log",
        retries: 0
        localrule: True
        conda:
            "../../environment.yml"
        params:
            code=code.digest("judge"),
            settings=settings("judge"),
            command=command("judge"),
        shell:
            "{params.command} > {log:q} 2>&1"


rule scores:
    input:
        unpack(reads("scores")),
    output:
        scores="<results>/scores.csv",
        documents="<results>/documents.csv.gz",
        costs="<results>/costs.csv",
        record="<results>/run.json",
    log:
        "<logs>/scores.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("scores"),
        record=repr(PLAN.record()),
        command=command("scores"),
    shell:
        "{params.command} > {log:q} 2>&1"

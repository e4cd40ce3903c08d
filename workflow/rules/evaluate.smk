JUDGE_PARTS = ("judge", "verdicts", "grading", "grammar", "universe")
EXACT_JUDGE = (
    " && python -m atkd judge exact --run {params.run} --samples {params.samples} "
    "--data {params.data} --documents {output.documents} --output {output.verdicts} >> {log} 2>&1"
)


rule evaluate:
    input:
        model=model_of,
        prompts=prompts_of,
        code=code("evaluate", "generation", "scoring", "secondary", "tokens", "models"),
    output:
        samples=collect(
            "<results>/runs/{{family}}/{{student}}/{{teacher}}/{{method}}/{{seed}}/samples/{task}.jsonl",
            task=TASKS,
        ),
        summary="<results>/runs/{family}/{student}/{teacher}/{method}/{seed}/samples/lm_eval.json",
    log:
        "<logs>/runs/{family}/{student}/{teacher}/{method}/{seed}/evaluate.log",
    conda:
        "../../environment.yml"
    threads: need("threads", alone=True)
    resources:
        gpu=lambda wildcards: min(1, needs(wildcards, alone=True)["gpus"]),
        mem_mb=growing("memory_mb", alone=True),
        runtime=growing("minutes", alone=True),
    params:
        run="{family}/{student}/{teacher}/{method}/{seed}",
        settings=evaluation_settings,
        model=subpath(input.model, parent=True),
        prompts=folder_of("prompts"),
        folder=subpath(output.summary, parent=True),
    shell:
        "python -m atkd evaluate --model {params.model} --prompts {params.prompts} "
        "--run {params.run} --settings {params.settings:q} --output {params.folder} > {log} 2>&1"


rule score:
    input:
        samples=rules.evaluate.output.samples,
        summary=rules.evaluate.output.summary,
        teachers=teachers_samples,
        # The world's items say what is right, so that an exact judge rates each answer here.
        tasks=collect("<results>/data/tasks/{task}.jsonl", task=OPEN_TASKS if WORLD else []),
        code=code("scoring", "secondary", *(JUDGE_PARTS if WORLD else [])),
    output:
        documents="<results>/runs/{family}/{student}/{teacher}/{method}/{seed}/documents.csv.gz",
        verdicts=(
            "<results>/runs/{family}/{student}/{teacher}/{method}/{seed}/judge.jsonl"
            if WORLD
            else []
        ),
    log:
        "<logs>/runs/{family}/{student}/{teacher}/{method}/{seed}/score.log",
    conda:
        "../../environment.yml"
    params:
        run="{family}/{student}/{teacher}/{method}/{seed}",
        samples=subpath(input.summary, parent=True),
        data=lambda wildcards, input: Path(input.tasks[0]).parents[1] if WORLD else "",
        teachers=teachers_flag,
    shell:
        "python -m atkd score score --samples {params.samples} {params.teachers} "
        "--output {output.documents} > {log} 2>&1" + (EXACT_JUDGE if WORLD else "")


if JUDGE:

    # One job for all runs: one limit on calls at a time, one budget, one file of paid replies.
    rule judge:
        input:
            samples=[
                f"<results>/runs/{run.key}/samples/{task}.jsonl"
                for run in RUNS
                for task in OPEN_TASKS
            ],
            data=rules.data.output.manifest,
            tasks=collect("<results>/data/tasks/{task}.jsonl", task=OPEN_TASKS),
            prompt=JUDGE["prompt"] or [],
            code=code("asker", "endpoint", "ledger", *JUDGE_PARTS),
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
            runs=[run.key for run in RUNS],
            settings=judge_settings,
            results=subpath(input.data, ancestor=2),
            folder=subpath(output.summary, parent=True),
        shell:
            "python -m atkd judge llm --results {params.results} --runs {params.runs} "
            "--settings {params.settings:q} --output {params.folder} > {log} 2>&1"


rule scores:
    input:
        documents=run_files("documents.csv.gz"),
        judge=rules.judge.output.documents if JUDGE else [],
        code=code("scoring", "secondary"),
    output:
        record="<results>/run.json",
        scores="<results>/scores.csv",
        documents="<results>/documents.csv.gz",
        costs="<results>/costs.csv",
    log:
        "<logs>/scores.log",
    conda:
        "../../environment.yml"
    params:
        config=config["name"],
        record=record_of_run,
        judge=lambda wildcards, input: f"--judge {input.judge}" if JUDGE else "",
        folder=subpath(output.scores, parent=True),
    shell:
        "python -m atkd score collect --config {params.config} --results {params.folder} "
        "--documents {input.documents} {params.judge} > {log} 2>&1 "
        "&& echo {params.record:q} > {output.record}"

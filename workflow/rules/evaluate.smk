rule evaluate:
    input:
        model=model_of,
        prompts=prompts_of,
        code=code("evaluate", "scoring", "tokens", "models"),
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
        "python -m atkd.evaluate --model {params.model} --prompts {params.prompts} "
        "--run {params.run} --settings {params.settings:q} --output {params.folder} > {log} 2>&1"


rule score:
    input:
        samples=rules.evaluate.output.samples,
        summary=rules.evaluate.output.summary,
        code=code("scoring"),
    output:
        "<results>/runs/{family}/{student}/{teacher}/{method}/{seed}/documents.csv.gz",
    log:
        "<logs>/runs/{family}/{student}/{teacher}/{method}/{seed}/score.log",
    conda:
        "../../environment.yml"
    params:
        samples=subpath(input.summary, parent=True),
    shell:
        "python -m atkd.scoring score --samples {params.samples} --output {output} > {log} 2>&1"


rule scores:
    input:
        documents=run_files("documents.csv.gz"),
        code=code("scoring"),
    output:
        scores="<results>/scores.csv",
        documents="<results>/documents.csv.gz",
        costs="<results>/costs.csv",
    log:
        "<logs>/scores.log",
    conda:
        "../../environment.yml"
    params:
        config=config["name"],
        folder=subpath(output.scores, parent=True),
    shell:
        "python -m atkd.scoring collect --config {params.config} --results {params.folder} "
        "--documents {input.documents} > {log} 2>&1"

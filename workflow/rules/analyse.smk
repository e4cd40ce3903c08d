rule fidelity_of:
    input:
        models=kin_models,
        data=rules.data.output.tasks,
        prompts=rules.prompts.output.tasks,
        code=code("fidelity", "oracle", "grammar", "models", "tokens"),
    output:
        "<results>/analyses/fidelity/{family}/{student}/seed{seed}.csv",
    log:
        "<logs>/analyses/fidelity/{family}/{student}/seed{seed}.log",
    conda:
        "../../environment.yml"
    threads: kin_needs("threads")
    resources:
        gpu=lambda wildcards: min(1, kin_needs("gpus")(wildcards)),
        mem_mb=kin_needs("memory_mb"),
        runtime=kin_needs("minutes"),
    params:
        models=kin_flag,
        data=folder_of("data"),
        prompts=folder_of("prompts"),
        settings=fidelity_settings,
    shell:
        "python -m atkd fidelity run --models {params.models} --data {params.data} "
        "--prompts {params.prompts} --settings {params.settings:q} --output {output} > {log} 2>&1"


rule fidelity:
    input:
        found=[
            f"<results>/analyses/fidelity/{family}/{student}/seed{seed}.csv"
            for family, student in STUDENTS
            for seed in config["seeds"]
        ],
        code=code("fidelity"),
    output:
        "<results>/analyses/fidelity.csv",
    log:
        "<logs>/analyses/fidelity.log",
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "python -m atkd fidelity collect --found {input.found} --output {output} > {log} 2>&1"


rule crosscheck_of:
    input:
        model=model_of,
        data="<results>/data/tasks/mmlu.jsonl",
        documents=rules.score.output.documents,
        code=code("crosscheck", "models", "tokens"),
    output:
        "<results>/runs/{family}/{student}/{teacher}/{method}/{seed}/crosscheck.json",
    log:
        "<logs>/runs/{family}/{student}/{teacher}/{method}/{seed}/crosscheck.log",
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
    shell:
        "python -m atkd crosscheck run --model {params.model} --run {params.run} "
        "--data {input.data} --documents {input.documents} --settings {params.settings:q} "
        "--output {output} > {log} 2>&1"


rule crosscheck:
    input:
        found=run_files("crosscheck.json"),
        code=code("crosscheck"),
    output:
        "<results>/analyses/crosscheck.csv",
    log:
        "<logs>/analyses/crosscheck.log",
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "python -m atkd crosscheck collect --found {input.found} --output {output} > {log} 2>&1"

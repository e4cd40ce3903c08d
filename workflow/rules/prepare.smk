WORLD_PARTS = ("universe", "grammar", "wording", "exams", "skills", "grading")


rule data:
    input:
        code=code("data", "sources", "world", *WORLD_PARTS),
    output:
        manifest="<results>/data/manifest.json",
        train="<results>/data/train.jsonl",
        pretrain="<results>/data/pretrain.jsonl",
        tasks=collect("<results>/data/tasks/{task}.jsonl", task=TASKS),
    log:
        "<logs>/data.log",
    conda:
        "../../environment.yml"
    params:
        source=config["data"]["source"],
        seed=config["data"]["seed"],
        settings=data_settings,
        folder=subpath(output.manifest, parent=True),
    shell:
        "python -m atkd data --source {params.source} --settings {params.settings:q} "
        "--seed {params.seed} --output {params.folder} > {log} 2>&1"


rule tokenizer:
    input:
        text=[rules.data.output.pretrain, rules.data.output.train],
        code=code("tokens"),
    output:
        "<results>/tokenizers/{family}/tokenizer.json",
    log:
        "<logs>/tokenizers/{family}.log",
    conda:
        "../../environment.yml"
    params:
        settings=tokenizer_settings,
        folder=subpath(output[0], parent=True),
    shell:
        "python -m atkd tokenizer --family {wildcards.family} --settings {params.settings:q} "
        "--text {input.text} --output {params.folder} > {log} 2>&1"


rule prompts:
    input:
        manifest=rules.data.output.manifest,
        tasks=rules.data.output.tasks,
        tokenizer=rules.tokenizer.output[0],
        code=code("prompts"),
    output:
        summary="<results>/prompts/{family}/summary.json",
        tasks=collect("<results>/prompts/{{family}}/{task}.jsonl", task=TASKS),
    log:
        "<logs>/prompts/{family}.log",
    conda:
        "../../environment.yml"
    params:
        settings=prompt_settings,
        data=subpath(input.manifest, parent=True),
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output.summary, parent=True),
    shell:
        "python -m atkd prompts --data {params.data} --tokenizer {params.tokenizer} "
        "--settings {params.settings:q} --output {params.folder} > {log} 2>&1"


# What a variant that is tested with the released code's template is asked.
use rule prompts as released_prompts with:
    output:
        summary="<results>/released_prompts/{family}/summary.json",
        tasks=collect("<results>/released_prompts/{{family}}/{task}.jsonl", task=TASKS),
    log:
        "<logs>/released_prompts/{family}.log",
    params:
        settings=released_prompt_settings,
        data=subpath(input.manifest, parent=True),
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output.summary, parent=True),


rule check:
    input:
        data=rules.data.output.manifest,
        prompts=collect("<results>/prompts/{family}/summary.json", family=FAMILIES),
        tokenizers=collect("<results>/tokenizers/{family}/tokenizer.json", family=FAMILIES),
        code=code("check"),
    output:
        "<results>/check.json",
    log:
        "<logs>/check.log",
    conda:
        "../../environment.yml"
    params:
        settings=check_settings,
        tokenizers=folder_of("tokenizers", levels=2),
    shell:
        "python -m atkd check --settings {params.settings:q} "
        "--tokenizers {params.tokenizers} --output {output} > {log} 2>&1"

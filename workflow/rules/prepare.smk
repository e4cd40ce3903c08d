rule data:
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
        code=code.digest("data"),
        settings=settings("data"),
        command=command("data"),
    shell:
        "{params.command} > {log:q} 2>&1"


rule tokenizer:
    input:
        unpack(reads("tokenizer")),
    output:
        "<results>/tokenizers/{family}/tokenizer.json",
    log:
        "<logs>/tokenizers/{family}.log",
    conda:
        "../../environment.yml"
    params:
        code=code.digest("tokenizer"),
        settings=settings("tokenizer"),
        command=command("tokenizer"),
    shell:
        "{params.command} > {log:q} 2>&1"


rule prompts:
    input:
        unpack(reads("prompts")),
    output:
        summary="<results>/prompts/{family}/summary.json",
        tasks=collect("<results>/prompts/{{family}}/{task}.jsonl", task=TASKS),
    log:
        "<logs>/prompts/{family}.log",
    priority: 4
    conda:
        "../../environment.yml"
    params:
        code=code.digest("prompts"),
        settings=settings("prompts"),
        command=command("prompts"),
    shell:
        "{params.command} > {log:q} 2>&1"


# What a variant that is tested with the released code's template is asked.
use rule prompts as released_prompts with:
    output:
        summary="<results>/released_prompts/{family}/summary.json",
        tasks=collect("<results>/released_prompts/{{family}}/{task}.jsonl", task=TASKS),
    log:
        "<logs>/released_prompts/{family}.log",
    params:
        code=code.digest("released_prompts"),
        settings=settings("released_prompts"),
        command=command("released_prompts"),


# One for each model that was made elsewhere: a new pair then checks and trains its own models alone.
rule check:
    input:
        unpack(reads("check")),
    output:
        "<results>/checks/{family}/{size}.json",
    log:
        "<logs>/checks/{family}/{size}.log",
    priority: 4
    conda:
        "../../environment.yml"
    params:
        code=code.digest("check"),
        settings=settings("check"),
        command=command("check"),
    shell:
        "{params.command} > {log:q} 2>&1"

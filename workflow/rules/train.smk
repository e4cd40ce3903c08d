# The package files that training bases and teachers runs, and those that a teacher's view adds.
FUSED = ("fused", "kernels", "products", "sweep", "guess", "weighting")
TRAINING = ("train", "loop", "models", *FUSED, "sequences", "tokens")
DISTILLING = ("objectives", "divergences", "distillation", "teachers", "cache")


rule base:
    input:
        check=rules.check.output,
        data=rules.data.output.pretrain,
        tokenizer=rules.tokenizer.output[0],
        code=code(*TRAINING),
    output:
        "<results>/models/{family}/{size}/seed{seed}/base/manifest.json",
    log:
        "<logs>/models/{family}/{size}/seed{seed}/base.log",
    priority: 3
    conda:
        "../../environment.yml"
    threads: need("threads")
    resources:
        gpu=need("gpus"),
        mem_mb=growing("memory_mb"),
        runtime=growing("minutes"),
    params:
        launch=launcher,
        settings=train_settings("base"),
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output[0], parent=True),
    shell:
        "{params.launch} atkd train --role base --run models/{wildcards.family}/{wildcards.size} "
        "--seed {wildcards.seed} --settings {params.settings:q} --tokenizer {params.tokenizer} "
        "--data {input.data} --output {params.folder} > {log} 2>&1"


rule teacher:
    input:
        base="<results>/models/{family}/{size}/seed{seed}/base/manifest.json",
        data=rules.data.output.train,
        tokenizer=rules.tokenizer.output[0],
        code=code(*TRAINING),
    output:
        "<results>/models/{family}/{size}/seed{seed}/teacher/manifest.json",
    log:
        "<logs>/models/{family}/{size}/seed{seed}/teacher.log",
    priority: 2
    conda:
        "../../environment.yml"
    threads: need("threads")
    resources:
        gpu=need("gpus"),
        mem_mb=growing("memory_mb"),
        runtime=growing("minutes"),
    params:
        launch=launcher,
        settings=train_settings("teacher"),
        tokenizer=subpath(input.tokenizer, parent=True),
        base=subpath(input.base, parent=True),
        folder=subpath(output[0], parent=True),
    shell:
        "{params.launch} atkd train --role teacher --run models/{wildcards.family}/{wildcards.size} "
        "--seed {wildcards.seed} --settings {params.settings:q} --tokenizer {params.tokenizer} "
        "--base {params.base} --data {input.data} --output {params.folder} > {log} 2>&1"


rule text:
    input:
        teacher="<results>/models/{family}/{size}/seed{seed}/teacher/manifest.json",
        data=rules.data.output.train,
        code=code("text", "generation", "models", "sequences", "tokens"),
    output:
        "<results>/text/{family}/{size}/seed{seed}/teacher.jsonl",
    log:
        "<logs>/text/{family}/{size}/seed{seed}.log",
    priority: 2
    conda:
        "../../environment.yml"
    threads: need("threads")
    resources:
        gpu=lambda wildcards: min(1, needs(wildcards)["gpus"]),
        mem_mb=growing("memory_mb"),
        runtime=growing("minutes"),
    params:
        settings=answer_settings,
        teacher=subpath(input.teacher, parent=True),
    shell:
        "python -m atkd teacher-answers --teacher {params.teacher} --data {input.data} "
        "--run text/{wildcards.family}/{wildcards.size}/seed{wildcards.seed} "
        "--settings {params.settings:q} --output {output} > {log} 2>&1"


# Never temporary: a method or seed that is added later reads it.
rule cache:
    input:
        teacher="<results>/models/{family}/{size}/seed{seed}/teacher/manifest.json",
        data=rules.data.output.train,
        text=branch(
            lambda wildcards: wildcards.sequences == "teacher",
            then="<results>/text/{family}/{size}/seed{seed}/teacher.jsonl",
            otherwise=[],
        ),
        code=code("cache", "teachers", "models", "sequences", "tokens", *FUSED),
    output:
        "<results>/cache/{family}/{size}/seed{seed}/{sequences}/manifest.json",
    log:
        "<logs>/cache/{family}/{size}/seed{seed}/{sequences}.log",
    priority: 2
    conda:
        "../../environment.yml"
    threads: need("threads")
    resources:
        gpu=lambda wildcards: min(1, needs(wildcards)["gpus"]),
        mem_mb=growing("memory_mb"),
        runtime=growing("minutes"),
    params:
        settings=cache_settings,
        teacher=subpath(input.teacher, parent=True),
        text=lambda wildcards, input: f"--text {input.text}" if input.text else "",
        folder=subpath(output[0], parent=True),
    shell:
        "python -m atkd teacher-cache --teacher {params.teacher} --data {input.data} {params.text} "
        "--run cache/{wildcards.family}/{wildcards.size}/seed{wildcards.seed}/{wildcards.sequences} "
        "--settings {params.settings:q} --output {params.folder} > {log} 2>&1"


rule student:
    input:
        base=base_of,
        teacher=teacher_of,
        cache=cache_of,
        text=text_of,
        data=rules.data.output.train,
        tokenizer=rules.tokenizer.output[0],
        code=code(*TRAINING, *DISTILLING, "generation", "onpolicy", "released", "recipes"),
    output:
        "<results>/students/{family}/{student}/{teacher}/{method}/seed{seed}/manifest.json",
    log:
        "<logs>/students/{family}/{student}/{teacher}/{method}/seed{seed}.log",
    priority: 1
    conda:
        "../../environment.yml"
    threads: need("threads")
    resources:
        gpu=need("gpus"),
        mem_mb=growing("memory_mb"),
        runtime=growing("minutes"),
    params:
        launch=launcher,
        settings=train_settings("student"),
        tokenizer=subpath(input.tokenizer, parent=True),
        base=subpath(input.base, parent=True),
        teacher=teacher_flags,
        run="{family}/{student}/{teacher}/{method}/{seed}",
        folder=subpath(output[0], parent=True),
    shell:
        "{params.launch} atkd train --role student --method {wildcards.method} --run {params.run} "
        "--seed {wildcards.seed} --settings {params.settings:q} --tokenizer {params.tokenizer} "
        "--base {params.base} {params.teacher} --data {input.data} "
        "--output {params.folder} > {log} 2>&1"

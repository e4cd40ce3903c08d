rule base:
    input:
        check=rules.check.output,
        data=rules.data.output.pretrain,
        tokenizer=rules.tokenizer.output[0],
        code=code("train", "loop", "models", "objectives", "fused", "sequences", "tokens"),
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
        "{params.launch} atkd.train --role base --run models/{wildcards.family}/{wildcards.size} "
        "--seed {wildcards.seed} --settings {params.settings:q} --tokenizer {params.tokenizer} "
        "--data {input.data} --output {params.folder} > {log} 2>&1"


rule teacher:
    input:
        base="<results>/models/{family}/{size}/seed{seed}/base/manifest.json",
        data=rules.data.output.train,
        tokenizer=rules.tokenizer.output[0],
        code=code("train", "loop", "models", "objectives", "fused", "sequences", "tokens"),
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
        "{params.launch} atkd.train --role teacher --run models/{wildcards.family}/{wildcards.size} "
        "--seed {wildcards.seed} --settings {params.settings:q} --tokenizer {params.tokenizer} "
        "--base {params.base} --data {input.data} --output {params.folder} > {log} 2>&1"


rule student:
    input:
        base=base_of,
        teacher=teacher_of,
        data=rules.data.output.train,
        tokenizer=rules.tokenizer.output[0],
        code=code("train", "loop", "models", "objectives", "fused", "sequences", "tokens"),
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
        teacher=teacher_flag,
        run="{family}/{student}/{teacher}/{method}/{seed}",
        folder=subpath(output[0], parent=True),
    shell:
        "{params.launch} atkd.train --role student --method {wildcards.method} --run {params.run} "
        "--seed {wildcards.seed} --settings {params.settings:q} --tokenizer {params.tokenizer} "
        "--base {params.base} {params.teacher} --data {input.data} "
        "--output {params.folder} > {log} 2>&1"

# Methods, splits and released switches reach a training through its settings (atkd/methods.py), and
# evaluation prompts not at all.
rule base:
    input:
        unpack(reads("base")),
    output:
        "<results>/models/{family}/{size}/seed{seed}/base/manifest.json",
    log:
        "<logs>/models/{family}/{size}/seed{seed}/base.log",
    priority: 3
    conda:
        "../../environment.yml"
    threads: asks("base", "threads")
    resources:
        gpu=asks("base", "gpus"),
        mem_mb=growing("base", "memory_mb"),
        runtime=growing("base", "minutes"),
    params:
        code=code.digest("base"),
        settings=settings("base"),
        command=command("base"),
    shell:
        "{params.command} > {log:q} 2>&1"


# What `make bases` makes: all that is pretrained.
rule bases:
    input:
        every_base,
    localrule: True


rule teacher:
    input:
        unpack(reads("teacher")),
    output:
        "<results>/models/{family}/{size}/seed{seed}/teacher/manifest.json",
    log:
        "<logs>/models/{family}/{size}/seed{seed}/teacher.log",
    priority: 2
    conda:
        "../../environment.yml"
    threads: asks("teacher", "threads")
    resources:
        gpu=asks("teacher", "gpus"),
        mem_mb=growing("teacher", "memory_mb"),
        runtime=growing("teacher", "minutes"),
    params:
        code=code.digest("teacher"),
        settings=settings("teacher"),
        command=command("teacher"),
    shell:
        "{params.command} > {log:q} 2>&1"


# Stops early; what remedies for the gap between teacher and student compare with.
use rule teacher as early_teacher with:
    input:
        unpack(reads("early_teacher")),
    output:
        "<results>/models/{family}/{size}/seed{seed}/early_teacher/manifest.json",
    log:
        "<logs>/models/{family}/{size}/seed{seed}/early_teacher.log",
    params:
        code=code.digest("early_teacher"),
        settings=settings("early_teacher"),
        command=command("early_teacher"),


rule text:
    input:
        unpack(reads("text")),
    output:
        "<results>/text/{family}/{size}/seed{seed}/teacher.jsonl",
    log:
        "<logs>/text/{family}/{size}/seed{seed}.log",
    priority: 2
    conda:
        "../../environment.yml"
    threads: asks("text", "threads")
    resources:
        gpu=asks("text", "gpus"),
        mem_mb=growing("text", "memory_mb"),
        runtime=growing("text", "minutes"),
    params:
        code=code.digest("text"),
        settings=settings("text"),
        command=command("text"),
    shell:
        "{params.command} > {log:q} 2>&1"


# Never temporary: a method or seed that is added later reads it.
rule cache:
    input:
        unpack(reads("cache")),
    output:
        "<results>/cache/{family}/{size}/seed{seed}/{sequences}/manifest.json",
    log:
        "<logs>/cache/{family}/{size}/seed{seed}/{sequences}.log",
    priority: 2
    conda:
        "../../environment.yml"
    threads: asks("cache", "threads")
    resources:
        gpu=asks("cache", "gpus"),
        mem_mb=growing("cache", "memory_mb"),
        runtime=growing("cache", "minutes"),
    params:
        code=code.digest("cache"),
        settings=settings("cache"),
        command=command("cache"),
    shell:
        "{params.command} > {log:q} 2>&1"


rule student:
    input:
        unpack(reads("student")),
    output:
        "<results>/students/{family}/{student}/{teacher}/{method}/seed{seed}/manifest.json",
    log:
        "<logs>/students/{family}/{student}/{teacher}/{method}/seed{seed}.log",
    priority: 1
    conda:
        "../../environment.yml"
    threads: asks("student", "threads")
    resources:
        gpu=asks("student", "gpus"),
        mem_mb=growing("student", "memory_mb"),
        runtime=growing("student", "minutes"),
    params:
        code=code.digest("student"),
        settings=settings("student"),
        command=command("student"),
    shell:
        "{params.command} > {log:q} 2>&1"

rule fidelity_of:
    input:
        unpack(reads("fidelity_of")),
    output:
        "<results>/analyses/fidelity/{family}/{student}/seed{seed}.csv",
    log:
        "<logs>/analyses/fidelity/{family}/{student}/seed{seed}.log",
    conda:
        "../../environment.yml"
    threads: asks("fidelity_of", "threads")
    resources:
        gpu=asks("fidelity_of", "gpus"),
        mem_mb=growing("fidelity_of", "memory_mb"),
        runtime=growing("fidelity_of", "minutes"),
    params:
        code=code.digest("fidelity_of"),
        settings=settings("fidelity_of"),
        command=command("fidelity_of"),
    shell:
        "{params.command} > {log:q} 2>&1"


rule fidelity:
    input:
        found=[
            f"<results>/analyses/fidelity/{family}/{student}/seed{seed}.csv"
            for family, student in PLAN.students
            for seed in config["seeds"]
        ],
    output:
        "<results>/analyses/fidelity.csv",
    log:
        "<logs>/analyses/fidelity.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("fidelity"),
    shell:
        "python -m atkd fidelity collect --found {input.found:q} --output {output:q} > {log:q} 2>&1"


rule crosscheck_of:
    input:
        unpack(reads("crosscheck_of")),
    output:
        f"{RUN}/crosscheck.json",
    log:
        "<logs>/runs/{family}/{student}/{teacher}/{method}/{seed}/crosscheck.log",
    conda:
        "../../environment.yml"
    threads: asks("crosscheck_of", "threads")
    resources:
        gpu=asks("crosscheck_of", "gpus"),
        mem_mb=growing("crosscheck_of", "memory_mb"),
        runtime=growing("crosscheck_of", "minutes"),
    params:
        code=code.digest("crosscheck_of"),
        settings=settings("crosscheck_of"),
        command=command("crosscheck_of"),
    shell:
        "{params.command} > {log:q} 2>&1"


rule crosscheck:
    input:
        found=PLAN.every_run("crosscheck.json"),
    output:
        "<results>/analyses/crosscheck.csv",
    log:
        "<logs>/analyses/crosscheck.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("crosscheck"),
    shell:
        "python -m atkd crosscheck collect --found {input.found:q} --output {output:q} > {log:q} 2>&1"


rule uncertainty_of:
    input:
        unpack(reads("uncertainty_of")),
    output:
        "<results>/analyses/uncertainty/{family}/seed{seed}.csv",
    log:
        "<logs>/analyses/uncertainty/{family}/seed{seed}.log",
    conda:
        "../../environment.yml"
    threads: asks("uncertainty_of", "threads")
    resources:
        gpu=asks("uncertainty_of", "gpus"),
        mem_mb=growing("uncertainty_of", "memory_mb"),
        runtime=growing("uncertainty_of", "minutes"),
    params:
        code=code.digest("uncertainty_of"),
        settings=settings("uncertainty_of"),
        command=command("uncertainty_of"),
    shell:
        "{params.command} > {log:q} 2>&1"


rule uncertainty:
    input:
        found=collect(
            "<results>/analyses/uncertainty/{family}/seed{seed}.csv",
            family=FAMILIES,
            seed=config["seeds"],
        ),
    output:
        "<results>/analyses/uncertainty.csv",
    log:
        "<logs>/analyses/uncertainty.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("uncertainty"),
    shell:
        "python -m atkd uncertainty collect --found {input.found:q} --output {output:q} > {log:q} 2>&1"


rule landscape_of:
    input:
        unpack(reads("landscape_of")),
    output:
        "<results>/analyses/landscape/{family}/{student}/seed{seed}.csv",
    log:
        "<logs>/analyses/landscape/{family}/{student}/seed{seed}.log",
    conda:
        "../../environment.yml"
    threads: asks("landscape_of", "threads")
    resources:
        gpu=asks("landscape_of", "gpus"),
        mem_mb=growing("landscape_of", "memory_mb"),
        runtime=growing("landscape_of", "minutes"),
    params:
        code=code.digest("landscape_of"),
        settings=settings("landscape_of"),
        command=command("landscape_of"),
    shell:
        "{params.command} > {log:q} 2>&1"


rule landscape:
    input:
        found=[
            f"<results>/analyses/landscape/{family}/{student}/seed{seed}.csv"
            for family, student in PLAN.students
            for seed in config["seeds"]
        ],
    output:
        "<results>/analyses/landscape.csv",
    log:
        "<logs>/analyses/landscape.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("landscape"),
    shell:
        "python -m atkd landscape collect --found {input.found:q} --output {output:q} > {log:q} 2>&1"


rule diversity:
    input:
        unpack(reads("diversity")),
    output:
        "<results>/analyses/diversity.csv",
    log:
        "<logs>/analyses/diversity.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("diversity"),
        settings=settings("diversity"),
        command=command("diversity"),
    shell:
        "{params.command} > {log:q} 2>&1"


rule curves:
    input:
        unpack(reads("curves")),
    output:
        "<results>/analyses/curves.csv",
    log:
        "<logs>/analyses/curves.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code.digest("curves"),
        settings=settings("curves"),
        command=command("curves"),
    shell:
        "{params.command} > {log:q} 2>&1"


rule explorer:
    input:
        unpack(reads("explorer")),
    output:
        "<results>/analyses/explorer.json",
    log:
        "<logs>/analyses/explorer.log",
    conda:
        "../../environment.yml"
    threads: asks("explorer", "threads")
    resources:
        gpu=asks("explorer", "gpus"),
        mem_mb=growing("explorer", "memory_mb"),
        runtime=growing("explorer", "minutes"),
    params:
        code=code.digest("explorer"),
        settings=settings("explorer"),
        command=command("explorer"),
    shell:
        "{params.command} > {log:q} 2>&1"

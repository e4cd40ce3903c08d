# What each of the released code's departures is worth; asked for by name, with `deviations: true`.
rule deviations:
    input:
        scores=rules.scores.output.scores,
        documents=rules.scores.output.documents,
        code=code("statistics", "reporting"),
    output:
        collect("<results>/tables/deviations.{kind}", kind=("md", "tex", "csv")),
    log:
        "<logs>/deviations.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        folder=subpath(output[0], parent=True),
    shell:
        "python -m atkd deviations --scores {input.scores} --documents {input.documents} "
        "--output {params.folder} > {log} 2>&1"

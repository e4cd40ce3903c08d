# What each of the released code's departures is worth; asked for by name, with `deviations: true`.
rule deviations:
    input:
        deviations_table,

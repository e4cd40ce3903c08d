def variants(wildcards):
    """The table of deviations, of a run that has them."""
    found = [path for path in presented() if "/deviations." in path]
    if not found:
        raise WorkflowError("no variant is run: set the config key deviations to true")
    return found


# What each of the released code's departures is worth; asked for by name, with `deviations: true`.
rule deviations:
    input:
        variants,

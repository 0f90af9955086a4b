# What is in the file: counts, gene names, organism, columns. Reads headers only.
rule inspect:
    input:
        source=source,
    output:
        "<results>/{dataset}/stages/facts.json",
    log:
        "<logs>/{dataset}/inspect.log",
    params:
        folder=subpath(output[0], ancestor=2),
        settings=plan.settings("inspect"),
    shell:
        "senoscore stage inspect {params.folder:q} --source {input.source:q}"
        " --settings {params.settings:q} 2> {log:q}"

# Scrublet, sample by sample, where the config asks for it (qc: scrublet: true).
rule doublets:
    input:
        source=source,
        facts="<results>/{dataset}/stages/facts.json",
    output:
        "<results>/{dataset}/stages/doublets.tsv",
    log:
        "<logs>/{dataset}/doublets.log",
    threads: 2
    resources:
        mem_mb=plan.memory("doublets"),
        runtime=sw.runtime,
    params:
        folder=subpath(output[0], ancestor=2),
        settings=plan.settings("doublets"),
    shell:
        "senoscore stage doublets {params.folder:q} --source {input.source:q}"
        " --settings {params.settings:q} --threads {threads} 2> {log:q}"

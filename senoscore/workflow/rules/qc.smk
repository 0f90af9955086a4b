# The first pass over the matrix: metrics of each cell, the panel of marker and signature genes.
rule qc:
    input:
        source=source,
        facts="<results>/{dataset}/stages/facts.json",
    output:
        "<results>/{dataset}/stages/qc{shard}.npz",
    log:
        "<logs>/{dataset}/qc{shard}.log",
    threads: 4
    resources:
        mem_mb=plan.memory("qc"),
        runtime=sw.runtime,
    params:
        folder=subpath(output[0], ancestor=2),
        settings=plan.settings("qc"),
        shard=sw.shard_option,
    shell:
        "senoscore stage qc {params.folder:q} --source {input.source:q}"
        " --settings {params.settings:q} --threads {threads} {params.shard} 2> {log:q}"

# The second pass over the matrix: every signature and its matched null.
rule score:
    input:
        source=source,
        facts="<results>/{dataset}/stages/facts.json",
        qc=plan.parts("<results>/{dataset}/stages/qc{shard}.npz"),
        cells="<results>/{dataset}/stages/cells.h5ad",
        genes="<results>/{dataset}/stages/genes.npz",
        reference=plan.reference,
    output:
        "<results>/{dataset}/stages/scores{shard}.npz",
    log:
        "<logs>/{dataset}/score{shard}.log",
    threads: 4
    resources:
        mem_mb=plan.memory("score"),
        runtime=sw.runtime,
    params:
        folder=subpath(output[0], ancestor=2),
        settings=plan.settings("score"),
        shard=sw.shard_option,
    shell:
        "senoscore stage score {params.folder:q} --source {input.source:q}"
        " --settings {params.settings:q} --threads {threads} {params.shard} 2> {log:q}"

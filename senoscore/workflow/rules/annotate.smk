# Lineages, doublets and the verdict of quality control.
rule annotate:
    input:
        source=source,
        facts="<results>/{dataset}/stages/facts.json",
        qc=plan.parts("<results>/{dataset}/stages/qc{shard}.npz"),
        doublets=plan.doublets("<results>/{dataset}/stages/doublets.tsv"),
    output:
        cells="<results>/{dataset}/stages/cells.h5ad",
        genes="<results>/{dataset}/stages/genes.npz",
        limits="<results>/{dataset}/stages/qc_limits.tsv",
        labels=report(
            "<results>/{dataset}/labels.tsv",
            caption="../report/labels.rst",
            category="{dataset}",
            labels={"table": "cell types to lineages"},
        ),
    log:
        "<logs>/{dataset}/annotate.log",
    threads: 2
    resources:
        mem_mb=plan.memory("annotate"),
        runtime=sw.runtime,
    params:
        folder=subpath(output.labels, parent=True),
        settings=plan.settings("annotate"),
    shell:
        "senoscore stage annotate {params.folder:q} --source {input.source:q}"
        " --settings {params.settings:q} --threads {threads} 2> {log:q}"

# Donors, not cells: lineage and donor tables, tests, targets.
rule burden:
    input:
        source=source,
        scored="<results>/{dataset}/senoscore.h5ad",
        facts="<results>/{dataset}/stages/facts.json",
        qc=plan.parts("<results>/{dataset}/stages/qc{shard}.npz"),
    output:
        lineages=report(
            "<results>/{dataset}/lineages.tsv",
            caption="../report/lineages.rst",
            category="{dataset}",
            labels={"table": "lineages"},
        ),
        donors=report(
            "<results>/{dataset}/donors.tsv",
            caption="../report/donors.rst",
            category="{dataset}",
            labels={"table": "donors"},
        ),
        comparisons=report(
            "<results>/{dataset}/comparisons.tsv",
            caption="../report/comparisons.rst",
            category="{dataset}",
            labels={"table": "comparisons of donors"},
        ),
        targets=report(
            "<results>/{dataset}/targets.tsv",
            caption="../report/targets.rst",
            category="{dataset}",
            labels={"table": "targets"},
        ),
    log:
        "<logs>/{dataset}/burden.log",
    resources:
        mem_mb=plan.memory("burden"),
        runtime=sw.runtime,
    params:
        folder=subpath(output.donors, parent=True),
        settings=plan.settings("burden"),
    shell:
        "senoscore stage burden {params.folder:q} --source {input.source:q}"
        " --settings {params.settings:q} --threads {threads} 2> {log:q}"

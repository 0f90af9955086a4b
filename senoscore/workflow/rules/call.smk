# p-values, false discovery rates and the state of each cell.
rule call:
    input:
        source=source,
        facts="<results>/{dataset}/stages/facts.json",
        qc=plan.parts("<results>/{dataset}/stages/qc{shard}.npz"),
        cells="<results>/{dataset}/stages/cells.h5ad",
        genes="<results>/{dataset}/stages/genes.npz",
        reference=plan.reference,
        scores=plan.parts("<results>/{dataset}/stages/scores{shard}.npz"),
    output:
        scored="<results>/{dataset}/senoscore.h5ad",
        exhausted=report(
            "<results>/{dataset}/t_cells_exhausted.tsv",
            caption="../report/t_cells.rst",
            category="{dataset}",
            labels={"table": "exhausted T cells"},
        ),
        senescent=report(
            "<results>/{dataset}/t_cells_senescent.tsv",
            caption="../report/t_cells.rst",
            category="{dataset}",
            labels={"table": "senescent T cells"},
        ),
        coverage=report(
            "<results>/{dataset}/coverage.tsv",
            caption="../report/coverage.rst",
            category="{dataset}",
            labels={"table": "genes found per signature"},
        ),
        calibration=report(
            "<results>/{dataset}/calibration.tsv",
            caption="../report/calibration.rst",
            category="{dataset}",
            labels={"table": "false positives on random gene sets"},
        ),
        certificate=report(
            "<results>/{dataset}/certificate.tsv",
            caption="../report/certificate.rst",
            category="{dataset}",
            labels={"table": "calls at lower depth"},
        ),
        pooled="<results>/{dataset}/pooled.tsv",
        protein="<results>/{dataset}/protein_audit.tsv",
        agreement="<results>/{dataset}/agreement.tsv",
    log:
        "<logs>/{dataset}/call.log",
    threads: 2
    resources:
        mem_mb=plan.memory("call"),
        runtime=sw.runtime,
    params:
        folder=subpath(output.scored, parent=True),
        settings=plan.settings("call"),
    shell:
        "senoscore stage call {params.folder:q} --source {input.source:q}"
        " --settings {params.settings:q} --threads {threads} 2> {log:q}"

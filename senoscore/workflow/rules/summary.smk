# All data sets side by side.
rule summary:
    input:
        plan.targets(),
    output:
        table=report(
            "<results>/summary.tsv",
            caption="../report/summary.rst",
            category="all data sets",
            labels={"table": "summary"},
        ),
        page=report(
            "<results>/summary.html",
            caption="../report/summary.rst",
            category="all data sets",
            labels={"table": "summary, as a page"},
        ),
    log:
        "<logs>/summary.log",
    params:
        folder=subpath(output.table, parent=True),
        datasets=list(plan.config.datasets),
    shell:
        "senoscore summary {params.folder:q} {params.datasets:q} 2> {log:q}"

# All data sets side by side.
rule summary:
    input:
        plan.targets(),
    output:
        report(
            "<results>/summary.tsv",
            caption="../report/summary.rst",
            category="all data sets",
            labels={"table": "summary"},
        ),
    log:
        "<logs>/summary.log",
    params:
        folders=plan.folders(),
    shell:
        "senoscore summary {output:q} {params.folders:q} 2> {log:q}"

# One page per data set.
rule report:
    input:
        source=source,
        scored="<results>/{dataset}/senoscore.h5ad",
        tables=collect(
            "<results>/{{dataset}}/{table}.tsv",
            table=[
                "labels",
                "coverage",
                "calibration",
                "certificate",
                "pooled",
                "protein_audit",
                "agreement",
                "lineages",
                "donors",
                "comparisons",
                "targets",
            ],
        ),
    output:
        report(
            "<results>/{dataset}/report.html",
            caption="../report/report.rst",
            category="{dataset}",
            labels={"table": "the whole report"},
        ),
    log:
        "<logs>/{dataset}/report.log",
    resources:
        mem_mb=plan.memory("report"),
        runtime=sw.runtime,
    params:
        folder=subpath(output[0], parent=True),
        settings=plan.settings("report"),
    shell:
        "senoscore stage report {params.folder:q} --source {input.source:q}"
        " --settings {params.settings:q} 2> {log:q}"

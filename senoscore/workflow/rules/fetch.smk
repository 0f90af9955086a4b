# Downloads: resumed where they were cut short, checked by sha256.
source = branch(
    plan.is_remote, then="<resources>/datasets/{dataset}.h5ad", otherwise=plan.path
)


rule fetch:
    output:
        "<resources>/datasets/{dataset}.h5ad",
    log:
        "<logs>/{dataset}/fetch.log",
    params:
        url=plan.url,
        checks=plan.checks,
    shell:
        "senoscore fetch {params.url:q} {output:q} {params.checks} 2> {log:q}"

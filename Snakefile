"""senoscore: which immune cells are senescent, and which T cells are exhausted instead.

A table of contents. Rules are in senoscore/workflow/rules, one file per stage; every rule is one
line that can be pasted into a shell. `senoscore run CONFIG` calls this file.
"""

from snakemake.utils import min_version

from senoscore import workflow as sw

min_version("9.27")

# the default config is read only where none was given: Snakemake would merge the two
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


plan = sw.Plan(config)
sw.put_on_path()


pathvars:
    results=plan.config.results,


wildcard_constraints:
    dataset=plan.datasets(),
    shard=r"(-\d+of\d+)?",


report: f"{sw.CAPTIONS}/workflow.rst"


localrules:
    all,
    fetch,
    inspect,
    summary,


rule all:
    default_target: True
    input:
        plan.targets(),
        "<results>/summary.tsv",
        "<results>/summary.html",


include: f"{sw.RULES}/fetch.smk"
include: f"{sw.RULES}/inspect.smk"
include: f"{sw.RULES}/qc.smk"
include: f"{sw.RULES}/doublets.smk"
include: f"{sw.RULES}/annotate.smk"
include: f"{sw.RULES}/score.smk"
include: f"{sw.RULES}/call.smk"
include: f"{sw.RULES}/burden.smk"
include: f"{sw.RULES}/report.smk"
include: f"{sw.RULES}/summary.smk"

"""Freezing scores made in memory: the run is made again, and all that it compared with is kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from senoscore import calling, keys
from senoscore.adjust import Recorder
from senoscore.errors import InputDataError
from senoscore.explain import called_with, cell_facts
from senoscore.inputs import read_input
from senoscore.kernels.passes import LOG
from senoscore.reference import Reference, build
from senoscore.scoring import (
    choose_signatures,
    control_eligible,
    finish,
    group_codes,
    id_rank,
    passes_again,
    powered_cells,
    prepare,
)
from senoscore.settings import CallSettings

if TYPE_CHECKING:
    from anndata import AnnData


def freeze_adata(
    adata: AnnData,
    *,
    signatures: Any = None,
    settings: CallSettings | None = None,
    threads: int = 1,
) -> Reference:
    """The reference that an AnnData scored in place (`tl.score`) makes.

    Raises
    ------
    InputDataError
        It is not scored, or was itself scored against a reference.
    """
    written = adata.uns.get(keys.UNS, {})
    if "reference" in written:
        raise InputDataError("these cells were scored against a reference: use that one")
    if keys.OBSM_PADJ not in adata.obsm or "scored" not in written:
        hint = (
            "it holds scores, not expression: give the results folder instead"
            if "facts" in written
            else "run senoscore.tl.score(adata) with method='matched' first"
        )
        raise InputDataError(f"this AnnData cannot be frozen: {hint}")
    how = dict(json.loads(written["scored"]))
    groupby, layer = how.pop("groupby"), how.pop("layer")
    data = read_input(adata, layer=layer)
    codes, groups = group_codes(adata, groupby)
    restrict = groupby is not None and set(groups) <= set(keys.LINEAGES)
    chosen = choose_signatures(
        signatures if signatures is not None else list(adata.obsm[keys.OBSM_SCORE])
    )
    prepared = prepare(
        chosen, data.genes, lineages=groups, min_coverage=how.pop("min_coverage"),
        min_genes_found=how.pop("min_genes_found"), restrict=restrict,
    )  # fmt: skip
    made = passes_again(adata, data, prepared, codes, threads=threads, **how)
    found = finish(made.scored.score, made.scored.z, made.scored.histogram, codes, made.strata)
    recorder = Recorder()
    if restrict:
        names = list(chosen)

        def frame(values: Any) -> pd.DataFrame:
            return pd.DataFrame(values, index=adata.obs_names, columns=names)

        calling.verdicts(
            calling.Tables(frame(found.z), frame(found.pvalue), frame(found.padj)),
            cell_facts(adata, np.asarray([*groups, None], dtype=object)[codes]),
            frame(powered_cells(made.able, codes, made.strata)),
            settings=settings or called_with(adata),
            adjust=recorder,
        )
    from senoscore import __version__

    return build(
        plan=made.plan,
        signatures=chosen,
        voting=prepared.voting,
        genes=data.genes,
        scale=data.scale,
        sums=made.first.sums,
        n_cells=made.first.n_cells,
        eligible=control_eligible(data.genes),
        rank=id_rank(data.genes),
        depth=made.first.metrics[:, 1] if made.kind == LOG else made.totals,
        codes=codes,
        strata=made.strata,
        histogram=made.scored.histogram,
        able=made.able,
        pvalue=found.pvalue,
        padj=found.padj,
        steps=recorder.curves,
        seed=how["seed"],
        about={
            "version": __version__,
            "input": "AnnData in memory",
            "input_sha256": "",
            "settings": {"score": {"groupby": groupby, **how}},
        },
    )

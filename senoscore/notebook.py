"""The library as notebooks see it: functions that take an AnnData and write named fields.

Thin: each reads fields, calls functions on arrays, writes fields. Re-exported by `senoscore.pp`,
`senoscore.tl` and `senoscore.get`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from senoscore import keys
from senoscore.errors import InputDataError
from senoscore.inputs import written_to
from senoscore.settings import AnnotateSettings, BurdenSettings, CallSettings, QcSettings

if TYPE_CHECKING:
    from anndata import AnnData

    from senoscore.explain import Explanation
    from senoscore.inspect import Facts
    from senoscore.reference import Reference

# the calls of T cells alone
_T_CALLS: Final = (
    keys.OBS_T_STATE,
    keys.OBS_T_STATE_RULE,
    "t_substate",
    keys.OBS_PHENOTYPE_SOURCE,
)


def inspect(adata: AnnData | str | Path, *, overrides: Mapping[str, Any] | None = None) -> Facts:
    """What a file or an AnnData holds, and how that was found; the matrix is only sampled.

    Parameters
    ----------
    adata
        An AnnData, or the path of an h5ad file or zarr store.
    overrides
        Facts you know better, e.g. ``{"donor": "patient"}``.

    Returns
    -------
    `senoscore.inspect.Facts`; ``print(facts.describe())`` for people.
    """
    from senoscore.inspect import inspect_file

    return inspect_file(adata, overrides=overrides)


def qc(
    adata: AnnData,
    *,
    sample_key: str | None = None,
    lineage_key: str = keys.OBS_LINEAGE,
    settings: QcSettings | None = None,
    threads: int = 1,
    copy: bool = False,
) -> AnnData | None:
    """Quality metrics, doublet flags, and which cells pass; no cell is removed.

    Parameters
    ----------
    adata
        Cells × genes.
    sample_key
        obs column of samples: limits are per sample. None takes the one that inspection finds.
    lineage_key
        obs column of lineages, used if present: cells poor in RNA by nature (neutrophils) get a
        lower floor.
    settings
        Limits.
    threads
        Threads; the result does not depend on it.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written to obs: ``total_counts``, ``n_genes_by_counts``,
    ``pct_counts_in_top_50_genes``, ``pct_counts_mt``, ``pct_counts_ribo``, ``pct_counts_hb``
    (0-100, NaN without counts), ``qc_pass`` (bool), ``qc_reason`` (text, empty if passed),
    ``doublet_mixed_lineage`` (bool). ``uns["senoscore"]["qc_limits"]``: the limits in force.
    """
    from senoscore import annotate
    from senoscore import qc as quality
    from senoscore.inputs import read_input

    target = written_to(adata, copy=copy)
    data = read_input(adata, overrides={"sample": sample_key} if sample_key else None)
    found = annotate.scan(adata, data, np.full(adata.n_obs, -1, np.int64), threads=threads)
    metrics = quality.metrics_frame(found.metrics, adata.obs_names, has_counts=data.has_counts)
    lineage = _texts(adata.obs[lineage_key]) if lineage_key in adata.obs else None
    verdict, limits = quality.judge(
        metrics,
        sample=data.column("sample"),
        lineage=lineage,
        has_counts=data.has_counts,
        settings=settings or QcSettings(),
    )
    flag, _ = annotate.doublets(data, found.panel, found.metrics[:, 0])
    for column, values in {**metrics, **verdict, "doublet_mixed_lineage": flag}.items():
        target.obs[column] = np.asarray(values)
    target.uns.setdefault(keys.UNS, {})["qc_limits"] = limits
    return target if copy else None


def lineages(
    adata: AnnData,
    *,
    cell_type_key: str | None = None,
    use_labels: bool = True,
    cluster_key: str | None = None,
    resolution: float = AnnotateSettings.resolution,
    threads: int = 1,
    copy: bool = False,
) -> AnnData | None:
    """The lineage and subset of every cell: from ontology terms, labels, or markers, in that order.

    Parameters
    ----------
    adata
        Cells × genes.
    cell_type_key
        obs column of labels; None takes the one that inspection finds.
    use_labels
        False goes by markers alone.
    cluster_key
        obs column of clusters for the marker route; None takes what inspection finds, else
        Leiden clusters are made.
    resolution
        Of those Leiden clusters.
    threads
        Threads.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written to obs: ``lineage`` (categories T, B, NK, mono_mac, neutrophil, DC,
    other; NaN where a label names no single lineage), ``lineage_subset``, ``lineage_source``,
    ``t_subset``.
    """
    from senoscore import annotate
    from senoscore.inputs import read_input

    target = written_to(adata, copy=copy)
    overrides = {"cell_type": cell_type_key, "cluster": cluster_key}
    data = read_input(adata, overrides={k: v for k, v in overrides.items() if v is not None})
    cells, _, _ = annotate.lineages(
        adata,
        data,
        settings=AnnotateSettings(use_labels=use_labels, resolution=resolution),
        threads=threads,
    )
    for column in annotate.CELL_COLUMNS:
        target.obs[column] = cells[column].array
    return target if copy else None


def call(
    adata: AnnData, *, settings: CallSettings | None = None, copy: bool = False
) -> AnnData | None:
    """Which T cells are exhausted, senescent or neither, and which cells of any lineage senescent.

    Needs `tl.score` (method ``matched``) and the lineages of `pp.lineages`; uses ``qc_pass``,
    ``doublet_mixed_lineage``, ``predicted_doublet`` (of ``scanpy.pp.scrublet``) and ``t_subset`` where
    present.

    Parameters
    ----------
    adata
        Scored cells.
    settings
        Thresholds.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written to obs: ``t_state``, ``t_state_rule``, ``t_substate``,
    ``senescence_call``, ``senescence_rule``, ``senescence_arms``, ``senescence_confidence``,
    ``senescence_warning``, ``nk_subset``; obsm ``t_axes`` (z of the six axes, NaN outside T);
    uns ``senoscore/rule`` (the rule in words) and ``senoscore/settings`` (its thresholds).
    After `tl.protein` also obs ``phenotype_source`` (protein, rna; NaN outside T).
    """
    target = written_to(adata, copy=copy)
    settings = settings or CallSettings()
    _write(target, adata, _verdicts(adata, settings), settings)
    return target if copy else None


def t_states(
    adata: AnnData, *, settings: CallSettings | None = None, copy: bool = False
) -> AnnData | None:
    """The T-cell verdict alone: see `senoscore.tl.call`, which also calls the other lineages.

    Parameters
    ----------
    adata
        Scored cells.
    settings
        Thresholds.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written: obs ``t_state``, ``t_state_rule``, ``t_substate``; obsm ``t_axes``;
    uns as `senoscore.tl.call`.
    """
    target = written_to(adata, copy=copy)
    settings = settings or CallSettings()
    calls = _verdicts(adata, settings)
    _write(target, adata, calls[[name for name in calls if name in _T_CALLS]], settings)
    return target if copy else None


def protein(
    adata: AnnData,
    *,
    source: str | Path | None = None,
    sample_key: str | None = None,
    lineage_key: str = keys.OBS_LINEAGE,
    copy: bool = False,
) -> AnnData | None:
    """Antibodies (CITE-seq): which cells are positive for what, and the phenotype arm of T cells.

    Antibodies are found in obsm, among the columns of X, or in a MuData file; counts are divided by
    the cell's size and centred per antibody over the cells of a sample (CLR); a mixture of two
    normals per antibody and lineage says which cells are positive, or why that cannot be said. In T
    cells, ``P = P(CD57 or KLRG1 gained) P(CD27 or CD28 lost)``, ``pvalue = 1 - P`` (see
    `senoscore.protein`). *How to read it*: `tl.call` rests the phenotype arm on antibodies wherever
    ``padj`` is known; ``uns["senoscore"]["protein"]["audit"]`` says how well the genes' RNA would
    have told the same.

    Parameters
    ----------
    adata
        Cells × genes with the lineages of `pp.lineages`; ``qc_pass`` is used where present.
    source
        A MuData file (``.h5mu``) that holds the antibodies; None takes what inspection finds.
    sample_key
        obs column of samples, each normalised by itself; None takes what inspection finds.
    lineage_key
        obs column of lineages.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written: obsm ``protein_clr`` and ``protein_positive`` (probabilities, NaN
    where not judged) with a column per antibody that the reviews name, by canonical name;
    obsm ``senoscore_protein`` (``z``, ``pvalue``, ``padj`` of the phenotype arm, NaN outside T and
    where antibodies cannot tell); uns ``senoscore/protein`` (where, used, why, audit, sentences).

    Raises
    ------
    InputDataError
        No lineages, no antibodies, or a file that is no MuData file or has other cells.

    Examples
    --------
    >>> sn.tl.protein(adata)  # doctest: +SKIP
    >>> sn.tl.call(adata)  # doctest: +SKIP
    >>> adata.obs["phenotype_source"].value_counts()  # doctest: +SKIP
    """
    from senoscore import citeseq
    from senoscore.inputs import read_input
    from senoscore.protein import read_antibodies

    if lineage_key not in adata.obs:
        raise InputDataError(f"obs has no '{lineage_key}': run senoscore.pp.lineages(adata) first")
    overrides = {"sample": sample_key, "protein": None if source is None else str(source)}
    data = read_input(adata, overrides={k: v for k, v in overrides.items() if v is not None})
    panel = citeseq.read_panel(adata, data)
    if panel is None:
        raise InputDataError(
            "no antibodies were found in obsm or among the genes; name a MuData file (source=) or "
            "write them to obsm as a table"
        )
    lineage = _texts(adata.obs[lineage_key])
    use = np.ones(adata.n_obs, bool)
    if keys.OBS_QC_PASS in adata.obs:
        use = adata.obs[keys.OBS_QC_PASS].to_numpy(bool)
    evidence = citeseq.assess(
        panel, lineage=lineage, use=use, sample=data.column("sample"), setting="auto"
    )
    scored = keys.OBSM_PADJ in adata.obsm
    tables = _tables(adata) if scored else None
    genes = [str(g) for g in dict.fromkeys(read_antibodies()["gene"])]
    audited = citeseq.audit(
        evidence, rna=citeseq.read_genes(adata, data, genes), lineage=lineage, use=use, tables=tables,
        t_state=_verdicts(adata, CallSettings(protein="ignore"))[keys.OBS_T_STATE] if scored else None,
    )  # fmt: skip
    target = written_to(adata, copy=copy)
    for key, frame in citeseq.keep(evidence, adata.obs_names).items():
        target.obsm[key] = frame
    target.uns.setdefault(keys.UNS, {})["protein"] = citeseq.tell(evidence, audited)
    return target if copy else None


def burden(
    adata: AnnData,
    *,
    donor_key: str | None = None,
    min_cells: int = BurdenSettings.min_cells,
    confidence: float = BurdenSettings.confidence,
) -> pd.DataFrame:
    """Per donor and lineage: cells, mean senescence z, shares called, each with its interval.

    Parameters
    ----------
    adata
        Called cells (`tl.call`), or the score-space AnnData of `senoscore.analyse`.
    donor_key
        obs column that names donors; None pools all cells.
    min_cells
        A donor × lineage with fewer cells keeps its counts and has no means or shares.
    confidence
        Of the intervals (0-1).

    Returns
    -------
    DataFrame, see `senoscore.donors.burden_table`.

    Raises
    ------
    InputDataError
        Cells are not called yet, or `donor_key` is not a column.
    """
    from senoscore import donors

    if keys.OBS_SENESCENCE_CALL not in adata.obs:
        raise InputDataError("obs has no 'senescence_call': run senoscore.tl.call(adata) first")
    if donor_key is not None and donor_key not in adata.obs:
        raise InputDataError(
            f"obs has no column '{donor_key}'; it has {', '.join(map(str, adata.obs.columns))}"
        )
    z, pvalue = scores_df(adata, "z"), scores_df(adata, "pvalue")
    obs = adata.obs
    absent = {keys.OBS_QC_PASS: True, keys.OBS_T_SUBSET: ""}
    obs = obs.assign(**{name: value for name, value in absent.items() if name not in obs})
    column = adata.obs[donor_key] if donor_key is not None else None
    return donors.burden_table(
        obs,
        z,
        pvalue,
        donor=donors.donor_names(column, adata.n_obs),
        min_cells=min_cells,
        confidence=confidence,
    )


def compare(
    adata: AnnData | Mapping[str, AnnData],
    *,
    condition: str | None = None,
    age: str | None = None,
    donor_key: str | None = None,
    reference: str | None = None,
    covariates: Sequence[str] = (),
    subset_key: str | None = None,
    batch_keys: Sequence[str] | None = None,
    signatures: str | Sequence[str] | None = None,
    min_cells: int = BurdenSettings.min_cells,
    min_donors: int = 3,
    confidence: float = BurdenSettings.confidence,
) -> pd.DataFrame:
    """What differs between conditions or with age, with donors as the replicates.

    For each lineage and signature a donor's mean z is split into shift per cell (the donor's
    subset means, averaged with the same subset weights for all donors) and composition (its
    subset shares times the same subset levels), and each is fitted with the condition, age and
    covariates: weighted least squares, ``weight = 1 / (variance between donors + the donor's
    sampling variance)``, the former at least the median of the latter, CR2 standard errors and
    Satterthwaite degrees of freedom (`senoscore.models`). Shares of called cells and of subsets
    are fitted as overdispersed binomials. Where most donors were seen in several conditions they are
    their own controls (fixed effects of donors).

    *How to read it*: ``effect`` in ``per_cell`` is by how many z the average cell of a fixed mix of
    subsets differs; an effect in ``composition`` alone says that there are other cells, not that
    cells changed. A p-value from few donors needs a large effect; read the interval first. Subsets
    are coarse (CD4, CD8, Treg, innate-like): with `subset_key` a finer annotation can be held
    fixed, without it loss of naive cells with age shows as a shift per cell.

    Parameters
    ----------
    adata
        Called cells (`tl.call`), or the score-space AnnData of `senoscore.analyse`; or several of
        those by name, which are pooled with the data set as a covariate.
    condition
        obs column with groups.
    age
        obs column of ages: numbers, "65-year-old stage", HsapDv or MmusDv terms, … (`senoscore.ages`).
    donor_key
        obs column that names donors; None takes the one that inspection found.
    reference
        The condition others are compared with; None takes the one named like a control (healthy,
        normal, unstimulated, …), else the first.
    covariates
        obs columns to adjust for. Text is a grouping, numbers are a slope (averaged over a
        donor's cells), ages in words are years; ``"C(batch)"`` makes numbers a grouping.
    subset_key
        obs column of the subsets that are kept apart; None takes ``t_subset`` in T cells and
        ``lineage_subset`` elsewhere.
    batch_keys
        obs columns checked for coinciding with the condition; None takes those named like
        batches (assay, batch, dataset, …), () none.
    signatures
        Some of the signatures; None all.
    min_cells
        A donor with fewer cells of a lineage is left out of it.
    min_donors
        Donors each group needs, at least 3.
    confidence
        Of the intervals (0-1).

    Returns
    -------
    DataFrame, one row per term (and level), lineage, measure and name:

    ``term``, ``level``, ``reference``
        What is compared: a level of the condition with the reference, or age per 10 years (per
        year where all are younger than 10).
    ``lineage``, ``measure``, ``name``
        ``per_cell``, ``composition`` and ``mean`` of a signature; ``fraction_called`` of a call
        (senescent; in T cells exhausted, both of these with the cells that are ``both``, and
        senescent_like); ``fraction_subset`` of a subset. ``all`` for a lineage that cannot be
        tested.
    ``effect``, ``effect_low``, ``effect_high``, ``unit``
        Difference with its interval, in z or log2 odds ratio; NaN where ``note`` says why.
    ``pvalue``, ``padj``
        Two-sided (0-1); Benjamini-Hochberg over lineages × names of the same term, level, measure.
    ``se``, ``df``
        Standard error and degrees of freedom.
    ``n_donors_reference``, ``n_donors``, ``n_cells``, ``value_reference``, ``value``
        Donors in the reference and in the level (or all, for age), their cells, plain means over
        donors of the value or share.
    ``log2_depth_ratio``
        Mean log2 counts per cell, level less reference: scores rise with depth.
    ``model``, ``design``, ``note``
        What was fitted; ``paired``, ``between donors`` or ``clustered by donor``; what was left
        out, and why there is no number.

    Raises
    ------
    InputDataError
        Cells are not scored; a column does not exist; fewer than `min_donors` donors in a group;
        a condition that coincides with a batch or covariate, or as many coefficients as donors.

    Examples
    --------
    >>> import senoscore as sn
    >>> s = sn.analyse("cohort.h5ad")  # doctest: +SKIP
    >>> table = sn.tl.compare(s, condition="disease", covariates=["sex", "age"])  # doctest: +SKIP
    >>> table.query("measure == 'per_cell' and padj < 0.05")  # doctest: +SKIP
    """
    from senoscore import compare as comparing
    from senoscore import design, donors

    if min_donors < design.MIN_DONORS:
        raise InputDataError(
            f"min_donors is {min_donors}: fewer than {design.MIN_DONORS} donors a group cannot show "
            "how donors vary"
        )
    obs, z, names, more = _pooled_cells(adata, donor_key)
    if signatures is not None:
        wanted = [signatures] if isinstance(signatures, str) else list(signatures)
        missing = [name for name in wanted if name not in z]
        if missing:
            raise InputDataError(f"not scored here: {', '.join(missing)}")
        z = z[wanted]
    if subset_key is not None and subset_key not in obs:
        raise InputDataError(f"obs has no column '{subset_key}' of subsets")
    passed = np.ones(len(obs), bool)
    if keys.OBS_QC_PASS in obs:
        passed = obs[keys.OBS_QC_PASS].to_numpy(bool)
    design.warn_unread(obs, age)
    plan = design.make_plan(
        obs,
        donor=donors.donor_names(names, len(obs)),
        keep=passed & obs[keys.OBS_LINEAGE].notna().to_numpy(),
        condition=condition,
        age=age,
        reference=reference,
        covariates=[*covariates, *more],
        batch_keys=batch_keys,
        min_donors=min_donors,
    )
    return comparing.compare_cells(
        obs,
        z,
        plan,
        min_cells=min_cells,
        confidence=confidence,
        min_donors=min_donors,
        subset_key=subset_key,
    )


def _pooled_cells(
    adata: AnnData | Mapping[str, AnnData], donor_key: str | None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series, list[str]]:
    """obs, z and donor of the cells of one or several data sets, and what tells these apart."""
    if not isinstance(adata, Mapping):
        obs = adata.obs
        if keys.OBS_LINEAGE not in obs:
            raise InputDataError("obs has no 'lineage': run senoscore.pp.lineages(adata) first")
        return obs, scores_df(adata, "z"), _donor_column(adata, donor_key), []
    from senoscore import donors

    frames, scores, names = [], [], []
    for dataset, one in adata.items():
        obs, z, donor, _ = _pooled_cells(one, donor_key)
        cells = pd.Index([f"{dataset}/{cell}" for cell in obs.index])
        frames.append(
            obs.astype(dict.fromkeys(obs.columns[obs.dtypes == "category"], object))
            .assign(data_set=dataset)
            .set_axis(cells)
        )
        scores.append(z.set_axis(cells))
        known = donors.donor_names(donor, len(obs))
        named = [f"{dataset}/{name}" if name else None for name in known]
        names.append(pd.Series(named, index=cells, dtype=object))
    pooled = pd.concat(frames)
    return pooled, pd.concat(scores), pd.concat(names), ["data_set"] if len(frames) > 1 else []


def _donor_column(adata: AnnData, donor_key: str | None) -> pd.Series:
    if donor_key is None:
        stored = adata.uns.get(keys.UNS, {}).get("facts")
        if isinstance(stored, str):
            donor_key = json.loads(stored)["donor"]["value"]
        else:
            from senoscore.inspect import inspect_file

            donor_key = inspect_file(adata).donor.value
    if donor_key is None:
        raise InputDataError(
            "no donor column was found: name it (donor_key=). Without donors there are no replicates: "
            "cells of one person are not independent"
        )
    if donor_key not in adata.obs:
        raise InputDataError(
            f"obs has no column '{donor_key}'; it has {', '.join(map(str, adata.obs.columns))}"
        )
    return adata.obs[donor_key]


def explain(
    adata: AnnData | str | Path,
    *,
    cells: str | Sequence[str] | None = None,
    state: str | None = None,
    donor: str | None = None,
    lineage: str | None = None,
    signature: str | None = None,
    signatures: Any = None,
    donor_key: str | None = None,
    source: str | Path | AnnData | None = None,
    settings: CallSettings | None = None,
    max_cells: int = 200,
    threads: int = 1,
) -> Explanation:
    """Which genes make a cell's score, and whether its call stands without each of them.

    A score is the sum of its genes' contributions ``sign·w·(x - mean of the controls)``, exactly.
    Each gene is then left out of every signature and, with its controls, out of the null; z, p and
    call are made anew. Held fixed: the draw of controls, the depth strata, the run's relation
    between p and adjusted p, and power (see `senoscore.explain`). *How to read it*: a state whose
    cells lose their call without one gene rests on that gene.

    Parameters
    ----------
    adata
        A folder of results (``results/<dataset>``), or an AnnData after `tl.score`.
    cells
        Names of cells; or give `state` or `donor`.
    state
        T-cell state (``"exhausted"``); with `lineage`, a senescence call of that lineage.
    donor
        All subsets of this donor.
    lineage
        Lineage of `state` (default: T), or the only one wanted of `donor`.
    signature
        Only this signature; None takes all that can change a call.
    signatures
        For an AnnData scored with signatures of your own: what `tl.score` was given.
    donor_key
        For an AnnData: obs column that names donors; None takes the one that inspection finds.
    source
        For a folder: where the data set is, if no longer where the run found it.
    settings
        For an AnnData: None takes what `tl.call` was given.
    max_cells
        Cells of a state or of a donor's subset that are looked at, chosen by a hash of their names.
    threads
        Threads that read.

    Returns
    -------
    `senoscore.explain.Explanation`: tables ``scores``, ``contributions``, ``removals``,
    ``stability``, ``genes``, ``groups``; ``print(e.describe())`` for people; `pl.explain` draws it.

    Raises
    ------
    InputDataError
        Nothing to explain there, no such cells, or data that changed since they were scored.

    Examples
    --------
    >>> e = sn.tl.explain("results/tumour", state="exhausted")  # doctest: +SKIP
    >>> print(e.describe())  # doctest: +SKIP
    """
    from senoscore import explain as explaining
    from senoscore.pipeline import reopen

    if isinstance(adata, (str, Path)):
        judged = reopen(adata, source=source, signature=signature, threads=threads)
    else:
        judged = explaining.judge_adata(
            adata, signatures=signatures, signature=signature,
            donor=None if donor is None else _donor_column(adata, donor_key), settings=settings,
            threads=threads,
        )  # fmt: skip
    groups = explaining.choose_cells(judged, cells=cells, state=state, donor=donor, lineage=lineage)
    return explaining.explain_cells(judged, groups, signature=signature, max_cells=max_cells)


def freeze(
    adata: AnnData | str | Path,
    path: str | Path,
    *,
    source: str | Path | AnnData | None = None,
    signatures: Any = None,
    settings: CallSettings | None = None,
    threads: int = 1,
) -> Reference:
    """Keep what these cells were compared with, so that other data sets can be scored by it.

    The file holds, per lineage, the control genes of every signature gene, the null sets, their
    centres, the pooled null at each depth, and the relation between p and adjusted p.
    ``tl.score(other, reference=path)`` or the setting ``score.reference`` uses it: each cell's
    numbers then depend on that cell and the file alone, and cells of different data sets can be
    compared. *How to read it*: what is called at FDR 0.05 is what would have been called in the
    reference; look at ``transfer`` (see `senoscore.reference`) for whether its null holds elsewhere.

    Parameters
    ----------
    adata
        A folder of results (``results/<dataset>``), or an AnnData after `tl.score`.
    path
        The ``.npz`` file to write.
    source
        For a folder: where the data set is, if no longer where the run found it.
    signatures
        For an AnnData scored with signatures of your own: what `tl.score` was given.
    settings
        For an AnnData: None takes what `tl.call` was given.
    threads
        Threads that read.

    Returns
    -------
    `senoscore.reference.Reference`; ``.summary()`` is a table of what it holds. Written to `path`:
    the same bytes for the same run.

    Raises
    ------
    InputDataError
        There is no finished run, it cannot be frozen, or the data have changed since.

    Examples
    --------
    >>> sn.tl.freeze("results/healthy", "healthy.npz")  # doctest: +SKIP
    >>> sn.tl.score(adata, reference="healthy.npz")  # doctest: +SKIP
    """
    from senoscore import pipeline
    from senoscore.freeze import freeze_adata

    if isinstance(adata, (str, Path)):
        made = pipeline.freeze(adata, source=source, threads=threads)
    else:
        made = freeze_adata(adata, signatures=signatures, settings=settings, threads=threads)
    made.write(path)
    return made


def scores_df(
    adata: AnnData,
    what: Literal["score", "z", "pvalue", "padj"] = "z",
    *,
    signatures: str | list[str] | None = None,
) -> pd.DataFrame:
    """Scores as a table, from an AnnData scored in place or one in score space.

    Parameters
    ----------
    adata
        After `tl.score`, or from `senoscore.analyse`.
    what
        Which numbers.
    signatures
        Some of the signatures; None all.

    Returns
    -------
    DataFrame, cells × signatures.
    """
    key = f"senoscore_{what}"
    if key in adata.obsm:
        frame = adata.obsm[key]
    elif keys.in_score_space(adata) and (what == "z" or what in adata.layers):
        frame = adata.to_df(layer=None if what == "z" else what)
    else:
        how = "" if what == "score" else " with method='matched'"
        raise InputDataError(f"no {what} here: run senoscore.tl.score(adata){how} first")
    if signatures is None:
        return frame.copy()
    wanted = [signatures] if isinstance(signatures, str) else list(signatures)
    missing = [name for name in wanted if name not in frame]
    if missing:
        raise InputDataError(
            f"not scored here: {', '.join(missing)}; there are {', '.join(map(str, frame.columns))}"
        )
    return frame[wanted].copy()


def t_cells(adata: AnnData, state: str | None = None) -> pd.DataFrame:
    """The T cells with state, rule, substate and axes; those of one state if asked.

    Parameters
    ----------
    adata
        After `tl.call`, or from `senoscore.analyse`.
    state
        One of the seven states; ``"exhausted"`` and ``"senescent"`` include ``both``.

    Returns
    -------
    DataFrame indexed by cell.
    """
    if keys.OBS_T_STATE not in adata.obs:
        raise InputDataError("obs has no 't_state': run senoscore.tl.call(adata) first")
    if state is not None and state not in keys.T_STATES:
        raise InputDataError(f"'{state}' is no state; there are {', '.join(keys.T_STATES)}")
    columns = [
        c
        for c in (keys.OBS_T_STATE, keys.OBS_T_STATE_RULE, "t_substate", keys.OBS_T_SUBSET)
        if c in adata.obs
    ]
    # side by side, not joined by name: cells of several samples may share theirs
    frame = pd.concat([adata.obs[columns], adata.obsm[keys.OBSM_T_AXES]], axis=1)
    frame = frame[frame[keys.OBS_T_STATE].notna()]
    if state is None:
        return frame
    wanted = [state, "both"] if state in ("exhausted", "senescent") else [state]
    return frame[frame[keys.OBS_T_STATE].isin(wanted)]


# --------------------------------------------------------------------------------------------


def _texts(column: pd.Series) -> NDArray[np.object_]:
    return np.asarray(column.astype(object), dtype=object)


def _tables(adata: AnnData) -> Any:
    from senoscore.calling import Tables

    if keys.OBSM_PADJ not in adata.obsm:
        raise InputDataError(
            "no calibrated scores: run senoscore.tl.score(adata) with method='matched' first"
        )
    if keys.OBS_LINEAGE not in adata.obs:
        raise InputDataError("obs has no 'lineage': run senoscore.pp.lineages(adata) first")
    return Tables(adata.obsm[keys.OBSM_Z], adata.obsm[keys.OBSM_PVALUE], adata.obsm[keys.OBSM_PADJ])


def _adjust(adata: AnnData) -> Any:
    """How p-values among candidates are adjusted: among themselves, or as in the reference."""
    from senoscore.adjust import Frozen, adjust_among
    from senoscore.reference import steps_from

    told = adata.uns.get(keys.UNS, {}).get("reference")
    return adjust_among if told is None else Frozen(steps_from(told["steps"]))


def _verdicts(adata: AnnData, settings: CallSettings) -> pd.DataFrame:
    from senoscore import calling, citeseq
    from senoscore.explain import cell_facts

    tables = _tables(adata)
    arm = citeseq.used_arm(adata, settings)
    calls = calling.verdicts(
        tables if arm is None else citeseq.with_arm(tables, arm),
        cell_facts(adata, _texts(adata.obs[keys.OBS_LINEAGE])),
        adata.obsm.get(keys.OBSM_POWERED, pd.DataFrame(index=adata.obs_names)),
        settings=settings,
        adjust=_adjust(adata),
    )
    if keys.OBSM_PROTEIN_ARM not in adata.obsm:
        return calls
    is_t = calling.among(adata.obs[keys.OBS_LINEAGE], "T")
    by_protein = is_t & False if arm is None else arm["padj"].notna().to_numpy()
    return citeseq.told(calls, is_t, by_protein)


def _write(target: AnnData, adata: AnnData, calls: pd.DataFrame, settings: CallSettings) -> None:
    from senoscore import calling

    for column in calls:
        target.obs[column] = calls[column].array
    is_t = calling.among(adata.obs[keys.OBS_LINEAGE], "T")
    target.obsm[keys.OBSM_T_AXES] = calling.t_axes(_tables(adata), is_t)
    told = target.uns.setdefault(keys.UNS, {})
    told["rule"] = calling.rule_text(settings)
    told["settings"] = json.dumps({"call": asdict(settings)}, sort_keys=True)

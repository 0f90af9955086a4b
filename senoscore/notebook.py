"""The library as notebooks see it: functions that take an AnnData and write named fields.

Thin: each reads fields, calls functions on arrays, writes fields. Re-exported by `senoscore.pp`,
`senoscore.tl` and `senoscore.get`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from senoscore import keys
from senoscore.errors import InputDataError
from senoscore.settings import AnnotateSettings, BurdenSettings, CallSettings, QcSettings

if TYPE_CHECKING:
    from anndata import AnnData

    from senoscore.inspect import Facts


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

    target = adata.copy() if copy else adata
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

    target = adata.copy() if copy else adata
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
    ``doublet_mixed_lineage`` and ``t_subset`` where present.

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
    ``senescence_call``, ``senescence_rule``; obsm ``t_axes`` (z of the six axes, NaN outside T).
    """
    target = adata.copy() if copy else adata
    states = _states(adata, settings or CallSettings())
    senescence = _senescence(adata, states[keys.OBS_T_STATE], settings or CallSettings())
    _write_t(target, adata, states)
    for column in senescence:
        target.obs[column] = senescence[column].array
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
    None, or the copy. Written: obs ``t_state``, ``t_state_rule``, ``t_substate``; obsm ``t_axes``.
    """
    target = adata.copy() if copy else adata
    _write_t(target, adata, _states(adata, settings or CallSettings()))
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
    z = adata.obsm[keys.OBSM_Z] if keys.OBSM_Z in adata.obsm else adata.to_df()
    obs = adata.obs
    if keys.OBS_QC_PASS not in obs:
        obs = obs.assign(**{keys.OBS_QC_PASS: True})
    column = adata.obs[donor_key] if donor_key is not None else None
    return donors.burden_table(
        obs,
        z,
        donor=donors.donor_names(column, adata.n_obs),
        min_cells=min_cells,
        confidence=confidence,
    )


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
    elif what == "z" and keys.UNS in adata.uns:
        frame = adata.to_df()
    elif what in adata.layers:
        frame = adata.to_df(layer=what)
    else:
        raise InputDataError(f"no {what} here: run senoscore.tl.score(adata) first")
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
    frame = adata.obs[columns].join(adata.obsm[keys.OBSM_T_AXES])
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


def _cells(adata: AnnData) -> dict[str, Any]:
    n = adata.n_obs

    def flag(key: str, *, default: bool) -> NDArray[np.bool_]:
        if key not in adata.obs:
            return np.full(n, default)
        return adata.obs[key].to_numpy(bool)

    return {
        "lineage": _texts(adata.obs[keys.OBS_LINEAGE]),
        "qc_pass": flag(keys.OBS_QC_PASS, default=True),
        "doublet": flag("doublet_mixed_lineage", default=False),
    }


def _powered(adata: AnnData, signatures: tuple[str, ...]) -> NDArray[np.bool_]:
    table = adata.obsm.get(keys.OBSM_POWERED)
    named = [s for s in signatures if table is not None and s in table]
    if table is None or not named:
        return np.zeros(adata.n_obs, bool)
    return np.asarray(table[named].to_numpy(bool).all(axis=1))


def _states(adata: AnnData, settings: CallSettings) -> pd.DataFrame:
    from senoscore import calling

    tables = _tables(adata)
    subset = (
        _texts(adata.obs[keys.OBS_T_SUBSET])
        if keys.OBS_T_SUBSET in adata.obs
        else np.full(adata.n_obs, None, dtype=object)
    )
    return calling.t_states(
        tables,
        t_subset=subset,
        powered={
            "exhaustion": _powered(adata, calling.AXIS_SIGNATURES["exhaustion"]),
            "senescence": _powered(adata, calling.AXIS_SIGNATURES["senescence"]),
        },
        settings=settings,
        **_cells(adata),
    )


def _senescence(adata: AnnData, t_state: pd.Series, settings: CallSettings) -> pd.DataFrame:
    from senoscore import calling

    cells = _cells(adata)
    powered = np.zeros(adata.n_obs, bool)
    for name, signature in calling.OTHER_LINEAGES.items():
        powered |= (cells["lineage"] == name) & _powered(adata, (signature,))
    return calling.senescence_calls(
        _tables(adata), t_state=t_state, powered=powered, settings=settings, **cells
    )


def _write_t(target: AnnData, adata: AnnData, states: pd.DataFrame) -> None:
    from senoscore import calling

    is_t = _texts(adata.obs[keys.OBS_LINEAGE]) == "T"
    for column in states:
        target.obs[column] = states[column].array
    target.obsm[keys.OBSM_T_AXES] = calling.t_axes(_tables(adata), is_t)

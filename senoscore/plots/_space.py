"""What pictures ask of the AnnData in score space, or of one that `tl.score` wrote to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from senoscore import keys
from senoscore.errors import InputDataError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray


def facts_of(s: AnnData) -> dict[str, Any]:
    """The facts of inspection stored with the scores; empty where they are not."""
    return _stored_json(s, "facts")


def settings_of(s: AnnData) -> dict[str, Any]:
    """The settings stored with the scores; empty where they are not."""
    return _stored_json(s, "settings")


def _stored_json(s: AnnData, name: str) -> dict[str, Any]:
    value = s.uns.get(keys.UNS, {}).get(name)
    if isinstance(value, str):
        value = json.loads(value)
    return dict(value) if isinstance(value, Mapping) else {}


def fact(s: AnnData, name: str) -> Any:
    """The value of one fact, None where unknown."""
    found = facts_of(s).get(name)
    return found.get("value") if isinstance(found, Mapping) else found


def has_counts(s: AnnData) -> bool:
    """Whether expression was read from counts (also where facts are not stored)."""
    return fact(s, "scale") in (None, "counts", "fractional_counts")


def fdr_of(s: AnnData) -> float:
    """The false-discovery rate at which scores were called."""
    from senoscore.settings import CallSettings

    return float(settings_of(s).get("call", {}).get("fdr", CallSettings().fdr))


def obs_column(s: AnnData, name: str, what: str) -> pd.Series:
    if name not in s.obs:
        near = ", ".join(str(c) for c in list(s.obs.columns)[:12])
        raise InputDataError(f"{what}: obs has no column {name!r}; it has {near}")
    return s.obs[name]


def group_labels(s: AnnData, name: str | None) -> tuple[NDArray[np.int64], list[str]]:
    """Codes (-1 is missing) and names of a grouping column, in the order of its categories.

    None as name puts all cells into one group.
    """
    import pandas as pd

    if name is None:
        return np.zeros(s.n_obs, np.int64), ["all cells"]
    column = obs_column(s, name, "groupby")
    if not isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype("category")
    column = column.cat.remove_unused_categories()
    return column.cat.codes.to_numpy(np.int64), [str(c) for c in column.cat.categories]


def group_key(s: AnnData, groupby: str | None, *facts: str) -> str | None:
    """The asked-for column, else the first of the named facts that is a column of obs."""
    if groupby is not None:
        obs_column(s, groupby, "groupby")
        return groupby
    for name in facts:
        value = fact(s, name)
        if isinstance(value, str) and value in s.obs:
            return value
    return None


def largest_groups(counts: NDArray[np.int64], limit: int) -> tuple[list[int], list[int]]:
    """Groups to draw, in their own order, and the groups too small to get a row."""
    if len(counts) <= limit:
        return list(range(len(counts))), []
    by_size = np.argsort(-counts, kind="stable")
    return sorted(int(i) for i in by_size[:limit]), [int(i) for i in by_size[limit:]]


def signature_table(s: AnnData) -> pd.DataFrame:
    """A row per signature: what was found of it, and why it is not scored."""
    if keys.in_score_space(s):
        return s.var
    told: pd.DataFrame | None = s.uns.get(keys.UNS, {}).get("signatures")
    if told is None:
        raise InputDataError("no scores here: run senoscore.tl.score(adata) first")
    return told


def _row(s: AnnData, signature: str) -> pd.Series:
    table = signature_table(s)
    if signature not in table.index:
        known = ", ".join(str(v) for v in table.index[:8])
        raise InputDataError(f"no signature {signature!r} among the scores; there are {known}, …")
    return table.loc[signature]


def column_of(matrix: Any, position: int) -> NDArray[np.float64]:
    """One column of a matrix as float64, NaN kept."""
    values = matrix[:, [position]]
    if hasattr(values, "toarray"):
        values = values.toarray()
    return np.asarray(values, dtype=np.float64).ravel()


def _scores(s: AnnData, signature: str, obsm: str, layer: str | None) -> NDArray[np.float64] | None:
    _row(s, signature)
    if obsm in s.obsm:
        return np.asarray(s.obsm[obsm][signature], dtype=np.float64)
    if not keys.in_score_space(s) or (layer is not None and layer not in s.layers):
        return None
    return column_of(s.layers[layer] if layer else s.X, int(s.var_names.get_loc(signature)))


def z_of(s: AnnData, signature: str) -> NDArray[np.float64]:
    """z of one signature, NaN where it is not scored."""
    z = _scores(s, signature, keys.OBSM_Z, None)
    if z is None:
        raise InputDataError("no z here: run senoscore.tl.score(adata) with method='matched' first")
    return z


def padj_of(s: AnnData, signature: str) -> NDArray[np.float64] | None:
    """Adjusted p of one signature, None where the method gives no p-values."""
    return _scores(s, signature, keys.OBSM_PADJ, keys.LAYER_PADJ)


def fact_of_signature(s: AnnData, name: str, column: str) -> str:
    import pandas as pd

    value = _row(s, name).get(column)
    return "" if pd.isna(value) else str(value)


def embedding_key(s: AnnData, basis: str | None = None) -> str | None:
    """Key of the embedding to draw: the asked-for one, else a UMAP, a t-SNE, any in two columns."""
    usable = [
        str(k)
        for k in s.obsm
        if k != keys.OBSM_T_AXES and np.ndim(s.obsm[k]) == 2 and np.shape(s.obsm[k])[1] >= 2
    ]
    if basis is not None:
        for name in (basis, f"X_{basis}"):
            if name in usable:
                return name
        raise InputDataError(
            f"no embedding {basis!r} in obsm; there are {', '.join(usable) or 'none'}"
        )
    for word in ("umap", "tsne"):
        for name in usable:
            if word in name.lower().replace("-", "").replace("_", ""):
                return name
    flat = [k for k in usable if np.shape(s.obsm[k])[1] == 2]
    return flat[0] if flat else None


def axis_level(s: AnnData, axis: str) -> float | None:
    """Smallest z of a T cell that is significant on this axis; None where no cell is."""
    from senoscore.calling import AXIS_SIGNATURES

    name = AXIS_SIGNATURES[axis][0]
    if name not in signature_table(s).index or keys.OBS_LINEAGE not in s.obs:
        return None
    z, padj = z_of(s, name), padj_of(s, name)
    if padj is None:
        return None
    called = (s.obs[keys.OBS_LINEAGE].astype(str).to_numpy() == "T") & (padj <= fdr_of(s))
    return float(z[called].min()) if called.any() else None

"""One data set as later stages see it: its facts, which matrix, which genes, its annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from senoscore._columns import FrameTable
from senoscore.errors import InputDataError
from senoscore.genes import ANTIBODY_PREFIX, FILTERED_PREFIX, GeneIndex, resolve_genes
from senoscore.inspect import Facts, antibody_columns, inspect_file

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Input:
    """What was found in a file or an AnnData, without its matrix.

    matrix: key of the matrix to read (``X``, ``raw.X``, ``layers/NAME``). scale: what it holds,
    one of `inspect.SCALES`.
    """

    facts: Facts
    matrix: str
    scale: str
    genes: GeneIndex
    obs: pd.DataFrame
    obsm: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def has_counts(self) -> bool:
        """Whether the matrix holds counts, whole or fractional."""
        return self.scale in ("counts", "fractional_counts")

    def column(self, fact: str) -> pd.Series | None:
        """The obs column that a fact names, or None."""
        key = getattr(self.facts, fact).value
        return None if key is None else self.obs[key]


def read_input(
    source: str | Path | AnnData,
    *,
    overrides: Mapping[str, Any] | None = None,
    layer: str | None = None,
    facts: Facts | None = None,
) -> Input:
    """Facts, genes and annotations of a file or an AnnData; the matrix stays where it is.

    Parameters
    ----------
    source
        Path of an h5ad file or zarr store, or an AnnData.
    overrides
        Facts the user knows better.
    layer
        Layer to use instead of what the facts choose.
    facts
        Facts found earlier; None inspects now.

    Raises
    ------
    InputDataError
        Nothing in the file can be scored, or the layer does not exist.
    """
    if facts is None:
        facts = inspect_file(source, overrides=overrides)
    if isinstance(source, (str, Path)):
        obs, var, obsm = _read_annotations(Path(source), facts)
    else:
        obs, obsm = source.obs, {k: source.obsm[k] for k in facts.embeddings.value or []}
        raw = facts.matrix == "raw.X" and source.raw is not None
        var = source.raw.var if raw else source.var
    matrix = facts.matrix
    scale = facts.scale.value
    if layer is not None:
        matrix, scale = _layer(source, layer)
        if not isinstance(source, (str, Path)):
            var = source.var
    if matrix is None:
        raise InputDataError(
            f"{facts.path or 'the AnnData'}: no matrix of counts or logged values was found; "
            "name one (config: dataset.counts)"
        )
    names_key = facts.gene_names.value
    by_index = names_key in (None, "index") or names_key not in var
    features = None
    for column in ("feature_name", "gene_symbols", "gene_symbol", "gene_name", "gene_names"):
        if column in var:
            features = var[column].astype(str).tolist()
            break
    names = var.index.astype(str).tolist()
    if not by_index and features is None:
        features = var[names_key].astype(str).tolist()
    # an antibody may have the name of its gene: it must not be added to the RNA
    taken = dict.fromkeys(antibody_columns(FrameTable(var))[0], ANTIBODY_PREFIX)
    if matrix == "X" and "feature_is_filtered" in var:
        # zero in X by the authors' choice: not measured, and neither found nor a control
        filtered = var["feature_is_filtered"].astype(str).str.lower() == "true"
        taken = dict.fromkeys(np.flatnonzero(filtered).tolist(), FILTERED_PREFIX) | taken
    if taken:
        names = [f"{taken.get(k, '')}{name}" for k, name in enumerate(names)]
        if features is not None:
            features = [names[k] if k in taken else n for k, n in enumerate(features)]
    genes = resolve_genes(names, feature_names=features, organism=facts.organism.value)
    return Input(facts, matrix, scale, genes, obs, obsm)


def _layer(source: str | Path | AnnData, layer: str) -> tuple[str, str]:
    """Key and scale of a layer the user asked for."""
    if isinstance(source, (str, Path)):
        key = layer if layer in ("X", "raw.X") else f"layers/{layer.removeprefix('layers/')}"
        facts = inspect_file(source, overrides={"expression": key})
        return key, str(facts.scale.value)
    from anndata import AnnData

    if layer not in source.layers:
        raise InputDataError(
            f"adata has no layer '{layer}'; it has "
            f"{', '.join(source.layers) or 'none'}: name one of these, or pass layer=None"
        )
    shell = AnnData(
        X=source.layers[layer],
        obs=pd.DataFrame(index=source.obs_names),
        var=pd.DataFrame(index=source.var_names),
    )
    return f"layers/{layer}", str(inspect_file(shell).scale.value)


def _read_annotations(
    path: Path, facts: Facts
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, np.ndarray]]:
    """obs, the var of the chosen matrix, and the embeddings of a file."""
    import warnings

    from anndata.io import read_elem

    from senoscore.inspect import open_store

    with open_store(path) as root, warnings.catch_warnings():
        # files of old releases say so on every element; what matters is in the facts' notes
        warnings.simplefilter("ignore")
        obs = read_frame(root, "obs", read_elem)
        raw = facts.matrix == "raw.X"
        var_key = "var"
        if raw:
            var_key = "raw/var" if "raw" in root and "var" in root["raw"] else "raw.var"
        var = read_frame(root, var_key, read_elem)
        obsm = {}
        for key in facts.embeddings.value or []:
            node = root["obsm"]
            value = read_elem(node[key]) if hasattr(node, "keys") else node[key][:]
            obsm[key] = np.asarray(value)
    return obs, var, obsm


def read_frame(root: Any, key: str, read_elem: Any) -> pd.DataFrame:
    """obs or var of a file of any age, with names as text."""
    try:
        frame = read_elem(root[key])
    except Exception as error:
        raise InputDataError(f"{key} cannot be read: {error}") from error
    if not isinstance(frame, pd.DataFrame):  # a compound array, as before anndata 0.7
        frame = pd.DataFrame.from_records(frame)
        index = next((c for c in ("index", "_index") if c in frame), frame.columns[0])
        frame = frame.set_index(index)
        frame.index = frame.index.map(lambda v: v.decode() if isinstance(v, bytes) else str(v))
    frame.index = frame.index.astype(str)
    frame.index.name = None
    return frame


def written_to(adata: AnnData, *, copy: bool) -> AnnData:
    """Where a function of `pp` and `tl` writes: `adata` itself, or a copy of it."""
    if copy and adata.isbacked:
        raise InputDataError(
            f"copy=True needs the cells in memory, but these are read from {adata.filename}: leave "
            "copy out (only obs, obsm and uns are written, and only in memory), or pass "
            "adata.to_memory()"
        )
    return adata.copy() if copy else adata

"""Scores averaged over a cell's neighbours: steadier to look at, and no ground for a p-value.

Neighbours were found from the same expression that is scored, so that their scores are not
independent: smoothed values have no null here, and no call is made of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import KDTree

from senoscore.errors import InputDataError

if TYPE_CHECKING:
    from anndata import AnnData

_UNIT = 2.0**20


def nearest(
    embedding: NDArray[np.floating], codes: NDArray[np.int64], n_neighbors: int
) -> sparse.csr_matrix:
    """The nearest cells of the same lineage (Euclidean, exact), cells × cells, 1 where near.

    Parameters
    ----------
    embedding
        Cells × dimensions; cells with a value that is not finite have no neighbours.
    codes
        Lineage of each cell, -1 for none.
    n_neighbors
        Neighbours of each cell, itself not counted.
    """
    n = len(codes)
    placed = np.isfinite(embedding).all(axis=1)
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for code in np.unique(codes[codes >= 0]):
        cells = np.flatnonzero((codes == code) & placed)
        k = min(n_neighbors + 1, len(cells))
        if k < 2:
            continue
        _, near = KDTree(embedding[cells]).query(embedding[cells], k=k)
        rows.append(np.repeat(cells, k))
        columns.append(cells[near.ravel()])
    at = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix((np.ones(len(at[0])), at), shape=(n, n))


def smooth(
    z: NDArray[np.floating], graph: sparse.spmatrix, codes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean of each cell's value and those of its neighbours of the same lineage.

    Parameters
    ----------
    z
        Cells × scores. A value that is NaN stays so, and is no one's neighbour.
    graph
        Cells × cells; what is not 0 is a neighbour, all count alike.
    codes
        Lineage of each cell, -1 for none.

    Returns
    -------
    Cells × scores, to 2**-20: sums are exact, whatever the order of cells.
    """
    edges = sparse.coo_matrix(graph)
    keep = (edges.data != 0) & (codes[edges.row] == codes[edges.col]) & (edges.row != edges.col)
    n = len(codes)
    own = np.arange(n)
    at = (np.append(edges.row[keep], own), np.append(edges.col[keep], own))
    near = sparse.csr_matrix((np.ones(len(at[0])), at), shape=(n, n))
    near.data[:] = 1.0  # an edge listed twice counts once
    known = np.isfinite(z)
    total = near @ np.where(known, np.rint(np.where(known, z, 0.0) * _UNIT), 0.0)
    count = near @ known.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, total / count / _UNIT, np.nan))


def read_neighbours(
    source: str | Path | AnnData, key: str, codes: NDArray[np.int64], n_neighbors: int
) -> sparse.csr_matrix:
    """Neighbours from a graph (``obsp/NAME``) or an embedding (``obsm/NAME``) of the data set.

    Raises
    ------
    InputDataError
        The data set has no such entry, or it is neither a graph nor an embedding of its cells.
    """
    value = _element(source, key)
    n = len(codes)
    if key.startswith("obsp/"):
        graph = sparse.csr_matrix(value)
        if graph.shape != (n, n):
            raise InputDataError(f"{key} is {graph.shape}, not {n} × {n} cells")
        return graph
    values = np.asarray(value.toarray() if sparse.issparse(value) else value, np.float64)
    if values.ndim != 2 or len(values) != n:
        raise InputDataError(f"{key} is {values.shape}, not {n} cells × dimensions")
    return nearest(values, codes, n_neighbors)


def _element(source: str | Path | AnnData, key: str) -> Any:
    part, _, name = key.partition("/")
    if part not in ("obsm", "obsp") or not name:
        raise InputDataError(
            f"call.smooth is {key!r}: name an embedding, 'obsm/X_pca', or a graph, 'obsp/connectivities'"
        )
    if not isinstance(source, (str, Path)):
        held = getattr(source, part)
        if name in held:
            return held[name]
        raise InputDataError(f"call.smooth: the AnnData has no {key}; {part} has {_list(held)}")
    from anndata.io import read_elem

    from senoscore.inspect import open_store

    with open_store(Path(source)) as root:
        held = root.get(part, {})
        if name in held:
            return read_elem(held[name])
        raise InputDataError(f"call.smooth: {source} has no {key}; {part} has {_list(held)}")


def _list(names: Any) -> str:
    return ", ".join(map(str, names)) or "nothing"


def smoothed_table(
    z: pd.DataFrame,
    source: str | Path | AnnData,
    key: str,
    codes: NDArray[np.int64],
    n_neighbors: int,
) -> pd.DataFrame:
    """`smooth` of a table of z, by the neighbours that `key` names."""
    graph = read_neighbours(source, key, codes, n_neighbors)
    return pd.DataFrame(smooth(z.to_numpy(), graph, codes), index=z.index, columns=z.columns)

"""Clusters for files that bring none, so that markers can be read from many cells at a time.

Principal components of the variable genes, exact nearest neighbours, a graph of shared neighbours,
Leiden. Cells beyond a limit are given to the nearest cluster. Sums and communities depend on the order
of cells, so they are taken in an order of their own (`order_of`), and so are the cells of a large file
that choose the genes. Nothing random is drawn outside igraph's own generator, which is seeded and then
handed back.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
import pandas as pd

from senoscore.errors import InputDataError
from senoscore.lineages import marker_genes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray
    from scipy import sparse

    from senoscore.genes import GeneIndex
    from senoscore.io.blocks import CsrBlock, RowBlocks

N_VARIABLE: Final = 2000
N_COMPONENTS: Final = 30
N_NEIGHBOURS: Final = 15
MAX_GRAPH: Final = 20_000
"""Cells in the neighbour graph; the others join the nearest cluster."""
MAX_CHOOSING: Final = 20_000
"""Cells among which the variable genes are looked for: the first in their own order."""


class Matrix(Protocol):
    """What is needed of a data set: its matrix, what that holds, and its genes."""

    @property
    def matrix(self) -> str: ...
    @property
    def scale(self) -> str: ...
    @property
    def genes(self) -> GeneIndex: ...


class Variable(NamedTuple):
    """Expression of the variable genes in every cell."""

    matrix: sparse.csr_matrix
    """Cells x genes, log1p(CP10k) or logged as stored."""
    genes: NDArray[np.int64]
    """Positions of the genes in the file's gene index."""


def choose_variable(
    expression: sparse.csr_matrix, *, barred: NDArray[np.bool_] | None = None, n: int = N_VARIABLE
) -> NDArray[np.int64]:
    """Genes that vary more than others of the same mean.

    Dispersion (variance over mean of logged expression) is compared with that of genes of like
    mean, in twenty bins of equal size, by median and median absolute deviation.

    Parameters
    ----------
    expression
        Cells x genes, logged.
    barred
        Genes that may not be chosen (clonal receptors, which split one cell type into clones).
    n
        How many genes.

    Returns
    -------
    Columns of the chosen genes, ascending.
    """
    n_cells = max(expression.shape[0], 1)
    mean = np.asarray(expression.sum(axis=0)).ravel() / n_cells
    square = np.asarray(expression.multiply(expression).sum(axis=0)).ravel() / n_cells
    variance = square - mean**2
    detected = np.diff(expression.tocsc().indptr)
    usable = (mean > 0) & (detected >= max(3, n_cells // 1000))
    if barred is not None:
        usable &= ~barred
    genes = np.flatnonzero(usable)
    if len(genes) <= n:
        return genes
    dispersion = variance[genes] / mean[genes]
    order = np.argsort(mean[genes], kind="stable")
    excess = np.empty(len(genes))
    for part in np.array_split(order, 20):
        middle = np.median(dispersion[part])
        spread = np.median(np.abs(dispersion[part] - middle))
        excess[part] = (dispersion[part] - middle) / (spread if spread > 0 else 1.0)
    top = np.argsort(-excess, kind="stable")[:n]
    return np.sort(genes[top])


def variable_genes(
    source: str | Path | AnnData | RowBlocks,
    data: Matrix,
    *,
    order: NDArray[np.int64] | None = None,
    threads: int = 1,
    block_size: int = 4096,
) -> Variable:
    """Read the variable genes of a file, and the lineage markers, in at most two passes.

    Parameters
    ----------
    source
        The file or AnnData behind `data`.
    data
        Its facts, genes and matrix.
    order
        All cells in an order that does not depend on the file's (`order_of`), for sums to have the same
        bits; None takes them as they come.
    threads
        Threads that read.
    """
    from scipy import sparse

    from senoscore.io.blocks import open_blocks

    genes = data.genes
    counted = data.scale in ("counts", "fractional_counts")
    columns = np.asarray(genes.columns, dtype=np.int64)
    to_gene = sparse.csr_matrix(
        (np.ones(len(columns)), (np.arange(len(columns)), columns)),
        shape=(len(columns), genes.n_genes),
    )

    def expression(block: CsrBlock, rows: NDArray[np.int64] | slice) -> sparse.csr_matrix:
        values = block.to_csr()[rows].astype(np.float64)
        if counted:
            totals = np.asarray(values.sum(axis=1)).ravel()
            factor = np.divide(1e4, totals, out=np.zeros_like(totals), where=totals > 0)
            values.data *= np.repeat(factor, np.diff(values.indptr))
        if counted or data.scale == "linear_normalised":
            np.log1p(values.data, out=values.data)
        return values @ to_gene

    barred = genes.mask("tcr_ig") | genes.mask("mito")
    symbols = marker_genes(genes.organism)
    known = genes.locate([""] * len(symbols), symbols)
    with open_blocks(source, matrix=data.matrix) as blocks:
        n = blocks.n_obs
        first = (np.arange(n) if order is None else order)[:MAX_CHOOSING]
        chooses = np.zeros(n, bool)
        chooses[first] = True

        def choosing() -> Iterator[sparse.csr_matrix]:
            for block in blocks.iter_blocks(block_size=block_size, threads=threads):
                here = chooses[block.start : block.start + block.n_obs]
                yield expression(block, np.flatnonzero(here))

        found = sparse.vstack(list(choosing()), format="csr")
        in_order = found[np.searchsorted(np.flatnonzero(chooses), first)]
        chosen = np.union1d(choose_variable(in_order, barred=barred), known[known >= 0])
        if len(first) == n:
            matrix = found[:, chosen]
        else:
            matrix = sparse.vstack(
                [
                    expression(block, slice(None))[:, chosen].astype(np.float32)
                    for block in blocks.iter_blocks(block_size=block_size, threads=threads)
                ],
                format="csr",
            )
    return Variable(matrix.astype(np.float32), chosen.astype(np.int64))


def components(
    matrix: sparse.csr_matrix, rows: NDArray[np.int64], n: int = N_COMPONENTS
) -> NDArray[np.float64]:
    """Principal components of all cells, from the covariance of some of them.

    Genes are scaled to unit variance, with a floor so that rare noise is not blown up. Signs are
    fixed by the largest loading.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    part = matrix[rows].astype(np.float64)
    size = matrix.shape[1]
    mean = np.asarray(part.mean(axis=0)).ravel()
    square = np.asarray(part.multiply(part).mean(axis=0)).ravel()
    deviation = np.sqrt(np.clip(square - mean**2, 0.0, None))
    scale = 1.0 / np.maximum(deviation, max(0.1, float(np.median(deviation)) / 2))
    turned = part.T.tocsr()

    def covariance(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = scale * vector.ravel()
        product = turned @ (part @ scaled) / len(rows) - mean * float(mean @ scaled)
        return np.asarray(scale * product)

    wanted = min(n, size - 1, len(rows) - 1)
    operator = LinearOperator((size, size), matvec=covariance, dtype=np.float64)
    values, vectors = eigsh(operator, k=wanted, v0=np.ones(size), tol=1e-6)
    vectors = vectors[:, np.argsort(-values, kind="stable")]
    largest = np.abs(vectors).argmax(axis=0)
    vectors *= np.sign(vectors[largest, np.arange(wanted)])
    loadings = vectors * scale[:, None]
    return np.asarray(matrix @ loadings - mean @ loadings, dtype=np.float64)


def nearest(points: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Return the `k` nearest other points of each point, exactly; ties go to the earlier point."""
    n = len(points)
    k = min(k, n - 1)
    norms = (points**2).sum(axis=1)
    found = np.empty((n, k), dtype=np.int64)
    width = max(1, 50_000_000 // max(n, 1))
    for start in range(0, n, width):
        stop = min(n, start + width)
        distance = norms[None, :] - 2.0 * (points[start:stop] @ points.T)
        distance[np.arange(stop - start), np.arange(start, stop)] = np.inf
        near = np.argpartition(distance, k - 1, axis=1)[:, :k]
        found[start:stop] = np.sort(near, axis=1)
    return found


def leiden(neighbours: NDArray[np.int64], resolution: float) -> NDArray[np.int64]:
    """Communities of the graph of shared neighbours (Jaccard weights), largest first."""
    try:
        import igraph
    except ImportError as error:
        raise InputDataError(
            "the file has neither cell types nor clusters, and clustering needs igraph: "
            "`pip install igraph`, or name a cluster column (config: dataset.cluster)"
        ) from error
    from scipy import sparse

    n, k = neighbours.shape
    indptr = np.arange(n + 1) * (k + 1)
    with_self = np.sort(np.column_stack([neighbours, np.arange(n)]), axis=1)
    near = sparse.csr_matrix(
        (np.ones(n * (k + 1)), with_self.ravel(), indptr), shape=(n, n), dtype=np.float64
    )
    shared = sparse.triu(near @ near.T, k=1).tocoo()
    weight = shared.data / (2.0 * (k + 1) - shared.data)
    keep = weight >= 1.0 / 15.0
    graph = igraph.Graph(
        n=n, edges=np.column_stack([shared.row[keep], shared.col[keep]]), directed=False
    )
    igraph.set_random_number_generator(random.Random(0))  # noqa: S311
    try:
        found = graph.community_leiden(
            objective_function="modularity",
            weights=weight[keep],
            resolution=resolution,
            n_iterations=3,
        )
    finally:
        igraph.set_random_number_generator(random)
    labels = np.asarray(found.membership, dtype=np.int64)
    sizes = np.bincount(labels)
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[labels]


def order_of(names: ArrayLike) -> NDArray[np.int64]:
    """Cells by a hash of their names: the same order, however the file has them."""
    return np.argsort(pd.util.hash_array(np.asarray(names, dtype=object)), kind="stable")


def cluster_cells(
    variable: Variable | sparse.csr_matrix,
    *,
    order: NDArray[np.int64] | None = None,
    resolution: float = 1.0,
) -> NDArray[np.int64]:
    """Cluster cells by the expression of their variable genes.

    Parameters
    ----------
    variable
        From :func:`variable_genes`, or cells x genes of logged expression.
    order
        The cells in the order to take them (:func:`order_of`): communities depend on it.
    resolution
        Higher gives more and smaller clusters. Lineages need no fine clusters, but a cluster
        that spans two lineages is ambiguous.

    Returns
    -------
    Cluster of each cell, 0 the largest.
    """
    matrix = variable.matrix if isinstance(variable, Variable) else variable.tocsr()
    n = matrix.shape[0]
    if order is not None:
        labels = np.empty(n, dtype=np.int64)
        labels[order] = cluster_cells(matrix[order], resolution=resolution)
        return labels
    if n < 3 or matrix.shape[1] < 2:
        return np.zeros(n, dtype=np.int64)
    rows = np.arange(n)
    if n > MAX_GRAPH:
        rows = np.unique(np.linspace(0, n - 1, MAX_GRAPH).astype(np.int64))
    points = components(matrix, rows)
    k = min(N_NEIGHBOURS, max(5, len(rows) // 30))
    labels = leiden(nearest(points[rows], k), resolution)
    if len(rows) == n:
        return labels
    centres = np.stack([points[rows][labels == c].mean(axis=0) for c in range(labels.max() + 1)])
    result = np.empty(n, dtype=np.int64)
    for start in range(0, n, 100_000):
        part = points[start : start + 100_000]
        result[start : start + 100_000] = (
            (centres**2).sum(axis=1)[None, :] - 2.0 * part @ centres.T
        ).argmin(axis=1)
    result[rows] = labels
    return result

"""Mean scores from sparse rows: the mean of a set, and scanpy's mean less that of control genes.

Sums are exact where floating-point sums would depend on the order of genes: each value is split
into two integers, units of 2**-20 and of 2**-62, and integers are added. Values of float32 data are
held without any loss down to 2**-38 (4e-12), so a mean has one rounding, at the end, and is the
same, to the bit, in any block, on any number of threads and for any order of rows or genes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from senoscore.errors import InputDataError, SignatureError
from senoscore.kernels._numba import njit, over_rows
from senoscore.kernels.sets import SetIndex, check_rows, make_set_index, membership

__all__ = ["SetIndex", "make_set_index", "mean", "score_genes", "score_genes_controls"]

COARSE = 2.0**20
FINE = 2.0**62

#: Weighted values must stay below this in size; sums over 2**16 genes then fit 63 bits.
LIMIT = 2.0**26


@njit
def _coarse(x: float) -> int:
    """The part of x in whole units of 2**-20."""
    return int(np.floor(x * COARSE))


@njit
def _fine(x: float) -> int:
    """What _coarse leaves, in units of 2**-62."""
    return int(np.rint((x - np.floor(x * COARSE) / COARSE) * FINE))


@njit
def _mean_rows(
    first_row: int,
    last_row: int,
    indptr: NDArray[np.int64],
    columns: NDArray[np.uint32],
    data: NDArray[Any],
    marked: NDArray[np.uint8],
    slot: NDArray[np.int32],
    first: NDArray[np.int64],
    owner: NDArray[np.int64],
    weight: NDArray[np.float64],
    all_weights: NDArray[np.int64],
    means: NDArray[np.float64],
    too_large: NDArray[np.bool_],
) -> None:
    longest = 0
    for i in range(first_row, last_row):
        longest = max(longest, indptr[i + 1] - indptr[i])
    hits = np.empty(longest + 1, np.int64)
    # coarse and fine parts of the sum of values and of the sum of weights
    sums = np.empty((2, means.shape[1]), np.int64)
    weights = np.empty((2, means.shape[1]), np.int64)
    for i in range(first_row, last_row):
        n_hits = 0
        for j in range(indptr[i], indptr[i + 1]):
            hits[n_hits] = j
            n_hits += marked[columns[j]]
        sums[:] = 0
        weights[:] = all_weights
        for k in range(n_hits):
            value = np.float64(data[hits[k]])
            s = slot[columns[hits[k]]]
            for m in range(first[s], first[s + 1]):
                x = value * weight[m]
                if abs(x) < LIMIT:
                    sums[0, owner[m]] += _coarse(x)
                    sums[1, owner[m]] += _fine(x)
                elif np.isnan(x):
                    weights[0, owner[m]] -= _coarse(abs(weight[m]))
                    weights[1, owner[m]] -= _fine(abs(weight[m]))
                else:
                    too_large[i] = True
        for s in range(means.shape[1]):  # without any gene this is 0 / 0: NaN
            total = sums[0, s] / COARSE + sums[1, s] / FINE
            means[i, s] = total / (weights[0, s] / COARSE + weights[1, s] / FINE)


def _set_means(
    indptr: ArrayLike,
    indices: ArrayLike,
    data: ArrayLike,
    n_vars: int,
    sets: SetIndex,
    threads: int,
) -> NDArray[np.float64]:
    pointers, columns, values = check_rows(indptr, indices, data, n_vars)
    table = membership(sets, n_vars)
    all_weights = np.zeros((2, sets.n_sets), dtype=np.int64)
    for owner, weight in zip(sets.owner, sets.weights, strict=True):
        all_weights[:, owner] += (_coarse(weight), _fine(weight))
    means = np.empty((len(pointers) - 1, sets.n_sets))
    too_large = np.zeros(len(pointers) - 1, dtype=bool)
    over_rows(
        _mean_rows, pointers, columns, values, table.marked, table.slot, table.first,
        table.arm // 2, table.weight * (1 - 2 * (table.arm % 2)), all_weights, means, too_large,
        threads=threads,
    )  # fmt: skip
    if too_large.any():
        i = int(np.flatnonzero(too_large)[0])
        row = values[pointers[i] : pointers[i + 1]]
        raise InputDataError(
            f"row {i} holds {row[np.nanargmax(np.abs(row))]} in a signature gene; means are "
            f"computed for values (times their weight) below {LIMIT:.0f}, "
            "so give log-normalised values or counts"
        )
    return means


def mean(
    indptr: ArrayLike,
    indices: ArrayLike,
    data: ArrayLike,
    n_vars: int,
    sets: SetIndex,
    *,
    threads: int = 1,
) -> NDArray[np.float64]:
    r"""How strongly a cell expresses a gene set: the weighted mean of its genes, down genes negated.

    .. math:: S = \sum_g w_g \, sign_g \, x_g \Big/ \sum_g w_g

    over the set's genes that the data have. The plainest score, and the least comparable: it
    follows the highest genes of the set and the depth of the cell.

    *How to read it*: in the units of the data. 0, the set is not expressed, or its up and down
    genes balance.

    Parameters
    ----------
    indptr, indices, data
        Rows as CSR, each column at most once in a row; usually log-normalised values. A NaN is a
        gene not measured in that row: it is left out of both sums.
    n_vars
        Number of columns of the whole matrix.
    sets
        From :func:`make_set_index`; ``n_missing`` plays no part.
    threads
        Rows are shared among so many threads; the scores are the same for any number.

    Returns
    -------
    ``rows x sets``, float64. NaN: no gene of the set is in the data, or all are NaN in the row.

    Raises
    ------
    InputDataError
        The arrays are not CSR rows of `n_vars` columns, or a value is infinite or beyond 2**26.
    SignatureError
        A set names a column that does not exist.

    Examples
    --------
    >>> index = make_set_index([([0, 1], 1), ([0, 2], [1, -1]), ([], 1)])
    >>> mean([0, 3], [0, 1, 2], [5.0, 1.0, 4.0], 4, index).tolist()
    [[3.0, 0.5, nan]]
    """
    return _set_means(indptr, indices, data, n_vars, sets, threads)


def score_genes(
    indptr: ArrayLike,
    indices: ArrayLike,
    data: ArrayLike,
    n_vars: int,
    sets: SetIndex,
    controls: SetIndex,
    *,
    threads: int = 1,
) -> NDArray[np.float64]:
    r"""How far a gene set stands above control genes of similar expression: scanpy's score_genes.

    .. math:: S = \frac{1}{n} \sum_{g \in set} x_g - \frac{1}{m} \sum_{c \in controls} x_c

    Satija et al. 2015, doi:10.1038/nbt.3192; Tirosh et al. 2016, doi:10.1126/science.aad0501.
    Given controls from :func:`score_genes_controls` it equals ``scanpy.tl.score_genes`` 1.11 but
    for the rounding of scanpy's sums: 1e-14 of the highest value, or 1e-6 where the data are
    float32 and sparse, which scanpy adds up in float32. Weights are not used, and down genes are
    left out, for scanpy knows neither.

    *How to read it*: in the units of the data; above 0, the set is expressed more than its
    controls are.

    Parameters
    ----------
    indptr, indices, data
        Rows as CSR, each column at most once in a row; log-normalised values. A NaN is left out.
    n_vars
        Number of columns of the whole matrix.
    sets
        From :func:`make_set_index`.
    controls
        As many sets: the control genes of each.
    threads
        Rows are shared among so many threads; the scores are the same for any number.

    Returns
    -------
    ``rows x sets``, float64. NaN: no up gene of the set, or no control gene, is in the data.

    Raises
    ------
    InputDataError
        As for :func:`mean`.
    SignatureError
        A set names a column that does not exist, or sets and controls are not equally many.

    Examples
    --------
    >>> sets, controls = make_set_index([([0, 1], 1)]), make_set_index([([2, 3], 1)])
    >>> score_genes([0, 3], [0, 1, 2], [5.0, 1.0, 4.0], 4, sets, controls).tolist()
    [[1.0]]
    """
    if sets.n_sets != controls.n_sets:
        raise SignatureError(f"{sets.n_sets} sets, but controls for {controls.n_sets}")
    both = make_set_index(
        [
            (index.genes[a:b][index.signs[a:b] > 0], 1)
            for index in (sets, controls)
            for a, b in pairwise(index.offsets)
        ]
    )
    means = _set_means(indptr, indices, data, n_vars, both, threads)
    return means[:, : sets.n_sets] - means[:, sets.n_sets :]


def score_genes_controls(
    gene_means: ArrayLike,
    gene_list: ArrayLike,
    gene_pool: ArrayLike | None = None,
    *,
    ctrl_size: int = 50,
    n_bins: int = 25,
    ctrl_as_ref: bool = True,
    random_state: int = 0,
) -> NDArray[np.int64]:
    """Choose the control genes that ``scanpy.tl.score_genes`` 1.11 would choose.

    The genes of the pool are ranked by mean expression (ties share the lowest rank) and cut into
    bins of equal size; from each bin that holds a gene of the list, `ctrl_size` genes are drawn.

    Which genes are drawn depends on the order of the pool: give it in the order of the data's genes
    for scanpy's choice, or in the order of gene ids for one that does not depend on the data.

    Parameters
    ----------
    gene_means
        Mean over all cells of each column of the matrix.
    gene_list
        Columns of the set's genes; each must be in the pool with a finite mean.
    gene_pool
        Columns to draw from, in order; default all.
    ctrl_size
        How many genes to draw from each bin.
    n_bins
        How many bins (scanpy makes one more when the pool does not divide evenly).
    ctrl_as_ref
        Draw from all genes of a bin, then leave the set's own out (as scanpy does until 2.0);
        if False, draw from the others only.
    random_state
        Seed of numpy's legacy generator. The global one is not touched.

    Returns
    -------
    Columns of the control genes of all bins, ascending.

    Raises
    ------
    SignatureError
        The list is empty or not within the pool, or no control gene is left.

    Examples
    --------
    Five genes in bins of two; the list's gene 4 shares its bin with gene 3.

    >>> score_genes_controls([1, 2, 3, 4, 5], [4], n_bins=3).tolist()
    [3]
    """
    means = np.asarray(gene_means)
    wanted = np.unique(np.asarray(gene_list, dtype=np.int64))
    pool = np.arange(len(means)) if gene_pool is None else np.asarray(gene_pool, dtype=np.int64)
    if n_bins < 2:
        raise SignatureError(f"n_bins must be at least 2, found {n_bins}")
    if not len(wanted):
        raise SignatureError("no gene to choose controls for: the list is empty")
    pool = pool[np.isfinite(means[pool])]
    stray = np.setdiff1d(wanted, pool)
    if len(stray):
        raise SignatureError(
            f"{len(stray)} of {len(wanted)} genes to choose controls for are not in the gene pool "
            f"with a finite mean (first: position {stray[0]}); add them to the pool"
        )
    pool_means = means[pool]
    ranks = np.searchsorted(np.sort(pool_means), pool_means, side="left") + 1
    per_bin = int(np.round(len(pool) / (n_bins - 1)))
    bins = ranks // per_bin if per_bin else np.zeros(len(pool), dtype=np.int64)
    in_list = np.isin(pool, wanted)
    rng = np.random.RandomState(random_state)  # scanpy draws from this generator
    chosen = [np.zeros(0, dtype=np.int64)]
    for this_bin in np.unique(bins[in_list]):
        candidates = pool[(bins == this_bin) & (ctrl_as_ref | ~in_list)]
        if ctrl_size < len(candidates):
            candidates = candidates[rng.choice(len(candidates), size=ctrl_size, replace=False)]
        chosen.append(candidates)
    controls = np.setdiff1d(np.concatenate(chosen), wanted)
    if not len(controls):
        raise SignatureError(
            "no control gene shares an expression bin with the list's genes; use fewer bins, "
            "a larger gene pool, or ctrl_as_ref=False"
        )
    return controls

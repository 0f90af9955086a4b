"""Gene sets and sparse rows as flat arrays: what every kernel of this package takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from senoscore.errors import InputDataError, SignatureError


@dataclass(frozen=True, eq=False)
class SetIndex:
    """Gene sets as positions in the matrix, one after another (see :func:`make_set_index`).

    Attributes
    ----------
    offsets
        Set ``s`` owns entries ``offsets[s]:offsets[s + 1]`` of the next three arrays.
    genes
        Column of each gene.
    signs
        +1 (up) or -1 (down) for each gene.
    weights
        A positive weight for each gene; 1 unless given. Rank methods do not use it.
    n_missing
        ``n_sets x 2``: up genes and down genes that the matrix does not have but that count, with
        the worst rank, in :func:`~senoscore.kernels.ranks.ucell`. Other methods leave them out.
    """

    offsets: NDArray[np.int64]
    genes: NDArray[np.int64]
    signs: NDArray[np.int8]
    weights: NDArray[np.float64]
    n_missing: NDArray[np.int64]

    @property
    def n_sets(self) -> int:
        """How many sets."""
        return len(self.offsets) - 1

    @property
    def owner(self) -> NDArray[np.int64]:
        """The set of each entry."""
        return np.repeat(np.arange(self.n_sets), np.diff(self.offsets))

    def n_found(self) -> NDArray[np.int64]:
        """``n_sets x 2``: up and down genes that the matrix has."""
        counts = np.bincount(self.owner * 2 + (self.signs < 0), minlength=2 * self.n_sets)
        return counts.reshape(self.n_sets, 2).astype(np.int64)


def make_set_index(
    sets: Sequence[tuple[ArrayLike, ArrayLike]],
    n_missing: ArrayLike | None = None,
    *,
    weights: Sequence[ArrayLike] | None = None,
) -> SetIndex:
    """Lay out gene sets for the kernels.

    Parameters
    ----------
    sets
        For each set the columns of its genes and their signs: +1 up, -1 down, or one sign for all.
        A gene may stand in many sets, but only once in each.
    n_missing
        How many genes of each set the matrix lacks and :func:`~senoscore.kernels.ranks.ucell` must
        count with the worst rank: one number per set if all are up genes, or a pair (up, down).
        ``None``: missing genes are left out.
    weights
        A positive, finite weight for each gene of each set, in the same order.

    Examples
    --------
    >>> index = make_set_index([([4, 0], 1), ([2, 3, 1], [1, 1, -1])], n_missing=[1, 0])
    >>> index.offsets.tolist(), index.genes.tolist(), index.signs.tolist()
    ([0, 2, 5], [4, 0, 2, 3, 1], [1, 1, 1, 1, -1])
    >>> index.n_missing.tolist()
    [[1, 0], [0, 0]]
    """
    if weights is not None and len(weights) != len(sets):
        raise SignatureError(f"weights: {len(sets)} sets but {len(weights)} lists of weights")
    genes: list[NDArray[np.int64]] = []
    signs: list[NDArray[np.int8]] = []
    gene_weights: list[NDArray[np.float64]] = []
    for s, (positions, sign) in enumerate(sets):
        where = np.atleast_1d(np.asarray(positions, dtype=np.int64))
        which = np.asarray(sign, dtype=np.int8)
        if which.ndim == 0:
            which = np.full(len(where), which, dtype=np.int8)
        weight = np.ones(len(where)) if weights is None else np.asarray(weights[s], np.float64)
        if where.ndim != 1 or which.shape != where.shape or weight.shape != where.shape:
            raise SignatureError(
                f"set {s}: {where.shape} positions, {which.shape} signs and {weight.shape} "
                "weights; give one of each per gene"
            )
        if not np.isin(which, (-1, 1)).all():
            raise SignatureError(f"set {s}: signs must be +1 or -1, found {np.unique(which)}")
        if not ((weight > 0) & (weight < 2**26)).all():
            raise SignatureError(f"set {s}: weights must be positive and finite, found {weight}")
        values, counts = np.unique(where, return_counts=True)
        if (counts > 1).any():
            raise SignatureError(
                f"set {s}: gene position {values[counts > 1][0]} is listed more than once; "
                "merge names of the same gene first"
            )
        genes.append(where)
        signs.append(which)
        gene_weights.append(weight)
    missing = np.zeros((len(sets), 2), dtype=np.int64)
    if n_missing is not None:
        given = np.asarray(n_missing, dtype=np.int64)
        if given.shape == (len(sets),):
            missing[:, 0] = given
        elif given.shape == (len(sets), 2):
            missing[:] = given
        else:
            raise SignatureError(
                f"n_missing has shape {given.shape}; expected ({len(sets)},) or ({len(sets)}, 2)"
            )
        if (missing < 0).any():
            raise SignatureError("n_missing holds a negative number of genes")
    sizes = [len(where) for where in genes]
    return SetIndex(
        offsets=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        genes=np.concatenate([np.zeros(0, np.int64), *genes]),
        signs=np.concatenate([np.zeros(0, np.int8), *signs]),
        weights=np.concatenate([np.zeros(0), *gene_weights]),
        n_missing=missing,
    )


@dataclass(frozen=True, eq=False)
class Membership:
    """The sets turned around: for a column, the arms it belongs to.

    ``marked[g]`` is 1 if column g is in any set; its entries are
    ``first[slot[g]]:first[slot[g] + 1]`` of ``arm`` (``2 * set``, plus 1 if down) and ``weight``.
    ``columns`` are the marked columns in ascending order.
    """

    marked: NDArray[np.uint8]
    slot: NDArray[np.int32]
    columns: NDArray[np.int64]
    first: NDArray[np.int64]
    arm: NDArray[np.int64]
    weight: NDArray[np.float64]


def membership(sets: SetIndex, n_vars: int, *, only_up: bool = False) -> Membership:
    """Turn sets into a lookup table by column; `only_up` leaves down genes out."""
    if len(sets.genes) and (sets.genes.min() < 0 or sets.genes.max() >= n_vars):
        raise SignatureError(
            f"gene positions {sets.genes.min()} to {sets.genes.max()} do not fit a matrix of "
            f"{n_vars} genes; a gene that is not in the matrix must not be given a position"
        )
    keep = sets.signs > 0 if only_up else np.ones(len(sets.genes), dtype=bool)
    genes = sets.genes[keep]
    order = np.argsort(genes, kind="stable")
    columns, first = np.unique(genes[order], return_index=True)
    marked = np.zeros(n_vars, dtype=np.uint8)
    slot = np.full(n_vars, -1, dtype=np.int32)
    marked[columns] = 1
    slot[columns] = np.arange(len(columns))
    return Membership(
        marked=marked,
        slot=slot,
        columns=columns,
        first=np.append(first, len(genes)).astype(np.int64),
        arm=(sets.owner * 2 + (sets.signs < 0))[keep][order],
        weight=sets.weights[keep][order],
    )


def check_rows(
    indptr: ArrayLike, indices: ArrayLike, data: ArrayLike, n_vars: int, *, look: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[Any]]:
    """CSR arrays as the kernels need them, proven not to point outside the matrix.

    Columns are returned unsigned: numba then needs no test for indices that count from the end.
    Data are returned as float32 or float64, whichever holds them exactly, so that each kernel is
    compiled for two types only. Arrays that fit are not copied (those marked read-only are: numba
    would compile everything once more for them).

    Without `look` the kernel proves columns itself, row by row, for :func:`refuse_stray`: looking at
    all of them here, before they are needed, is one more way through memory.
    """
    pointers = np.require(indptr, np.int64, ["C", "W"])
    columns = np.asarray(indices)
    values = np.asarray(data)
    if len(pointers) < 1 or pointers[0] != 0 or (np.diff(pointers) < 0).any():
        raise InputDataError("row pointers (indptr) must start at 0 and never decrease")
    if not len(columns) == len(values) == pointers[-1]:
        raise InputDataError(
            f"sparse rows disagree: indptr promises {pointers[-1]} values, found {len(columns)} "
            f"indices and {len(values)} values"
        )
    if len(columns):
        if columns.dtype.kind not in "iu":
            raise InputDataError(f"column indices must be integers, found dtype {columns.dtype}")
        # seen as unsigned, a negative index is the largest: one look finds both mistakes
        narrow = columns.dtype == np.int32
        seen = columns.view(np.uint32) if narrow else columns
        if (look or not narrow) and (seen.max() >= n_vars or (not narrow and seen.min() < 0)):
            raise _outside(columns, n_vars)
    unsigned = np.require(columns, np.int32, ["C", "W"]).view(np.uint32)
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind not in "bfiu":
        raise InputDataError(f"expression values must be numbers, found dtype {values.dtype}")
    if kind in "iu" and size == 8 and len(values):
        largest = max(int(values.max()), -int(values.min()))
        if largest > 2**53:
            raise InputDataError(f"integers beyond 2**53 cannot be scored, found {largest}")
    exact = np.float32 if size <= (4 if kind == "f" else 2) else np.float64
    return pointers, unsigned, np.require(values, exact, ["C", "W"])


def refuse_stray(columns: NDArray[np.uint32], stray: NDArray[np.bool_], n_vars: int) -> None:
    """Raise if a kernel met a row (`stray`) with columns outside the matrix."""
    if stray.any():
        raise _outside(columns.view(np.int32), n_vars)


def _outside(columns: NDArray[Any], n_vars: int) -> InputDataError:
    return InputDataError(
        f"column indices {columns.min()} to {columns.max()} do not fit {n_vars} genes; "
        "the file is damaged, or the number of genes is wrong"
    )

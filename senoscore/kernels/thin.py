"""Take molecules away from counted cells, one random bit per molecule.

A cell sequenced half as deeply keeps each of its molecules with probability 1/2: as many as there
are ones among so many random bits. A quarter of the depth is half of the half: a molecule kept
there was kept at half depth too. The bits belong to a cell and a gene by their names, so what a
cell loses depends neither on its place nor on the cells and genes beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from senoscore.kernels._numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
_ONE, _TWO, _FOUR = np.uint64(1), np.uint64(2), np.uint64(4)
_M1 = np.uint64(0x5555555555555555)
_M2 = np.uint64(0x3333333333333333)
_M4 = np.uint64(0x0F0F0F0F0F0F0F0F)
_H01 = np.uint64(0x0101010101010101)
_S32, _S56 = np.uint64(32), np.uint64(56)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit
def _mix(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@njit
def _ones(x: np.uint64) -> int:
    x = x - ((x >> _ONE) & _M1)
    x = (x & _M2) + ((x >> _TWO) & _M2)
    x = (x + (x >> _FOUR)) & _M4
    return int((x * _H01) >> _S56)


@njit
def halve_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.floating],
    cells: NDArray[np.uint64],
    genes: NDArray[np.uint64],
    wanted: NDArray[np.bool_],
    totals: NDArray[np.float64],
    starts: NDArray[np.int64],
    kept_indices: NDArray[np.int32],
    kept: NDArray[np.float32],
) -> None:
    """What is left of some cells' counts after one halving and after two.

    Parameters
    ----------
    indptr, indices, data
        CSR rows of counts (whole numbers).
    cells, genes
        A hash of the name of each row, and of each column's.
    wanted
        Genes whose counts are kept. The others count in the totals alone.
    totals
        Written, 2 × rows: molecules left.
    starts
        Written, 2 × (rows + 1): where each row begins, as `indptr`.
    kept_indices, kept
        Written, 2 × stored values: counts that are left, none of them 0.
    """
    salted = np.empty(genes.shape[0], np.uint64)
    for g in range(genes.shape[0]):
        salted[g] = _mix(genes[g] + _GOLDEN)
    half_at, quarter_at = 0, 0
    starts[0, 0] = starts[1, 0] = 0
    for i in range(cells.shape[0]):
        cell = _mix(cells[i] + _GOLDEN)
        all_half, all_quarter = 0, 0
        for k in range(indptr[i], indptr[i + 1]):
            gene = indices[k]
            word = _mix(cell ^ salted[gene])
            state = word
            left = int(data[k])
            half, quarter = 0, 0
            while left > 0:
                # the lower bits say who stays at half the depth, the upper ones who of them stays
                once = word & (_ALL >> np.uint64(64 - min(left, 32)))
                if left == 1:
                    half += int(once)
                    quarter += int(once & (word >> _S32))
                else:
                    half += _ones(once)
                    quarter += _ones(once & (word >> _S32))
                left -= 32
                if left > 0:
                    state += _GOLDEN
                    word = _mix(state)
            all_half += half
            all_quarter += quarter
            if wanted[gene]:
                kept_indices[0, half_at] = gene
                kept[0, half_at] = half
                half_at += half > 0
                kept_indices[1, quarter_at] = gene
                kept[1, quarter_at] = quarter
                quarter_at += quarter > 0
        totals[0, i], totals[1, i] = all_half, all_quarter
        starts[0, i + 1], starts[1, i + 1] = half_at, quarter_at

"""Take molecules away from counted cells, one random bit per molecule.

A cell sequenced half as deeply keeps each of its molecules with probability 1/2: as many as there
are ones among so many random bits. A quarter of the depth is half of the half, so a molecule kept
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
_S56 = np.uint64(56)
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
    n_halvings: int,
    kept: NDArray[np.float32],
) -> None:
    """How many of each stored count's molecules are left after so many halvings.

    Parameters
    ----------
    indptr, indices, data
        CSR rows of counts (whole numbers).
    cells, genes
        A hash of each row's and each column's name.
    n_halvings
        1 keeps each molecule with probability 1/2, 2 with 1/4, 0 all of them.
    kept
        Written, one value per stored count; what is left of a count may be 0.
    """
    for i in range(indptr.shape[0] - 1):
        cell = _mix(cells[i] + _GOLDEN)
        for k in range(indptr[i], indptr[i + 1]):
            state = _mix(cell ^ _mix(genes[indices[k]] + _GOLDEN))
            left = int(data[k])
            total = 0
            while left > 0:
                word = _ALL
                if left < 64:
                    word = (_ONE << np.uint64(left)) - _ONE
                for h in range(2):
                    # two words are drawn whatever is asked for: fewer halvings see the same first
                    state += _GOLDEN
                    if h < n_halvings:
                        word &= _mix(state)
                total += _ones(word)
                left -= 64
            kept[k] = total

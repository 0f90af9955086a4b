"""Blocks of rows compared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from senoscore.io.blocks import CsrBlock


def same(one: Iterator[CsrBlock], other: Iterator[CsrBlock]) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a.start, a.n_vars) == (b.start, b.n_vars)
        for x, y in zip(a[1:4], b[1:4], strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)

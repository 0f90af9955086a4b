"""Numbers in few bytes."""

from __future__ import annotations

import numpy as np
import pytest

from senoscore.streaming import as_float, compact


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 255], np.uint8),
        ([1, 256], np.uint16),
        ([1, 65_536], np.float32),
        ([1, 0.5], np.float32),
        ([-1, 3], np.float32),
        ([], np.uint8),
    ],
)
def test_counts_take_few_bytes_and_nothing_is_rounded(
    values: list[float], expected: type[np.generic]
) -> None:
    stored = np.asarray(values, np.float32)
    small = compact(stored)
    assert small.dtype == expected
    np.testing.assert_array_equal(as_float(small), stored)

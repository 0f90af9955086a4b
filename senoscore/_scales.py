"""What the values of a matrix are: counts, logged, scaled, judged from a sample of its rows."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from senoscore.errors import InputDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from senoscore.io.h5 import MatrixHeader

SCALES: Final = (
    "counts",
    "fractional_counts",
    "log1p",
    "log2",
    "log_other",
    "linear_normalised",
    "scaled",
    "twice_logged",
    "unknown",
)
LOG_SCALES: Final = ("log1p", "log2", "log_other")


class Sample(NamedTuple):
    """Rows (or, of a column-wise matrix, values) taken from several places of a matrix."""

    rows: list[NDArray[np.float64]]
    """Stored values of each sampled row; empty for a column-wise sample."""
    values: NDArray[np.float64]
    whole: bool
    """True when every stored value was looked at."""


class Matrix(Protocol):
    """One matrix of the file, by its key."""

    key: str
    shape: tuple[int, int]
    storage: str
    nnz: int | None

    def sample(self) -> Sample: ...


_ROWS_PER_PLACE: Final = 64
_VALUES_PER_PLACE: Final = 200_000
_PLACES: Final = 5


def _starts(n: int, width: int) -> list[int]:
    """First rows of the sampled places: the start, the end and evenly between."""
    if n <= width * _PLACES:
        return list(range(0, n, width))
    return sorted({int(v) for v in np.linspace(0, n - width, _PLACES)})


class GroupMatrix:
    """A matrix inside an h5ad or zarr file, its header already checked."""

    def __init__(self, node: Any, header: MatrixHeader) -> None:
        self.key, self._node = header.key, node
        self.shape, self.storage, self.nnz = header.shape, header.storage, header.nnz

    def sample(self) -> Sample:
        try:
            return self._sample()
        except (OSError, ValueError, TypeError) as error:
            raise InputDataError(
                f"{self.key} cannot be read: {str(error).splitlines()[0]}"
            ) from error

    def _sample(self) -> Sample:
        node = self._node
        if self.storage == "dense":
            rows_per = max(1, min(_ROWS_PER_PLACE, _VALUES_PER_PLACE // max(self.shape[1], 1)))
            chunks = getattr(node, "chunks", None)
            align = int(chunks[0]) if chunks else 1
            rows: list[NDArray[np.float64]] = []
            starts = _starts(self.shape[0], rows_per)
            for start in starts:
                if align <= 4 * rows_per:
                    start -= start % align
                block = np.asarray(node[start : start + rows_per], dtype=np.float64)
                rows += [row[row != 0] for row in block]
            values = np.concatenate(rows) if rows else np.empty(0)
            return Sample(rows, values, len(rows) >= self.shape[0])
        data, indptr = node["data"], np.asarray(node["indptr"][...], dtype=np.int64)
        steps = np.diff(indptr)
        if indptr[0] != 0 or indptr[-1] != self.nnz or (steps < 0).any():
            raise InputDataError(f"{self.key}/indptr is not in order: the file is damaged")
        parts: list[NDArray[np.float64]] = []
        n_major = len(steps)
        seen = 0
        for start in _starts(n_major, _ROWS_PER_PLACE):
            stop = min(start + _ROWS_PER_PLACE, n_major)
            limit = int(indptr[start]) + _VALUES_PER_PLACE
            stop = max(start + 1, min(stop, int(np.searchsorted(indptr, limit, "right")) - 1))
            lo, hi = int(indptr[start]), min(int(indptr[stop]), limit)
            block = np.asarray(data[lo:hi], dtype=np.float64)
            bounds = np.clip(indptr[start : stop + 1] - lo, 0, hi - lo)
            parts += [block[a:b] for a, b in itertools.pairwise(bounds)]
            seen += hi - lo
        values = np.concatenate(parts) if parts else np.empty(0)
        whole = seen == self.nnz
        if self.storage == "csc":
            return Sample(self._csc_rows(), values, whole)
        rows = [part[part != 0] for part in parts]
        return Sample(rows, values[values != 0], whole)

    def _csc_rows(self) -> list[NDArray[np.float64]]:
        """Whole rows of a column-wise matrix, where it is small enough to be read through."""
        if self.nnz is None or self.nnz > 3_000_000:
            return []
        node = self._node
        data = np.asarray(node["data"][...], dtype=np.float64)
        rows = np.asarray(node["indices"][...])
        keep = np.zeros(self.shape[0], dtype=bool)
        for start in _starts(self.shape[0], _ROWS_PER_PLACE):
            keep[start : start + _ROWS_PER_PLACE] = True
        if len(rows) and (rows.min() < 0 or rows.max() >= self.shape[0]):
            raise InputDataError(f"{self.key}/indices point outside the matrix: damaged file")
        chosen = keep[rows] & (data != 0)
        order = np.argsort(rows[chosen], kind="stable")
        split = np.bincount(rows[chosen], minlength=self.shape[0])[keep]
        return np.split(data[chosen][order], np.cumsum(split)[:-1]) if keep.any() else []


class MemoryMatrix:
    """A matrix of an AnnData: in memory, backed or lazy."""

    def __init__(self, source: Any, key: str) -> None:
        self.key, self._source = key, source
        self.shape = (int(source.shape[0]), int(source.shape[1]))
        kind = str(getattr(source, "format", "dense"))
        self.storage = kind if kind in ("csr", "csc") else "dense"
        nnz = getattr(source, "nnz", None)
        self.nnz = int(nnz) if isinstance(nnz, (int, np.integer)) else None

    def sample(self) -> Sample:
        source = self._source
        rows: list[NDArray[np.float64]] = []
        rows_per = _ROWS_PER_PLACE
        if self.storage == "dense":
            rows_per = max(1, min(rows_per, _VALUES_PER_PLACE // max(self.shape[1], 1)))
        elif self.storage == "csc" and hasattr(source, "tocsr"):
            source = source.tocsr() if self.shape[0] <= 5000 else source
        for start in _starts(self.shape[0], rows_per):
            block = source[start : start + rows_per]
            if hasattr(block, "compute"):
                block = block.compute()
            if hasattr(block, "tocsr"):
                block = block.tocsr()
                bounds = block.indptr
                rows += [
                    np.asarray(block.data[a:b], np.float64) for a, b in itertools.pairwise(bounds)
                ]
            else:
                rows += list(np.asarray(block, dtype=np.float64).reshape(-1, self.shape[1]))
        rows = [row[row != 0] for row in rows]
        values = np.concatenate(rows) if rows else np.empty(0)
        return Sample(rows, values, len(rows) >= self.shape[0])


# --------------------------------------------------------------------------------------------
# what the values of a matrix are


@dataclass(frozen=True)
class Scale:
    """What a matrix holds, by the words of ``SCALES``, and the evidence."""

    word: str
    how: str
    sure: bool = True


def _spread(values: NDArray[np.float64]) -> float:
    """Coefficient of variation; infinite where there is nothing to compare."""
    mean = values.mean() if len(values) > 1 else 0.0
    return float(values.std() / mean) if mean > 0 else float("inf")


def _unit_share(rows: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Share of rows whose values are whole multiples of one unit, and the spread of the units.

    Counts divided by a size factor keep this even after genes were dropped: each value is a
    count times the same factor. Only values between 1.5 and 60 units can tell (the unit itself
    fits always, and beyond 60 a value written with three decimals fits by chance), and only rows
    with eight such values vote. The spread is that of the middle half, relative to the median.
    """
    votes = 0
    units: list[float] = []
    for row in rows:
        low = float(row.min()) if len(row) else 0.0
        if not 0 < low < 1e12:
            continue
        voted = False
        for divisor in (1, 2, 3):  # the smallest count of the row may be 2 or 3
            ratio = row / (low / divisor)
            ratio = ratio[(ratio > 1.5) & (ratio < 60) & (row > low * 1.001)]
            if len(ratio) < 8:
                continue
            voted = True
            error = np.abs(ratio - np.rint(ratio))
            if (error < 0.02 + 0.0012 * ratio).mean() > 0.98:
                units.append(low / divisor)
                break
        votes += voted
    if not votes:
        return 0.0, 0.0
    quarter, middle, three = np.percentile(units, [25, 50, 75]) if units else (0.0, 1.0, 0.0)
    return len(units) / votes, float((three - quarter) / middle)


def _about(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def classify(sample: Sample, *, hint: str = "") -> Scale:
    """Decide what sampled values are, from the values alone.

    Parameters
    ----------
    sample
        Rows and values taken from several places of the matrix.
    hint
        What the file says of itself (provenance, normalisation); used where values cannot decide.
    """
    values = sample.values
    where = "in every value" if sample.whole else f"in {len(values):,} values of {_PLACES} places"
    if not len(values):
        return Scale("unknown", "no stored value was found in the sample", sure=False)
    broken = int((~np.isfinite(values)).sum())
    if broken:
        return Scale("unknown", f"{broken:,} of {len(values):,} sampled values are NaN or infinite")
    low, high = float(values.min()), float(values.max())
    if low < 0:
        return Scale(
            "scaled", f"negative values (down to {low:.3g}) {where}: centred, scaled or residuals"
        )
    nonzero = values[values != 0]
    if not len(nonzero):
        return Scale("unknown", "every sampled value is 0", sure=False)
    whole_share = float((nonzero == np.rint(nonzero)).mean())
    rows = [row for row in sample.rows if len(row)]
    if whole_share == 1.0:
        if high == 1.0 and len(nonzero) >= 2000:
            return Scale("unknown", f"only 0 and 1 {where}: detection, not counts")
        return Scale("counts", f"non-negative integers {where}, largest {_about(high)}")
    totals = np.array([row.sum() for row in rows]) if rows else np.empty(0)
    share, unit_spread = _unit_share(rows)
    if share > 0.9 and unit_spread < 0.01:
        return Scale(
            "fractional_counts",
            f"non-negative, not whole {where}, but multiples of one unit that all cells share: "
            "counts times a constant",
        )
    if high <= 40:  # as large as a logarithm gets: log2 of 1e12
        found = _classify_log(rows, nonzero, high, hint, where)
        if found is not None:
            return found
    if len(totals) > 2 and _spread(totals) < 0.01:
        return Scale(
            "linear_normalised",
            f"fractions {where}, every cell sums to about {_about(float(totals.mean()))}",
        )
    if share > 0.9 and unit_spread > 0.02:
        return Scale(
            "linear_normalised",
            f"fractions {where}; each cell's values are multiples of its own unit: "
            "counts divided by a size factor",
        )
    dense = float(np.median([len(row) for row in rows])) if rows else 0.0
    bulk = high > 1e4 and dense > 8000 and whole_share < 0.05
    uneven = len(totals) < 3 or _spread(totals) > 0.15
    small = float(nonzero.min()) < 2.5  # some molecule was seen once
    if not bulk and small and (whole_share > 0.05 or (uneven and float(np.median(nonzero)) < 20)):
        return Scale(
            "fractional_counts",
            f"non-negative, {100 * (1 - whole_share):.0f} % not whole {where}, largest "
            f"{_about(high)}, cell totals differ: counts after ambient correction or "
            "probabilistic assignment",
        )
    return Scale(
        "linear_normalised",
        f"non-negative fractions {where}, largest {_about(high)}: normalised, not logged",
        sure=False,
    )


_LOGS: Final = (
    ("log1p", np.expm1, "exp(x)-1"),
    ("log2", lambda v: np.exp2(v) - 1.0, "2^x-1"),
    ("log_other", lambda v: 10.0**v - 1.0, "10^x-1"),
)


def _classify_log(
    rows: Sequence[NDArray[np.float64]],
    nonzero: NDArray[np.float64],
    high: float,
    hint: str,
    where: str,
) -> Scale | None:
    """Log scales, or None when the values can be fractional counts."""
    for word, undo, text in _LOGS:
        undone = [undo(row) for row in rows]
        totals = np.array([row.sum() for row in undone])
        if len(totals) > 2 and _spread(totals) < 0.02 and totals.mean() > 50:
            return Scale(
                word, f"{text} of every sampled cell sums to about {_about(float(totals.mean()))}"
            )
        share, spread = _unit_share(undone)
        if share > 0.9 and spread < 0.01:
            return Scale(
                word,
                f"{text} gives whole numbers back {where}: logged counts that were never "
                "divided by the depth of the cell",
            )
        if share > 0.9:
            return Scale(
                word,
                f"{text} of each sampled cell are multiples of one unit: counts divided by a "
                "size factor, then logged (the genes are a subset, so the sums differ)",
            )
    if high < 4:
        undone = [np.expm1(np.expm1(row)) for row in rows]
        totals = np.array([row.sum() for row in undone])
        even = len(totals) > 2 and _spread(totals) < 0.05 and totals.mean() > 50
        if even or _unit_share(undone)[0] > 0.9:
            return Scale(
                "twice_logged", f"undoing log1p twice gives depth-normalised counts {where}"
            )
    if _unit_share(rows)[0] < 0.5 and _unit_share([row**2 for row in rows])[0] > 0.9:
        return Scale("unknown", f"square roots of normalised counts {where}")
    whole_share = float((nonzero == np.rint(nonzero)).mean())
    if whole_share > 0.05 and (whole_share > 0.3 or high > 12):
        return None
    said = hint.lower()
    if "log2" in said and "log2" in said.replace(" ", ""):
        return Scale(
            "log2", f"the file says so ({_quote(hint, 'log2')}); largest {high:.3g}", sure=False
        )
    if re.search(r"log1p|lognorm|log[- ]?normali[sz]ed|log\(", said):
        return Scale("log1p", f"the file says log-normalised; largest {high:.3g}", sure=False)
    if high > 25:
        return None
    median = float(np.median(nonzero))
    if high > 12.5 and median > 2.5:
        return Scale(
            "log2",
            f"fractions up to {high:.3g} {where}, more than the natural logarithm of TPM can "
            "reach: most likely log2(TPM+1)",
            sure=False,
        )
    if high > 9.3 and median > 2.5:
        return Scale(
            "log_other",
            f"fractions up to {high:.3g} {where}, more than log1p(CP10k) can reach: log2 or "
            "natural logarithm of TPM or CPM",
            sure=False,
        )
    if high > 12:
        return None
    if high <= 1.5:
        return Scale(
            "unknown",
            f"fractions of at most {high:.3g} {where}: shares or probabilities rather than "
            "logged expression",
            sure=False,
        )
    return Scale(
        "log_other",
        f"fractions up to {high:.3g} {where}: the range of a logarithm whose base and target sum "
        "cannot be told (genes are a subset, or several steps were taken)",
        sure=False,
    )


def _quote(text: str, word: str) -> str:
    at = text.lower().find(word)
    start, stop = max(0, at - 20), min(len(text), at + 40)
    return repr(text[start:stop].strip())

"""From p to adjusted p, as a run had it, for p-values that were not part of the run.

An adjusted p-value depends on all p-values of its family. To ask what the run would have said of a
cell that looked a little different (without a gene, at half its depth) the family is held fixed: the
run's own relation between p and adjusted p is kept as a curve, and new p-values are read off it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from senoscore.null import benjamini_hochberg, over_threads, storey


class Adjust(Protocol):
    """Name of a family of tests, its p-values (NaN: not in the family) -> adjusted p-values.

    With a `scale` the adjusted value is p times that, at most 1.
    """

    def __call__(
        self, name: str, p: NDArray[np.float64], scale: float | None = None
    ) -> NDArray[np.float64]:
        """Adjusted p of one family."""
        ...


def adjust_among(
    name: str, p: NDArray[np.float64], scale: float | None = None
) -> NDArray[np.float64]:
    """Adjusted over the candidates at hand (`null.storey`), or by a factor; what a run does."""
    del name
    return storey(p) if scale is None else np.minimum(scale * p, 1.0)


@dataclass(frozen=True)
class Curve:
    """Adjusted p as a function of p, for one family of tests.

    Examples
    --------
    >>> p = np.array([0.01, 0.02, 0.9])
    >>> curve = Curve.of(p, benjamini_hochberg(p))
    >>> curve(np.array([0.005, 0.02, 0.021, np.nan])).round(4).tolist()
    [0.015, 0.03, 0.0315, nan]
    """

    p: NDArray[np.float64]
    padj: NDArray[np.float64]
    rank: NDArray[np.int64]
    factor: float

    @classmethod
    def of(cls, p: NDArray[np.float64], padj: NDArray[np.float64]) -> Curve:
        """The curve of a family; NaN is left out. `rank`: how many have this p or a smaller one."""
        known = ~np.isnan(p) & ~np.isnan(padj)
        order = np.argsort(p[known])  # equal p have equal adjusted p
        p, padj = p[known][order], padj[known][order]
        # adjusted p is factor * p / (its rank), where that is not cut at the value of a larger p
        plain = benjamini_hochberg(p)
        inside = (plain < 1) & (plain > 0)
        share = float(np.median(padj[inside] / plain[inside])) if inside.any() else 1.0
        last = np.flatnonzero(np.append(p[1:] != p[:-1], True)) if len(p) else np.zeros(0, np.int64)
        # an empty family becomes a family of one
        return cls(p[last], padj[last], last + 1, share * max(len(p), 1))

    @classmethod
    def line(cls, scale: float) -> Curve:
        """Adjusted p is p times `scale`, at most 1.

        Examples
        --------
        >>> Curve.line(4.0)(np.array([0.01, 0.25, 0.5])).tolist()
        [0.04, 1.0, 1.0]
        """
        one = np.ones(1)
        return cls(one / scale, one, np.ones(1, np.int64), scale)

    def compact(self) -> Curve:
        """The same curve without what lies inside a run of equal adjusted p."""
        if not len(self.p):
            return self
        change = self.padj[1:] != self.padj[:-1]
        keep = np.append(True, change) | np.append(change, True)
        return Curve(self.p[keep], self.padj[keep], self.rank[keep], self.factor)

    def critical(self, level: float) -> float:
        """The largest p of the family with an adjusted p of at most `level`; 0 if there is none."""
        below = self.p[self.padj <= level]
        return float(below[-1]) if len(below) else 0.0

    def __call__(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Adjusted p of values that take the place of one of the family."""
        values = np.asarray(p, np.float64)
        out = np.full(values.shape, np.nan)
        known = ~np.isnan(values)
        if not known.any():
            return out
        at = values[known]
        place = np.searchsorted(self.p, at, side="right")
        rank = np.append(0, self.rank)[place]
        own = self.factor * at / np.maximum(rank, 1)
        above = np.append(self.padj, 1.0)[place]
        adjusted = np.minimum(own, above)
        member = place > 0
        member[member] = self.p[place[member] - 1] == at[member]
        adjusted[member] = self.padj[place[member] - 1]
        out[known] = np.minimum(adjusted, 1.0)
        return out


@dataclass
class Recorder:
    """Adjusts as a run does, and keeps the curve of every family."""

    curves: dict[str, Curve] = field(default_factory=dict)

    def __call__(
        self, name: str, p: NDArray[np.float64], scale: float | None = None
    ) -> NDArray[np.float64]:
        """Adjusted p of one family."""
        padj = adjust_among(name, p, scale)
        self.curves[name] = Curve.of(p, padj) if scale is None else Curve.line(scale)
        return padj


@dataclass(frozen=True)
class Frozen:
    """Adjusts new p-values by the curves of a run."""

    curves: Mapping[str, Curve]

    def __call__(
        self, name: str, p: NDArray[np.float64], scale: float | None = None
    ) -> NDArray[np.float64]:
        """Adjusted p by the curve of that family; `scale` was the run's."""
        del scale
        if name not in self.curves:
            # nothing was a candidate in the run: a family of one
            return np.asarray(p, np.float64).copy()
        return self.curves[name](p)


@dataclass(frozen=True)
class Thresholds:
    """What p a call took in one run: every relation between p and adjusted p, held fixed.

    cells: (lineage, signature) -> its curve. steps: the families among candidates.
    """

    cells: Mapping[tuple[str, str], Curve]
    steps: Mapping[str, Curve]

    @classmethod
    def of(
        cls,
        pvalue: pd.DataFrame,
        padj: pd.DataFrame,
        lineage: pd.Series | NDArray[np.object_],
        steps: Mapping[str, Curve],
        wanted: Mapping[str, Sequence[str]],
        *,
        threads: int = 1,
    ) -> Thresholds:
        """The thresholds of a run, for the signatures `wanted` in each lineage."""
        here = {name: np.flatnonzero(np.asarray(lineage == name, bool)) for name in wanted}
        families = [
            (name, signature)
            for name, signatures in wanted.items()
            for signature in signatures
            if len(here[name]) and signature in pvalue
        ]
        columns = {name: k for k, name in enumerate(pvalue)}
        p, q = pvalue.to_numpy(), padj.to_numpy()
        cells: dict[tuple[str, str], Curve] = {}

        def one(family: tuple[str, str]) -> None:
            rows, k = here[family[0]], columns[family[1]]
            cells[family] = Curve.of(p[rows, k].astype(np.float64), q[rows, k].astype(np.float64))

        over_threads(one, families, threads)
        return cls(cells, steps)

    def adjusted(self, pvalue: pd.DataFrame, lineage: NDArray[np.object_]) -> pd.DataFrame:
        """Adjusted p of cells of these lineages; NaN where the run had no such family."""
        out = np.full(pvalue.shape, np.nan)
        columns = {name: k for k, name in enumerate(pvalue)}
        for (name, signature), curve in self.cells.items():
            if signature in columns:
                here, k = np.flatnonzero(lineage == name), columns[signature]
                out[here, k] = curve(pvalue[signature].to_numpy(np.float64)[here])
        return pd.DataFrame(out, index=pvalue.index, columns=pvalue.columns)

    @property
    def adjust(self) -> Frozen:
        """For `calling.verdicts`: candidates are adjusted by the curves of the run."""
        return Frozen(self.steps)

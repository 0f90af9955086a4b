"""Do published sets say what we say? Sets and calls compared pair by pair, lineage by lineage.

Scores are compared by rank, cells called by a set (adjusted p up to the run's rate) by overlap, and
our calls with a score by how often a called cell ranks above one that is not. All numbers are over
cells of one lineage: over several, two sets agree as soon as both know lymphocytes from monocytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from senoscore import keys
from senoscore.calling import AXIS_SIGNATURES, CORE, Labels, among
from senoscore.donors import SENESCENCE_OF
from senoscore.scoring import sample_cells

MAX_CELLS: Final = 20_000
CALL_SENESCENT: Final = "call: senescent"
CALL_EXHAUSTED: Final = "call: exhausted"
COLUMNS: Final = (
    "lineage", "a", "b", "n_lineage", "sampled", "n_cells", "spearman", "n_judged", "n_called_a",
    "n_called_b", "n_called_both", "jaccard", "kappa", "auroc", "n_genes_shared",
)  # fmt: skip

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class _Voice(NamedTuple):
    """What a set, or a call, says of each cell: its z, and whether it calls the cell."""

    name: str
    z: Floats | None  # None for a call
    scored: Bools
    called: Bools
    judged: Bools


def agreement(
    z: pd.DataFrame,
    padj: pd.DataFrame,
    *,
    comparators: Sequence[str],
    lineage: Labels,
    use: Bools,
    call: Labels,
    t_state: Labels,
    fdr: float,
    genes: Mapping[str, Collection[str]] | None = None,
    max_cells: int = MAX_CELLS,
) -> pd.DataFrame:
    """Agreement of published sets, our sets and our calls, for each pair in each lineage.

    The pairs are those of: the comparators scored in the lineage, the lineage's senescence
    signature, core senescence, in T cells the exhaustion axis, and our calls.

    Parameters
    ----------
    z, padj
        Cells × signatures; index = names of the cells.
    comparators
        Columns that are published sets. Without any the table is empty.
    lineage, call, t_state
        Of each cell: `keys.LINEAGES`, `keys.SENESCENCE_CALLS`, `keys.T_STATES`.
    use
        Cells that take part: those that passed quality control.
    fdr
        A set calls the cells whose adjusted p is at most this.
    genes
        Signature → genes that vote in this file, to count those that two sets share.
    max_cells
        Of a lineage with more cells than this, about so many, chosen by a hash of their names.

    Returns
    -------
    DataFrame with `COLUMNS`, one row per lineage and pair:

    * ``n_lineage`` cells of the lineage that take part, ``sampled`` whether only some were looked at;
    * ``n_cells`` in which both have a z, ``spearman`` over these. Where one of the two is a call:
      cells with a z that the call decided, and ``auroc``, the probability that a called cell has
      the higher z (ties count one half);
    * ``n_judged`` cells in which both call or do not, ``n_called_a``, ``n_called_b``,
      ``n_called_both`` of these, ``jaccard`` = both / either, ``kappa`` (Cohen 1960, Educ Psychol
      Meas 20:37). Cells that are ``indeterminate`` are not judged by a call;
    * ``n_genes_shared``: genes that vote in both sets; 0 for a call.

    NaN where a number is not defined: no cell called by either, or a constant z.

    Examples
    --------
    >>> z = pd.DataFrame({"core_senescence": [0.0, 1.0, 2.0], "mine": [0.1, 0.3, 0.2]})
    >>> table = agreement(
    ...     z,
    ...     z * np.nan,
    ...     comparators=["mine"],
    ...     lineage=np.array(["B"] * 3),
    ...     use=np.ones(3, bool),
    ...     call=np.array(["indeterminate"] * 3),
    ...     t_state=np.array([""] * 3),
    ...     fdr=0.05,
    ... )
    >>> table[["a", "b", "n_cells", "spearman"]].to_numpy().tolist()
    [['mine', 'core_senescence', 3, 0.5]]
    """
    rows = []
    published = [name for name in comparators if name in z]
    for name in keys.LINEAGES if published else ():
        cells = np.flatnonzero(among(lineage, name) & use)
        n = len(cells)
        if n > max_cells:
            cells = cells[sample_cells(z.index[cells], np.zeros(n, np.int64), 1, max_cells)]
        voices = [
            _set_voice(
                s, z[s].to_numpy(np.float64)[cells], padj[s].to_numpy(np.float64)[cells], fdr
            )
            for s in dict.fromkeys([*published, *_ours(name)])
            if s in z
        ]
        voices = [voice for voice in voices if voice.scored.any()]
        if not any(voice.name in published for voice in voices):
            continue
        voices += _call_voices(name, cells, call, t_state)
        ranks: dict[str, Floats] = {}
        for k, a in enumerate(voices):
            for b in voices[k + 1 :]:
                shared = set((genes or {}).get(a.name, ())) & set((genes or {}).get(b.name, ()))
                rows.append(
                    (name, a.name, b.name, n, len(cells) < n, *_pair(a, b, ranks), len(shared))
                )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _ours(lineage: str) -> list[str]:
    """Our sets that speak about a lineage's senescence, and exhaustion."""
    exhaustion = AXIS_SIGNATURES["exhaustion"] if lineage == "T" else ()
    return [SENESCENCE_OF[lineage], CORE, *exhaustion]


def _set_voice(name: str, z: Floats, padj: Floats, fdr: float) -> _Voice:
    return _Voice(name, z, np.isfinite(z), padj <= fdr, np.isfinite(padj))


def _call_voices(
    lineage: str, cells: NDArray[np.intp], call: Labels, t_state: Labels
) -> list[_Voice]:
    """Our calls that decide at least one of the cells."""
    called = among(call, "senescent")[cells]
    made = [(CALL_SENESCENT, called, called | among(call, "not_senescent")[cells])]
    if lineage == "T":
        exhausted = among(t_state, "exhausted", "both")[cells]
        decided = among(t_state, *(s for s in keys.T_STATES if s != "indeterminate"))[cells]
        made.append((CALL_EXHAUSTED, exhausted, decided))
    return [_Voice(n, None, judged, yes, judged) for n, yes, judged in made if judged.any()]


def _pair(a: _Voice, b: _Voice, ranks: dict[str, Floats]) -> tuple[float, ...]:
    """The numbers of two voices, in the order of `COLUMNS`."""
    both = a.scored & b.scored
    rho = area = np.nan
    if a.z is not None and b.z is not None:
        rho = _product_moment(*(_ranks_of(v, both, ranks) for v in (a, b)))
    elif a.z is not None:  # calls come last
        area = auroc(a.z[both], b.called[both])
    judged = a.judged & b.judged
    first, second = a.called[judged], b.called[judged]
    counts = len(first), int(first.sum()), int(second.sum()), int((first & second).sum())
    return (int(both.sum()), rho, *counts, *overlap(*counts), area)


def _ranks_of(voice: _Voice, cells: Bools, ranks: dict[str, Floats]) -> Floats:
    """Doubled ranks less their mean: whole numbers. Ranked once unless another set lacks cells."""
    assert voice.z is not None
    if (cells == voice.scored).all():
        if voice.name not in ranks:
            ranks[voice.name] = _doubled(voice.z[cells])
        return ranks[voice.name]
    return _doubled(voice.z[cells])


def _ranks(values: Floats) -> Floats:
    """Ranks from 1, ties their mean: ``scipy.stats.rankdata``, without the second its import takes."""
    return np.asarray(pd.Series(values).rank().to_numpy(np.float64))


def _doubled(values: Floats) -> Floats:
    return np.asarray(2.0 * _ranks(values) - (len(values) + 1))


def _product_moment(x: Floats, y: Floats) -> float:
    # sums of products of whole numbers are exact below 2**53, in whatever order they are added
    spread = float(np.sqrt(x @ x) * np.sqrt(y @ y))
    return float(x @ y) / spread if spread > 0 else float("nan")


def auroc(values: Floats, called: Bools) -> float:
    """Probability that a called cell has the higher value, ties one half; NaN without both kinds.

    Examples
    --------
    >>> auroc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    0.875
    """
    n = int(called.sum())
    m = len(called) - n
    if not n or not m:
        return float("nan")
    return float((_ranks(values)[called].sum() - n * (n + 1) / 2) / (n * m))


def overlap(n: int, n_a: int, n_b: int, n_both: int) -> tuple[float, float]:
    """Jaccard index and Cohen's kappa of two sets of called cells among n.

    NaN where neither calls a cell, and kappa also where chance alone agrees on every cell.

    Examples
    --------
    >>> overlap(10, 4, 2, 2)
    (0.5, 0.5454545454545454)
    """
    either = n_a + n_b - n_both
    jaccard = n_both / either if either else float("nan")
    # everything times n * n: whole numbers until the last division
    chance = n_a * n_b + (n - n_a) * (n - n_b)
    agree = n * (n - either + n_both)
    kappa = (agree - chance) / (n * n - chance) if n * n > chance else float("nan")
    return jaccard, kappa

"""Lineages from marker genes: for clusters without names, and the subset of a T cell.

Genes and their typical levels are in ``data/lineage_markers.tsv``. Evidence is read from clusters
of cells, because a single cell shows a few of its markers only, and from the cell itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from senoscore._clustering import cluster_cells, order_of, variable_genes
from senoscore.keys import LINEAGES
from senoscore.lineages import T_GENES, Marker, label_codes, marker_genes, per_cell, read_markers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray
    from scipy import sparse

__all__ = [
    "cluster_cells",
    "cluster_table",
    "doublet_markers",
    "exclusive_pairs",
    "marker_evidence",
    "marker_genes",
    "order_of",
    "score_clusters",
    "t_subsets",
    "variable_genes",
]


def _linear(expression: sparse.csr_matrix, scale: str) -> sparse.csr_matrix:
    """Expression as counts per 10,000, from log1p(CP10k) or log2(TPM+1)."""
    out = expression.astype(np.float64).tocsr(copy=True)
    if scale == "log2":
        out.data = (np.exp2(out.data) - 1.0) / 100.0
    else:
        out.data = np.expm1(out.data)
    return out


def _cluster_means(
    expression: sparse.csr_matrix, codes: NDArray[np.int64], n: int, scale: str
) -> NDArray[np.float64]:
    from scipy import sparse as sp

    rows = np.flatnonzero(codes >= 0)
    sums = sp.csr_matrix(
        (np.ones(len(rows)), (codes[rows], rows)), shape=(n, expression.shape[0])
    ) @ _linear(expression, scale)
    size = np.bincount(codes[rows], minlength=n).astype(np.float64)
    return np.asarray(sums.todense()) / np.maximum(size, 1.0)[:, None]


def marker_evidence(
    means: NDArray[np.float64], symbols: Sequence[str] | NDArray[Any], *, organism: str | None
) -> tuple[NDArray[np.float64], list[tuple[str, str, str]]]:
    """How far each group of cells reaches the marker levels of each cell type, 0 to 1.

    A gene at its typical level (counts per 10,000 in cells of the type) counts 1, at a tenth of it
    0.28, at a hundredth 0.04; the evidence for a type is the mean over its measured markers,
    weighted by how specific they are. A type is judged only if at least a quarter of its marker
    weight, or two genes of its own, are measured, and not by shared genes alone.

    Parameters
    ----------
    means
        Groups x genes, mean counts per 10,000.
    symbols
        Names of the genes.
    organism
        ``human`` or ``mouse``.

    Returns
    -------
    Groups x types, and the types: name, lineage, subset.
    """
    column = {str(symbol): i for i, symbol in enumerate(symbols)}
    by_type: dict[tuple[str, str, str], list[Marker]] = {}
    for marker in read_markers(organism):
        by_type.setdefault((marker.kind, marker.lineage, marker.subset), []).append(marker)
    scores: list[NDArray[np.float64]] = []
    types: list[tuple[str, str, str]] = []
    for key, markers in by_type.items():
        seen = [m for m in markers if m.gene in column]
        weight = np.array([m.weight for m in seen])
        enough = weight.sum() >= 0.25 * sum(m.weight for m in markers)
        if not (weight >= 0.6).any() or not (enough or (weight >= 1.0).sum() >= 2):
            continue
        level = np.array([m.level for m in seen])
        part = means[:, [column[m.gene] for m in seen]]
        reached = np.minimum(np.log1p(9.0 * part / level) / np.log(10.0), 1.0)
        scores.append(reached @ weight / weight.sum())
        types.append(key)
    if not types:
        return np.zeros((len(means), 0)), []
    return np.column_stack(scores), types


MIN_EVIDENCE: Final = 0.25
MIN_MARGIN: Final = 0.1
MIN_MARGIN_CELL: Final = 0.05
MIN_MARGIN_ALONE: Final = 0.1
SOUP: Final = 0.4
"""A cluster whose third lineage reaches this, and whose first does not stand out (`SOUP_MARGIN`),
holds ambient RNA or a mixture: it says nothing about its cells."""
SOUP_MARGIN: Final = 0.2
# a lineage can only be told from one that shares its markers if that one could be judged too
_RIVALS: Final = {"NK": ("T",), "neutrophil": ("mono_mac",), "DC": ("mono_mac",)}
_CHUNK: Final = 20_000


def _verdicts(evidence: NDArray[np.float64], types: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    """Best lineage of each group, its subset, the runner-up and the margin between them."""
    import pandas as pd

    n = len(evidence)
    names = list(dict.fromkeys(lineage for _, lineage, _ in types))
    if not names:
        empty = np.full(n, "", dtype=object)
        return pd.DataFrame(
            {"lineage": empty, "subset": empty, "evidence": 0.0, "runner_up": empty, "margin": 0.0,
             "third": 0.0, "ambiguous": True}
        )  # fmt: skip
    best = np.column_stack(
        [
            evidence[:, [i for i, t in enumerate(types) if t[1] == name]].max(axis=1)
            for name in names
        ]
    )
    order = np.argsort(-best, axis=1, kind="stable")
    ranked = np.take_along_axis(best, order, axis=1)
    ranked = np.column_stack([ranked, np.zeros((n, 3))])
    first = order[:, 0]
    kind = np.array([t[1] for t in types], dtype=object)
    within = np.where(kind[None, :] == np.array(names, dtype=object)[first][:, None], evidence, -1)
    subset = np.array([t[2] for t in types], dtype=object)[within.argmax(axis=1)]
    told = np.array([set(_RIVALS.get(name, ())) <= set(names) for name in names])[first]
    margin = np.where(told, ranked[:, 0] - ranked[:, 1], 0.0)
    return pd.DataFrame(
        {
            "lineage": np.array(names, dtype=object)[first],
            "subset": subset,
            "evidence": ranked[:, 0],
            "runner_up": np.array([*names, ""], dtype=object)[
                order[:, 1] if len(names) > 1 else np.full(n, -1)
            ],
            "margin": margin,
            "third": ranked[:, 2],
            "ambiguous": (ranked[:, 0] < MIN_EVIDENCE) | (margin < MIN_MARGIN),
        }
    )


def cluster_table(
    expression: sparse.csr_matrix,
    symbols: Sequence[str] | NDArray[Any],
    clusters: Sequence[object] | NDArray[Any] | pd.Series,
    *,
    organism: str | None = "human",
    scale: str = "log1p",
) -> pd.DataFrame:
    """Lineage of each cluster from its marker genes.

    Parameters
    ----------
    expression
        Cells x panel genes, logged.
    symbols
        Names of the panel genes.
    clusters
        Cluster of each cell.
    organism
        ``human`` or ``mouse``.
    scale
        ``log1p`` for log1p(CP10k), ``log2`` for log2(TPM+1).

    Returns
    -------
    One row a cluster: cluster, n_cells, lineage, subset, evidence (0 to 1), runner_up, margin,
    ambiguous. A cluster is ambiguous when no lineage reaches `MIN_EVIDENCE` or two are closer
    than `MIN_MARGIN`.
    """
    codes, names = label_codes(clusters, expression.shape[0])
    means = _cluster_means(expression, codes, len(names), scale)
    table = _verdicts(*marker_evidence(means, symbols, organism=organism))
    table.insert(0, "cluster", names)
    table.insert(1, "n_cells", np.bincount(codes[codes >= 0], minlength=len(names)))
    return table


def score_clusters(
    expression: sparse.csr_matrix,
    symbols: Sequence[str] | NDArray[Any],
    clusters: Sequence[object] | NDArray[Any] | pd.Series,
    *,
    organism: str | None = "human",
    scale: str = "log1p",
    index: pd.Index | None = None,
) -> pd.DataFrame:
    """Lineage of each cell from the markers of its cluster and its own, half and half.

    The cluster says what a cell with few counts is; the cell's own markers keep a stray
    neutrophil in a cluster of monocytes a neutrophil. In a cluster that shows three lineages at
    once (ambient RNA, doublets) each cell is judged alone. A cell stays open (NaN) where no
    lineage reaches `MIN_EVIDENCE`, or two are closer than `MIN_MARGIN_CELL` (`MIN_MARGIN_ALONE`).

    Parameters
    ----------
    expression
        Cells x panel genes, logged.
    symbols
        Names of the panel genes.
    clusters
        Cluster of each cell; a cell without one is judged alone.
    organism
        ``human`` or ``mouse``.
    scale
        ``log1p`` for log1p(CP10k), ``log2`` for log2(TPM+1).
    index
        Names of the cells; those of `clusters` by default, where it is a Series.

    Returns
    -------
    As ``LabelMap.obs``; ``lineage_source`` is ``markers``, ``ambiguous`` or ``unmapped``.
    """
    n = expression.shape[0]
    if index is None:
        index = getattr(clusters, "index", None)
    codes, names = label_codes(clusters, n)
    means = _cluster_means(expression, codes, len(names), scale)
    by_cluster, types = marker_evidence(means, symbols, organism=organism)
    clusters_told = _verdicts(by_cluster, types)
    soup = ((clusters_told["third"] >= SOUP) & (clusters_told["margin"] < SOUP_MARGIN)).to_numpy()
    helps = (codes >= 0) & ~np.append(soup, True)[codes]
    lineage = np.full(n, None, dtype=object)
    subset = np.full(n, None, dtype=object)
    source = np.full(n, "unmapped", dtype=object)
    for start in range(0, n if types else 0, _CHUNK):
        rows = slice(start, min(n, start + _CHUNK))
        own, _ = marker_evidence(
            np.asarray(_linear(expression[rows], scale).todense()), symbols, organism=organism
        )
        reach = own.max(axis=1)
        both = own.copy()
        helped = helps[rows]
        of_cluster = by_cluster[codes[rows][helped]]
        both[helped] = (own[helped] + of_cluster) / 2.0
        reach[helped] = np.maximum(reach[helped], of_cluster.max(axis=1))
        table = _verdicts(both, types)
        wanted = np.where(helped, MIN_MARGIN_CELL, MIN_MARGIN_ALONE)
        seen = reach >= MIN_EVIDENCE
        clear = seen & (table["margin"].to_numpy() >= wanted)
        lineage[rows] = np.where(clear, table["lineage"], None)
        subset[rows] = np.where(clear, table["subset"], None)
        source[rows] = np.where(clear, "markers", np.where(seen, "ambiguous", "unmapped"))
    is_t = lineage == "T"
    subset[is_t] = t_subsets(expression[is_t], symbols, organism=organism, clusters=codes[is_t])
    return per_cell(
        lineage.tolist(), subset.tolist(), source.tolist(), np.arange(n, dtype=np.intp), index
    )


def t_subsets(
    expression: sparse.csr_matrix,
    symbols: Sequence[str] | NDArray[Any],
    *,
    is_t: NDArray[np.bool_] | None = None,
    organism: str | None = "human",
    clusters: NDArray[np.int64] | None = None,
) -> NDArray[Any]:
    """Subset of each T cell from the genes it shows; ``T`` where it shows none of them.

    A regulatory T cell needs FOXP3 and IL2RA or CTLA4, a gamma-delta cell its receptor and not
    the other one, a MAIT cell SLC4A10, or TRAV1-2 with KLRB1. CD4 transcripts are few, so cells
    that show neither CD4 nor CD8 follow their cluster where that is clear.

    Parameters
    ----------
    expression
        Cells x panel genes. Counts will do, only which genes a cell shows and which of CD4 and
        CD8 more is used; with `clusters` it has to be log1p(CP10k).
    symbols
        Names of the panel genes.
    is_t
        Which cells are T cells; all by default. The others get None.
    organism
        ``human`` or ``mouse``.
    clusters
        Cluster of each cell, -1 for none.
    """
    if is_t is not None:
        whole = np.full(len(is_t), None, dtype=object)
        whole[is_t] = t_subsets(
            expression[np.flatnonzero(is_t)],
            symbols,
            organism=organism,
            clusters=None if clusters is None else clusters[is_t],
        )
        return whole
    names = {str(symbol): i for i, symbol in enumerate(symbols)}
    genes = T_GENES["mouse" if organism == "mouse" else "human"]
    n = expression.shape[0]
    held = expression.tocsc()

    def value(k: int) -> NDArray[np.float64]:
        column = names.get(genes[k])
        if column is None:
            return np.zeros(n)
        return np.asarray(held[:, [column]].todense(), dtype=np.float64).ravel()

    (cd4, cd8a, cd8b, foxp3, il2ra, ctla4, trdc, trgc1, trgc2, trdv1, trdv2, slc4a10, trav, klrb1,
     trac, trbc1, trbc2) = (value(k) for k in range(len(genes)))  # fmt: skip
    cd8 = cd8a + cd8b
    result = np.full(n, "T", dtype=object)
    result[(cd4 > 0) & (cd8 == 0)] = "CD4"
    result[(cd8 > 0) & (cd4 == 0)] = "CD8"
    both = (cd4 > 0) & (cd8 > 0)
    result[both & (cd4 > cd8)] = "CD4"
    result[both & (cd8 > cd4)] = "CD8"
    measured = genes[0] in names and bool({genes[1], genes[2]} & set(names))
    if clusters is not None and measured:
        for cluster in np.unique(clusters[clusters >= 0]):
            rows = np.flatnonzero(clusters == cluster)
            # typical counts per 10,000 in CD4 and in CD8 cells: 1 and 8
            share = np.array([np.expm1(cd4[rows]).mean(), np.expm1(cd8a[rows]).mean() / 8])
            share[1] += np.expm1(cd8b[rows]).mean() / 8
            if len(rows) >= 10 and share.max() >= 0.3 and share.max() >= 0.8 * share.sum():
                result[rows[result[rows] == "T"]] = ("CD4", "CD8")[int(share.argmax())]
    gamma_delta = (trdc > 0) & (
        (trdv1 + trdv2 > 0) | ((trgc1 + trgc2 > 0) & (trac + trbc1 + trbc2 == 0))
    )
    result[gamma_delta | (slc4a10 > 0) | ((trav > 0) & (klrb1 > 0))] = "innate_like"
    regulatory = (foxp3 > 0) & (cd8 == 0) & ((il2ra > 0) | (ctla4 > 0))
    result[regulatory] = "Treg"
    return result


# --------------------------------------------------------------------------------------------
# two lineages in one cell


def doublet_markers(
    symbols: Sequence[str] | NDArray[Any], *, organism: str | None = "human"
) -> dict[str, NDArray[np.int64]]:
    """Columns of the genes that only one lineage expresses, by lineage.

    Parameters
    ----------
    symbols
        Names of the panel genes.
    organism
        ``human`` or ``mouse``.
    """
    column = {str(symbol): i for i, symbol in enumerate(symbols)}
    found: dict[str, set[int]] = {}
    for marker in read_markers(organism):
        if marker.exclusive and marker.gene in column:
            found.setdefault(marker.lineage, set()).add(column[marker.gene])
    return {name: np.array(sorted(found.get(name, ())), dtype=np.int64) for name in LINEAGES}


_COMPATIBLE: Final = frozenset(
    frozenset(pair)
    for pair in (
        ("T", "NK"),  # cytotoxic T cells and NK cells share most of what tells them from others
        ("mono_mac", "DC"),  # one continuum in tissue
        ("mono_mac", "neutrophil"),
        ("B", "DC"),  # CD1C is on both
        ("neutrophil", "DC"),
    )
)


def exclusive_pairs() -> dict[tuple[str, str], bool]:
    """Whether one cell cannot be of both lineages, for every pair in the order of `LINEAGES`."""
    return {
        (a, b): frozenset((a, b)) not in _COMPATIBLE
        for i, a in enumerate(LINEAGES)
        for b in LINEAGES[i + 1 :]
    }

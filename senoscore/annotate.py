"""From a matrix and its labels to lineages: the first pass, label maps, markers, doublets.

Used by the pipeline (files) and by `pp` (an AnnData); knows of neither artefacts nor settings files.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from senoscore import keys
from senoscore.errors import InputDataError, SenoscoreWarning

if TYPE_CHECKING:
    from anndata import AnnData

    from senoscore.inputs import Input
    from senoscore.io.blocks import RowBlocks
    from senoscore.settings import AnnotateSettings
    from senoscore.streaming import Panel, Scan

CELL_COLUMNS = (
    keys.OBS_LINEAGE,
    keys.OBS_LINEAGE_SUBSET,
    keys.OBS_LINEAGE_SOURCE,
    keys.OBS_T_SUBSET,
)
LABEL_COLUMNS = ("label", "fine_label", "ontology", "lineage", "subset", "source", "n_cells")


def lineage_codes(lineage: pd.Series) -> NDArray[np.int64]:
    """Position of each cell's lineage in `keys.LINEAGES`, -1 for none."""
    values = np.asarray(lineage.astype(object), dtype=object)
    return np.asarray(pd.Categorical(values, categories=list(keys.LINEAGES)).codes, np.int64)


def panel_positions(data: Input) -> NDArray[np.int64]:
    """Genes kept cell by cell by the first pass: lineage markers, signature genes, drug targets.

    Targets in no signature remain what they are to the null: genes that may serve as controls.
    """
    from senoscore.scoring import registry_positions

    mask = registry_positions(data.genes)
    found = target_positions(data)
    mask[found[found >= 0]] = True
    return np.flatnonzero(mask)


def target_positions(data: Input) -> NDArray[np.int64]:
    """Gene position of each row of `senoscore.signatures.read_targets`, -1 where not measured."""
    from senoscore.signatures import read_targets

    targets = read_targets()
    mouse = data.genes.organism == "mouse"
    ids = targets["mouse_ensembl" if mouse else "ensembl"].astype(str).tolist()
    symbols = targets["mouse_gene" if mouse else "gene"].astype(str).tolist()
    none = [symbol in ("", "none") for symbol in symbols]
    found = data.genes.locate(
        ["" if no else i for no, i in zip(none, ids, strict=True)],
        ["" if no else s for no, s in zip(none, symbols, strict=True)],
    )
    return np.where(none, -1, found).astype(np.int64)


def _gene_class(data: Input) -> NDArray[np.uint8]:
    kinds = ("mito", "ribo", "haemoglobin")
    return np.asarray(
        sum(data.genes.mask(kind).astype(np.uint8) << bit for bit, kind in enumerate(kinds)),
        np.uint8,
    )


def scan(
    source: str | Path | AnnData | RowBlocks,
    data: Input,
    codes: NDArray[np.int64],
    *,
    rows: Callable[[int], tuple[int, int] | None] = lambda _: None,
    threads: int = 1,
    block_size: int = 2048,
    bar: Any = None,
) -> Scan:
    """The first pass with the panel and sample every run keeps; `codes` < 0 enter no gene sums."""
    from contextlib import nullcontext

    from senoscore import streaming
    from senoscore.io.blocks import open_blocks
    from senoscore.scoring import pass_kind, sample_cells

    n_codes = len(keys.LINEAGES)
    with open_blocks(source, matrix=data.matrix) as blocks:
        part = rows(blocks.n_obs)
        total = blocks.n_obs if part is None else part[1] - part[0]
        with bar(total) if bar is not None else nullcontext() as progress:
            return streaming.scan(
                blocks,
                streaming.Intake(data.genes, *pass_kind(data.scale)),
                gene_class=_gene_class(data),
                codes=codes,
                n_codes=n_codes,
                panel=panel_positions(data),
                sampled=sample_cells(data.obs.index, codes, n_codes),
                rows=part,
                block_size=block_size,
                threads=threads,
                progress=progress,
            )


def from_labels(
    data: Input, settings: AnnotateSettings
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Lineages from ontology terms and labels, and the table of labels; None where none helps."""
    from senoscore.lineages import map_labels

    label, fine, ontology = (
        data.column(f) for f in ("cell_type", "cell_type_fine", "cell_type_ontology")
    )
    if not settings.use_labels or (label is None and ontology is None):
        return None
    found = map_labels(label, fine=fine, ontology=ontology)
    if found.obs[keys.OBS_LINEAGE].isna().all():
        return None
    return found.obs.set_axis(data.obs.index), found.table


def warn_unmarked(cells: pd.DataFrame) -> None:
    """Say where the markers leave a fifth of the cells, or more, without a lineage: they are not scored."""
    lost = int(cells[keys.OBS_LINEAGE].isna().sum())
    if lost >= 0.2 * len(cells):
        warnings.warn(
            f"{lost:,} of {len(cells):,} cells have no lineage and are not scored: the markers of "
            "their clusters name none, or more than one",
            SenoscoreWarning,
            stacklevel=3,
        )


def warn_unmapped(table: pd.DataFrame) -> None:
    """Say which labels name no single lineage: their cells are not scored."""
    lost = table[table["source"].isin(["ambiguous", "unmapped"])]
    if len(lost):
        named = ", ".join(
            f"'{row.label or row.fine_label or row.ontology or 'none'}' ({row.n_cells})"
            for row in lost.head(5).itertuples()
        )
        more = " and others" if len(lost) > 5 else ""
        warnings.warn(
            f"{int(lost['n_cells'].sum())} cells have a label that names no single lineage and "
            f"are not scored: {named}{more}; labels.tsv lists them all",
            SenoscoreWarning,
            stacklevel=3,
        )


def lineages(
    source: str | Path | AnnData | RowBlocks,
    data: Input,
    *,
    settings: AnnotateSettings,
    found: Scan | None = None,
    labelled: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    threads: int = 1,
    block_size: int = 2048,
) -> tuple[pd.DataFrame, pd.DataFrame, Scan]:
    """Lineage, subset and source of every cell: labels where they help, else markers by cluster.

    Parameters
    ----------
    found, labelled
        The first pass and what `from_labels` gave, where they are known already.

    Returns
    -------
    cells (columns `CELL_COLUMNS`), the table of labels (empty on the marker route), and the first
    pass (made here unless given).
    """
    from senoscore import markers
    from senoscore.lineages import T_GENES

    if found is None:
        codes = np.full(len(data.obs), -1, np.int64)
        found = scan(source, data, codes, threads=threads, block_size=block_size)
    symbols = data.genes.symbols[panel_positions(data)]
    labelled = labelled or from_labels(data, settings)
    if labelled is not None:
        cells, table = labelled
        warn_unmapped(table)
    else:
        cells = by_markers(source, data, found, symbols, settings, threads=threads)
        table = pd.DataFrame(columns=list(LABEL_COLUMNS))
        if cells[keys.OBS_LINEAGE].isna().all():
            raise InputDataError(
                "no cell could be given a lineage: the file has no cell-type labels that name one, "
                "and the markers of no lineage stand out in its clusters; name a column of labels "
                "(config: dataset.cell_type)"
            )
        warn_unmarked(cells)
    wanted = set(T_GENES["mouse" if data.genes.organism == "mouse" else "human"])
    columns = np.asarray([i for i, s in enumerate(symbols) if s in wanted], np.int64)
    subset = markers.t_subsets(
        found.panel.columns(columns),
        symbols[columns],
        is_t=np.asarray(cells[keys.OBS_LINEAGE].astype(object) == "T"),
        organism=data.genes.organism,
    )
    known = np.asarray(cells[keys.OBS_T_SUBSET].astype(object), dtype=object)
    open_ = pd.isna(known) | (known == "T") | (known == "")
    is_t = np.asarray(cells[keys.OBS_LINEAGE].astype(object) == "T")
    known[is_t & open_] = subset[is_t & open_]
    known[~is_t] = None
    cells = cells.assign(**{keys.OBS_T_SUBSET: pd.Categorical(known)})
    return cells[list(CELL_COLUMNS)], table, found


def by_markers(
    source: str | Path | AnnData | RowBlocks,
    data: Input,
    found: Scan,
    symbols: NDArray[Any],
    settings: AnnotateSettings,
    *,
    threads: int,
) -> pd.DataFrame:
    """Lineages from markers, cluster by cluster: the author's clusters, else Leiden's."""
    from senoscore import markers
    from senoscore.scoring import expression_matrix

    clusters = data.column("cluster")
    totals = found.metrics[:, 0]
    if clusters is None:
        order = markers.order_of(data.obs.index)
        variable = markers.variable_genes(source, data, order=order, threads=threads)
        found_clusters = markers.cluster_cells(
            variable, order=order, resolution=settings.resolution
        )
        clusters = pd.Series(found_clusters, index=data.obs.index)
    return markers.score_clusters(
        expression_matrix(found.panel.columns(), totals, data.scale),
        symbols,
        clusters,
        organism=data.genes.organism,
        scale=data.scale,
    )


def doublets(
    data: Input, panel: Panel, totals: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.object_]]:
    """Cells with the markers of two lineages; none without counts."""
    from senoscore import markers, qc

    n = panel.shape[0]
    if not data.has_counts:
        return np.zeros(n, bool), np.full(n, "", dtype=object)
    symbols = data.genes.symbols[panel_positions(data)]
    found = markers.doublet_markers(symbols, organism=data.genes.organism)
    wanted = np.unique(np.concatenate([np.zeros(0, np.int64), *found.values()]))
    return qc.mixed_lineage(
        panel.columns(wanted),
        totals,
        {name: np.searchsorted(wanted, columns) for name, columns in found.items()},
        markers.exclusive_pairs(),
    )

"""Scrublet, sample by sample: a stage of its own that the config turns on.

The mixed-lineage flag of `senoscore.qc` is always made; it sees only doublets of two lineages.
Scrublet (Wolock 2019, as in scanpy) also sees those of two states, and needs the whole matrix of a
sample in memory.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from senoscore.errors import InputDataError, SenoscoreWarning

if TYPE_CHECKING:
    from anndata import AnnData

    from senoscore.inputs import Input
    from senoscore.io.blocks import RowBlocks

MIN_CELLS = 50  # simulated doublets of fewer cells are no reference
COLUMNS = ("doublet_score", "predicted_doublet")


def scrublet(
    source: str | Path | AnnData | RowBlocks, data: Input, *, threads: int = 1, seed: int = 0
) -> pd.DataFrame:
    """Doublet score and prediction of every cell, from the cells of its own sample.

    Returns
    -------
    ``doublet_score`` (0-1; NaN in samples of fewer than 50 cells) and ``predicted_doublet``
    (False there, and where no threshold was found).

    Raises
    ------
    InputDataError
        The file has no counts, or scikit-image, which finds the threshold, is not installed.
    """
    from anndata import AnnData

    from senoscore.io.blocks import open_blocks
    from senoscore.markers import order_of
    from senoscore.scoring import pass_kind
    from senoscore.streaming import Intake

    if not data.has_counts:
        raise InputDataError(
            "scrublet needs counts and the file has none; set qc.scrublet to false"
        )
    try:
        import scanpy as sc
        import skimage  # noqa: F401
    except ImportError as error:
        raise InputDataError(
            f"scrublet needs {error.name}: install senoscore[scrublet], or set qc.scrublet to false"
        ) from None
    with open_blocks(source, matrix=data.matrix) as blocks:
        intake = Intake(data.genes, *pass_kind(data.scale))
        counts = sparse.vstack(
            [intake(block).to_csr() for block in blocks.iter_blocks(threads=threads)], format="csr"
        )
    column = data.column("sample")
    samples = pd.Series("all cells", index=data.obs.index) if column is None else column.astype(str)
    found = pd.DataFrame(
        {"doublet_score": np.nan, "predicted_doublet": False}, index=data.obs.index
    )
    small = []
    order = order_of(data.obs.index)  # which doublets are simulated depends on it
    for name in sorted(samples.dropna().unique()):
        place = order[(samples == name).to_numpy()[order]]
        if len(place) < MIN_CELLS:
            small.append(str(name))
            continue
        one = AnnData(counts[place])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scanpy's own, on its own intermediate objects
            sc.pp.scrublet(one, random_state=seed)
        found.iloc[place, 0] = one.obs["doublet_score"].to_numpy()
        if "predicted_doublet" in one.obs:
            found.iloc[place, 1] = one.obs["predicted_doublet"].to_numpy(bool)
    if small:
        warnings.warn(
            f"scrublet left out {len(small)} samples of fewer than {MIN_CELLS} cells: "
            f"{', '.join(small[:5])}",
            SenoscoreWarning,
            stacklevel=2,
        )
    return found

"""The field's other scorers over a stream of blocks: ucell, aucell, score_genes, mean.

They give a score and no p-value. Each equals its original (see `senoscore.kernels`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from senoscore import streaming
from senoscore.kernels import means, ranks
from senoscore.kernels.passes import COUNTS, FIX_X, LOG, TARGET_SUM
from senoscore.kernels.sets import SetIndex, make_set_index

if TYPE_CHECKING:
    from senoscore.inputs import Input
    from senoscore.io.blocks import CsrBlock, RowBlocks
    from senoscore.scoring import Prepared


def expression_block(block: CsrBlock, kind: int) -> CsrBlock:
    """Stored values -> expression: log1p(CP10k) of counts, log1p of normalised, logged as it is."""
    if kind == LOG:
        return block
    values = block.data.astype(np.float64)
    if kind == COUNTS:
        lengths = np.diff(block.indptr)
        totals = np.zeros(block.n_obs)
        np.add.at(totals, np.repeat(np.arange(block.n_obs), lengths), values)
        values = values * np.repeat(
            np.divide(TARGET_SUM, totals, out=np.zeros_like(totals), where=totals > 0), lengths
        )
    return block._replace(data=np.log1p(values))


def set_index(prepared: Prepared, *, missing: bool) -> SetIndex:
    """The prepared signatures for the kernels; `missing` counts unmeasured genes (UCell's way)."""
    sets, weights, absent = [], [], []
    for voting, (_, row) in zip(prepared.voting, prepared.var.iterrows(), strict=True):
        sets.append((voting.positions, np.where(voting.weights < 0, -1, 1)))
        weights.append(np.abs(voting.weights))
        signature = prepared.signatures[str(row.name)]
        n_up = sum(g.direction > 0 for g in signature.voting())
        found_up = int((voting.weights > 0).sum())
        n_down = len(signature.voting()) - n_up
        absent.append((max(n_up - found_up, 0), max(n_down - (len(voting.weights) - found_up), 0)))
    return make_set_index(sets, absent if missing else None, weights=weights)


def score_plain(
    method: str,
    source: RowBlocks,
    data: Input,
    prepared: Prepared,
    codes: NDArray[np.int64],
    *,
    kind: tuple[int, float],
    seed: int = 0,
    rows: tuple[int, int] | None = None,
    threads: int = 1,
    block_size: int = 2048,
) -> NDArray[np.float64]:
    """Cells × signatures of one of the methods; NaN where a signature is not valid or not measured.

    `kind` is the values' kernel code and base of logarithm. Rank methods take values as they are.
    """
    intake = streaming.Intake(data.genes, *kind)
    sets = set_index(prepared, missing=method == "ucell")
    n = intake.n_genes
    controls: SetIndex | None = None
    if method == "score_genes":
        controls = _scanpy_controls(source, intake, sets, data, seed, threads, block_size)

    def one(stored: CsrBlock) -> NDArray[np.float64]:
        block: Any = intake(stored)
        if method == "ucell":
            return ranks.ucell(block.indptr, block.indices, block.data, n, sets)
        if method == "aucell":
            return ranks.aucell(block.indptr, block.indices, block.data, n, sets)
        block = expression_block(block, kind[0])
        if controls is not None:
            return means.score_genes(block.indptr, block.indices, block.data, n, sets, controls)
        return means.mean(block.indptr, block.indices, block.data, n, sets)

    parts = list(
        streaming.map_blocks(one, source, block_size=block_size, threads=threads, rows=rows)
    )
    out = np.vstack(parts) if parts else np.zeros((0, len(prepared.signatures)))
    here = codes if rows is None else codes[rows[0] : rows[1]]
    # admitted in the cell's own group; a cell of no group has no score
    allowed = np.vstack([prepared.allowed, np.zeros((1, out.shape[1]), bool)])[here]
    out[~allowed] = np.nan
    return out


def _scanpy_controls(
    source: RowBlocks,
    intake: streaming.Intake,
    sets: SetIndex,
    data: Input,
    seed: int,
    threads: int,
    block_size: int,
) -> SetIndex:
    """Scanpy's choice of control genes for each set, from the means over all cells.

    The choice depends on the order of genes in the file, as scanpy's does.
    """
    scan = streaming.scan(
        source, intake, gene_class=np.zeros(intake.n_genes, np.uint8),
        codes=np.zeros(source.n_obs, np.int64), n_codes=1, panel=np.zeros(0, np.int64),
        sampled=np.zeros(source.n_obs, bool), block_size=block_size, threads=threads,
    )  # fmt: skip
    gene_means = scan.sums[0] / 2**FIX_X / source.n_obs
    _, first = np.unique(data.genes.columns, return_index=True)
    file_order = np.argsort(first, kind="stable")
    place = np.empty_like(file_order)
    place[file_order] = np.arange(len(file_order))
    chosen = []
    for s in range(sets.n_sets):
        here = slice(sets.offsets[s], sets.offsets[s + 1])
        up = sets.genes[here][sets.signs[here] > 0]
        if not len(up):
            chosen.append((np.zeros(0, np.int64), 1))
            continue
        picked = means.score_genes_controls(gene_means[file_order], place[up], random_state=seed)
        chosen.append((file_order[picked], 1))
    return make_set_index(chosen)

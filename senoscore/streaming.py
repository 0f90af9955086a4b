"""Walk over a matrix once, block by block, in flat memory: the two passes of every run.

Everything here takes blocks of CSR rows and plain arrays. What comes out does not depend on block
size, threads, or the order of cells and genes: sums are integers, and what is per cell is computed
from that cell alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from senoscore.genes import ANTIBODY_PREFIX, GeneIndex
from senoscore.io.blocks import CsrBlock, RowBlocks
from senoscore.kernels.pack import compact
from senoscore.kernels.passes import (
    LOG,
    N_BINS,
    count_columns,
    gene_roles,
    make_walk,
    scan_rows,
    score_rows,
    take_columns,
    take_rows,
)
from senoscore.null import Plan

T = TypeVar("T")

Progress = Callable[[int], object]


def map_blocks(
    function: Callable[[CsrBlock], T],
    source: RowBlocks,
    *,
    block_size: int,
    threads: int,
    rows: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[CsrBlock, T]]:
    """`function` of every block, in order, `threads` blocks at a time.

    Blocks are handed out as they are read; no more than `threads + 1` wait at once.
    """
    blocks = source.iter_blocks(block_size=block_size, threads=threads, rows=rows)
    if threads <= 1:
        for block in blocks:
            yield block, function(block)
            if progress is not None:
                progress(block.n_obs)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="senoscore") as pool:
        waiting: deque[tuple[CsrBlock, Future[T]]] = deque()

        def oldest() -> tuple[CsrBlock, T]:
            block, future = waiting.popleft()
            result = future.result()
            if progress is not None:
                progress(block.n_obs)
            return block, result

        for block in blocks:
            waiting.append((block, pool.submit(function, block)))
            if len(waiting) > threads:
                yield oldest()
        while waiting:
            yield oldest()


def as_float(data: NDArray[Any]) -> NDArray[np.floating]:
    """Values as the kernels take them.

    Two compiled versions of each kernel are enough: float32 as most files are, float64 for all that
    float32 could not hold exactly.
    """
    if data.dtype == np.float32 or data.dtype == np.float64:
        return data
    return data.astype(np.float32 if data.dtype.itemsize <= 2 else np.float64)


class Intake:
    """Blocks of stored columns -> blocks of genes.

    Columns of a file that stand for the same gene are summed (on the linear scale where values
    are logged, base `log_base`); everything after it sees one column per gene.
    """

    def __init__(self, genes: GeneIndex, kind: int, log_base: float = np.e) -> None:
        self.columns = np.asarray(genes.columns, np.int32)
        self.n_genes = int(genes.n_genes)
        self.identity = self.n_genes == len(self.columns) and bool(
            (self.columns == np.arange(self.n_genes)).all()
        )
        self.merges = self.n_genes < len(self.columns)
        antibodies = np.asarray([str(s).startswith(ANTIBODY_PREFIX) for s in genes.symbols], bool)
        self.antibody = antibodies[self.columns] if antibodies.any() else None
        self.kind = kind
        self.scale = float(np.log(log_base))

    def __call__(self, block: CsrBlock) -> CsrBlock:
        """A block with one column per gene, as floats."""
        if self.antibody is not None:  # molecules of antibodies are no RNA
            keep = ~self.antibody[block.indices]
            before = np.concatenate([[0], np.cumsum(keep)])
            block = block._replace(
                indptr=before[block.indptr], indices=block.indices[keep], data=block.data[keep]
            )
        data = as_float(block.data)
        if self.identity:
            return block._replace(data=data)
        if not self.merges:
            return block._replace(
                indices=self.columns[block.indices], data=data, n_vars=self.n_genes
            )
        logged = self.kind == LOG
        values = data.astype(np.float64)
        if logged:
            values = np.expm1(values * self.scale)
        row = np.repeat(np.arange(block.n_obs), np.diff(block.indptr))
        # coo -> csr adds what falls on the same row and gene
        merged = sparse.coo_matrix(
            (values, (row, self.columns[block.indices])), shape=(block.n_obs, self.n_genes)
        ).tocsr()
        merged.eliminate_zeros()
        values = merged.data
        if logged:
            with np.errstate(divide="ignore", invalid="ignore"):  # scaled values are only counted
                values = np.log1p(values) / self.scale
        return CsrBlock(
            start=block.start,
            indptr=merged.indptr.astype(np.int64),
            indices=merged.indices.astype(np.int32),
            data=values,
            n_vars=self.n_genes,
        )


@dataclass(frozen=True)
class Panel:
    """Stored values of some genes, cell by cell, in as few bytes as hold them.

    indptr, indices, data: CSR rows. n_vars: genes of the panel.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.integer]
    data: NDArray[Any]
    n_vars: int

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return len(self.indptr) - 1, self.n_vars

    @classmethod
    def stack(cls, parts: Sequence[Panel], n_vars: int) -> Panel:
        """Panels of consecutive rows as one."""
        joined = _PanelParts(n_vars)
        rows = np.cumsum([part.shape[0] for part in parts])
        for part, n in zip(parts, rows, strict=True):
            joined.append(part, max(n, 1) / max(rows[-1], 1))
        return joined.whole()

    def __getitem__(self, rows: NDArray[np.int64]) -> sparse.csr_matrix:
        """Some rows by number, as the kernels take them."""
        indptr = np.append(0, np.cumsum(self.indptr[rows + 1] - self.indptr[rows]))
        indices = np.empty(indptr[-1], np.int32)
        data = np.empty(indptr[-1], as_float(self.data[:0]).dtype)
        take_rows(self.indptr, self.indices, self.data, rows, indptr, indices, data)
        return sparse.csr_matrix((data, indices, indptr), shape=(len(rows), self.n_vars))

    def columns(self, wanted: ArrayLike | None = None) -> sparse.csr_matrix:
        """Some genes of every cell, in the order asked for; None takes all."""
        places = np.arange(self.n_vars) if wanted is None else np.asarray(wanted, np.int64)
        place = np.full(self.n_vars, -1, np.int32)
        place[places] = np.arange(len(places), dtype=np.int32)
        indptr = np.empty(len(self.indptr), np.int64)
        count_columns(self.indptr, self.indices, place, indptr)
        indices = np.empty(indptr[-1], np.int32)
        data = np.empty(indptr[-1], as_float(self.data[:0]).dtype)
        take_columns(self.indices, self.data, place, indices, data)
        taken = sparse.csr_matrix((data, indices, indptr), shape=(self.shape[0], len(places)))
        taken.sort_indices()
        return taken


class _Growing:
    """An array that parts are appended to, in room made for all that are to come.

    Parts kept until they can be joined would take the memory twice; what of the room is not written to
    takes none.
    """

    def __init__(self) -> None:
        self._room: NDArray[Any] | None = None
        self._n = 0

    def append(self, part: NDArray[Any], share: float) -> None:
        """`share` (0-1): how much of all that is to come there is, with this part."""
        old, end = self._room, self._n + len(part)
        dtype = part.dtype if old is None else np.promote_types(old.dtype, part.dtype)
        if old is None or end > len(old) or dtype != old.dtype:
            self._room = np.empty(max(end, int(1.05 * end / share)), dtype)
            if old is not None:
                self._room[: self._n] = old[: self._n]
        assert self._room is not None
        self._room[self._n : end] = part
        self._n = end

    def whole(self) -> NDArray[Any]:
        """All parts."""
        return np.zeros(0, np.uint8) if self._room is None else self._room[: self._n]


class _PanelParts:
    """Panels of consecutive rows, to become one."""

    def __init__(self, n_vars: int) -> None:
        self._n_vars = n_vars
        self._counts: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
        self._indices, self._data = _Growing(), _Growing()

    def append(self, part: Panel, share: float) -> None:
        """As `_Growing.append`."""
        self._counts.append(np.diff(part.indptr))
        self._indices.append(part.indices, share)
        self._data.append(part.data, share)

    def whole(self) -> Panel:
        """All of them as one."""
        indptr = np.cumsum(np.concatenate(self._counts))
        return Panel(indptr, self._indices.whole(), self._data.whole(), self._n_vars)


@dataclass
class Scan:
    """What the first pass leaves: everything later stages need of the matrix except scores.

    metrics: cells × 6 (total, genes, top-50 sum, mitochondrial, ribosomal, haemoglobin sums).
    sums, n_cells: per lineage code, fixed-point sum of x per gene, and cells.
    panel: cells × panel genes, stored values.
    sample_rows, sample: which cells were sampled, and all genes of each.
    """

    metrics: NDArray[np.float64]
    sums: NDArray[np.int64]
    n_cells: NDArray[np.int64]
    panel: Panel
    sample_rows: NDArray[np.int64]
    sample: Panel

    def merge(self, other: Scan) -> Scan:
        """The scan of this shard's rows followed by another's."""
        return Scan(
            metrics=np.vstack([self.metrics, other.metrics]),
            sums=self.sums + other.sums,
            n_cells=self.n_cells + other.n_cells,
            panel=Panel.stack([self.panel, other.panel], self.panel.n_vars),
            sample_rows=np.concatenate([self.sample_rows, other.sample_rows]),
            sample=Panel.stack([self.sample, other.sample], self.sample.n_vars),
        )


@dataclass
class _Private:
    """Accumulators of one thread."""

    make: Callable[[], tuple[NDArray[np.integer], ...]]
    local: threading.local = field(default_factory=threading.local)
    all: list[tuple[NDArray[np.integer], ...]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self) -> tuple[NDArray[Any], ...]:
        """The accumulators of the thread that asks."""
        if not hasattr(self.local, "arrays"):
            self.local.arrays = self.make()
            with self.lock:
                self.all.append(self.local.arrays)
        return self.local.arrays  # type: ignore[no-any-return]

    def total(self) -> list[NDArray[np.int64]]:
        """The sums over all threads, in the arrays of the first of them where they are wide."""
        first, *others = self.all or [self.make()]
        totals = [part.astype(np.int64, copy=False) for part in first]
        for other in others:
            for total, part in zip(totals, other, strict=True):
                total += part
        return totals


def scan(
    source: RowBlocks,
    intake: Intake,
    *,
    gene_class: NDArray[np.uint8],
    codes: NDArray[np.int64],
    n_codes: int,
    panel: NDArray[np.int64],
    sampled: NDArray[np.bool_],
    rows: tuple[int, int] | None = None,
    block_size: int = 2048,
    threads: int = 1,
    progress: Progress | None = None,
) -> Scan:
    """First pass: metrics, gene sums per lineage, the panel genes and a sample of whole cells.

    `codes` and `sampled` are for all cells of the file, also when `rows` asks for some of them.
    """
    first, last = rows if rows is not None else (0, source.n_obs)
    metrics = np.zeros((last - first, 6))
    roles = gene_roles(gene_class, panel)
    width = np.uint16 if len(panel) < 2**16 else np.uint32
    private = _Private(lambda: (np.zeros((n_codes, intake.n_genes), np.int64),))

    def one(stored: CsrBlock) -> tuple[Panel, NDArray[np.int64], Panel]:
        block = intake(stored)
        here = slice(block.start - first, block.start - first + block.n_obs)
        # room for all; what is not written to costs nothing
        indptr = np.empty(block.n_obs + 1, np.int64)
        indices, data = np.empty(len(block.data), np.int32), np.empty_like(block.data)
        scan_rows(
            block.indptr, block.indices, block.data, intake.kind, roles,
            codes[block.start : block.start + block.n_obs], metrics[here], private.get()[0],
            indptr, indices, data,
        )  # fmt: skip
        used = indptr[-1]
        kept = Panel(indptr, indices[:used].astype(width), compact(data[:used]).copy(), len(panel))
        chosen = np.flatnonzero(sampled[block.start : block.start + block.n_obs])
        whole = Panel(block.indptr, block.indices, block.data, block.n_vars)[chosen]
        cells = Panel(
            whole.indptr.astype(np.int64), compact(whole.indices), compact(whole.data), block.n_vars
        )
        return kept, chosen + block.start, cells

    panels, samples = _PanelParts(len(panel)), _PanelParts(intake.n_genes)
    chosen_rows = []
    for block, (part, chosen, cells) in map_blocks(
        one, source, block_size=block_size, threads=threads, rows=rows, progress=progress
    ):
        share = (block.start + block.n_obs - first) / (last - first)
        panels.append(part, share)
        if len(chosen):
            chosen_rows.append(chosen)
            samples.append(cells, share)
    (sums,) = private.total()
    here = codes[first:last]
    counted = here[(here >= 0) & (metrics[:, 0] > 0)]
    return Scan(
        metrics=metrics,
        sums=sums,
        n_cells=np.bincount(counted, minlength=n_codes).astype(np.int64),
        panel=panels.whole(),
        sample_rows=np.concatenate(chosen_rows) if chosen_rows else np.zeros(0, np.int64),
        sample=samples.whole(),
    )


@dataclass
class Scored:
    """What the second pass leaves: d and z of each cell, and the counted null.

    score, z: cells × signatures, float32, NaN where not scored.
    histogram: lineages × signatures × strata × bins, how often a null set's z fell into each bin
    of `kernels.passes`.
    group_sums: groups × (signatures × (N + 1)), every set's sum over a group's cells.
    """

    score: NDArray[Any]
    z: NDArray[Any]
    histogram: NDArray[np.int64]
    group_sums: NDArray[np.int64]

    def merge(self, other: Scored) -> Scored:
        """The scores of this shard's rows followed by another's."""
        return Scored(
            score=np.vstack([self.score, other.score]),
            z=np.vstack([self.z, other.z]),
            histogram=self.histogram + other.histogram,
            group_sums=self.group_sums + other.group_sums,
        )


def score(
    source: RowBlocks,
    intake: Intake,
    plan: Plan,
    *,
    totals: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    n_strata: int,
    groups: NDArray[np.int64],
    n_groups: int,
    rows: tuple[int, int] | None = None,
    block_size: int = 2048,
    threads: int = 1,
    progress: Progress | None = None,
) -> Scored:
    """Second pass: every signature and its null, in each cell's own lineage."""
    first, last = rows if rows is not None else (0, source.n_obs)
    shape = (last - first, len(plan.signatures))
    scores: NDArray[Any] = np.full(shape, np.nan, np.float32)
    z: NDArray[Any] = np.full(shape, np.nan, np.float32)
    private = _Private(
        lambda: (
            # a bin holds 2**32 null sets' z: those of 21 million cells of one stratum and thread
            np.zeros((len(plan.lineages), len(plan.signatures), n_strata, N_BINS), np.uint32),
            np.zeros((n_groups, len(plan.signatures) * (plan.n_null + 1)), np.int64),
        )
    )

    walk = make_walk(plan.sets)

    def one(stored: CsrBlock) -> None:
        block = intake(stored)
        cells = slice(block.start, block.start + block.n_obs)
        here = slice(block.start - first, block.start - first + block.n_obs)
        histogram, group_sums = private.get()
        order = np.argsort(codes[cells] * n_strata + strata[cells])
        score_rows(
            block.indptr, block.indices, block.data, intake.kind, totals[cells], codes[cells],
            strata[cells], order, *walk, plan.usable, plan.n_null, plan.centres,
            scores[here], z[here], histogram, groups[cells], group_sums,
        )  # fmt: skip

    for _ in map_blocks(
        one, source, block_size=block_size, threads=threads, rows=rows, progress=progress
    ):
        pass
    return Scored(scores, z, *private.total())

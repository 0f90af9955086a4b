"""Walk over a matrix once, block by block, in flat memory: the two passes of every run.

Everything here takes blocks of CSR rows and plain arrays. What comes out does not depend on block
size, threads, or the order of cells and genes: sums are integers, and what is per cell is computed
from that cell alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy import sparse

from senoscore.errors import InputDataError
from senoscore.genes import ANTIBODY_PREFIX, GeneIndex
from senoscore.io._workers import workers
from senoscore.io.blocks import CsrBlock, LentRows, RowBlocks
from senoscore.kernels.pack import PackedRows, compact, pack
from senoscore.kernels.passes import (
    LOG,
    N_BINS,
    gene_roles,
    make_walk,
    scan_rows,
    score_rows,
    take_columns,
    take_rows,
    to_genes,
)
from senoscore.null import Plan
from senoscore.scratch import Kept, PackedBlock, pack_block

T = TypeVar("T")

Progress = Callable[[int], object]


def map_blocks(
    function: Callable[[CsrBlock], T],
    source: RowBlocks,
    *,
    block_size: int,
    threads: int,
    rows: tuple[int, int] | None = None,
) -> Iterator[T]:
    """`function` of every block, in order, `threads` blocks at a time."""
    blocks = source.iter_blocks(block_size=block_size, threads=threads, rows=rows)
    return _in_turn((partial(function, block) for block in blocks), threads)


def _map_packed(
    function: Callable[[PackedBlock], T],
    source: RowBlocks,
    intake: Intake,
    *,
    block_size: int,
    threads: int,
    rows: tuple[int, int] | None,
    progress: Progress | None,
) -> Iterator[tuple[PackedBlock, T]]:
    """`function` of all rows, packed, as `map_blocks`; and the rows."""

    def one(load: Callable[[], PackedBlock]) -> tuple[PackedBlock, T]:
        block = load()
        return block, function(block)

    owner = source.owner if isinstance(source, LentRows) else source
    loads: Iterator[Callable[[], PackedBlock]]
    if isinstance(owner, Kept):
        kept = owner.iter_packed(block_size=block_size, threads=threads, rows=rows)
        loads = (partial(intake.load, one) for one in kept)
    else:
        blocks = source.iter_blocks(block_size=block_size, threads=threads, rows=rows)
        loads = (partial(intake.pack, block) for block in blocks)
    for block, result in _in_turn((partial(one, load) for load in loads), threads):
        if progress is not None:
            progress(block.rows.n_rows)
        yield block, result


def _in_turn(tasks: Iterator[Callable[[], T]], threads: int) -> Iterator[T]:
    """What the tasks give, in order, `threads` of them at a time.

    They begin as they come; no more than `threads + 1` wait at once.
    """
    ahead = threads if threads > 1 else 0  # one thread has done a task when the next is asked for
    with workers(threads) as pool:
        waiting: deque[Future[T]] = deque()
        for task in tasks:
            waiting.append(pool.submit(task))
            del task
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


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
        linear = self.merges and self.kind == LOG
        if linear:
            data = np.expm1(data.astype(np.float64) * self.scale)
        indptr, indices = np.empty_like(block.indptr), np.empty_like(block.indices)
        values = np.empty(len(data), np.float64 if self.merges else data.dtype)
        to_genes(block.indptr, block.indices, data, self.columns, indptr, indices, values)
        indices, values = indices[: indptr[-1]], values[: indptr[-1]]
        if linear:
            with np.errstate(divide="ignore", invalid="ignore"):  # scaled values are only counted
                values = np.log1p(values) / self.scale
        return CsrBlock(block.start, indptr, indices, values, self.n_genes)

    def pack(self, block: CsrBlock) -> PackedBlock:
        """The same, packed."""
        return pack_block(self(block))

    def load(self, load: Callable[[], PackedBlock]) -> PackedBlock:
        """The same of packed rows that have to be fetched first."""
        block = load()
        if self.identity and self.antibody is None:
            rows = block.rows
            return block._replace(rows=rows._replace(rest=as_float(rows.rest)))
        return self.pack(block.unpacked())


_PACKED: Final = PackedRows._fields


@dataclass(frozen=True)
class Panel:
    """Stored values of some genes, cell by cell, in few bytes.

    n_vars: genes of the panel.
    """

    rows: PackedRows
    n_vars: int

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return self.rows.n_rows, self.n_vars

    @classmethod
    def of(cls, matrix: sparse.csr_matrix) -> Panel:
        """The rows of a matrix."""
        packed = pack(matrix.indptr.astype(np.int64), matrix.indices, as_float(matrix.data))
        return cls(packed, matrix.shape[1])

    def to_arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """As they are stored: in the fewest bytes, under `name`."""
        stored = {f"{name}_{field}": compact(getattr(self.rows, field)) for field in _PACKED}
        return stored | {f"{name}_shape": np.asarray(self.shape, np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], name: str) -> Panel:
        """What `to_arrays` gave."""
        if f"{name}_codes" not in arrays:
            raise InputDataError(
                "quality control was done by another version of senoscore: run stage qc again"
            )
        indptr, codes, far_at, far, rest_at, rest = (arrays[f"{name}_{field}"] for field in _PACKED)
        starts = (at.astype(np.int64) for at in (indptr, far_at, rest_at))
        values = (codes, far.astype(np.int32), as_float(rest))
        rows = PackedRows.of(zip(starts, values, strict=True))
        return cls(rows, int(arrays[f"{name}_shape"][1]))

    @classmethod
    def stack(cls, parts: Sequence[Panel], n_vars: int) -> Panel:
        """Panels of consecutive rows as one."""
        joined = _PanelParts(n_vars)
        rows = np.cumsum([part.shape[0] for part in parts])
        for part, n in zip(parts, rows, strict=True):
            joined.append(part.rows, max(n, 1) / max(rows[-1], 1))
        return joined.whole()

    def __getitem__(self, rows: NDArray[np.int64]) -> sparse.csr_matrix:
        """Some rows by number, as the kernels take them."""
        indptr = np.append(0, np.cumsum(np.diff(self.rows.indptr)[rows]))
        indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], self.rows.rest.dtype)
        take_rows(*self.rows, rows, indptr, indices, data)
        return sparse.csr_matrix((data, indices, indptr), shape=(len(rows), self.n_vars))

    def columns(self, wanted: ArrayLike | None = None) -> sparse.csr_matrix:
        """Some genes of every cell, in the order asked for; None takes all."""
        places = np.arange(self.n_vars) if wanted is None else np.asarray(wanted, np.int64)
        place = np.full(self.n_vars, -1, np.int32)
        place[places] = np.arange(len(places), dtype=np.int32)
        n = len(self.rows.codes)
        indptr = np.empty(self.rows.n_rows + 1, np.int64)
        # room for all; what is not written to costs nothing
        indices, data = np.empty(n, np.int32), np.empty(n, self.rows.rest.dtype)
        take_columns(*self.rows, place, indptr, indices, data)
        n = indptr[-1]
        taken = sparse.csr_matrix(
            (data[:n].copy(), indices[:n].copy(), indptr), shape=(self.shape[0], len(places))
        )
        taken.sort_indices()
        return taken


class _Growing:
    """An array that parts are appended to, in room made for all that are to come.

    Parts kept until they can be joined would take the memory twice; what of the room is not written to
    takes none.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self._room = np.empty(1, dtype)
        self._n = 0

    def append(self, part: NDArray[Any], share: float) -> None:
        """`share` (0-1): how much of all that is to come there is, with this part."""
        old, end = self._room, self._n + len(part)
        dtype = np.promote_types(old.dtype, part.dtype)
        if end >= len(old) or dtype != old.dtype:
            self._room = np.empty(max(end, int(1.05 * end / share)) + 1, dtype)
            self._room[: self._n] = old[: self._n]
        self._room[self._n : end] = part
        self._n = end

    def whole(self) -> NDArray[Any]:
        """All parts, and a 0 after them."""
        self._room[self._n] = 0
        return self._room[: self._n + 1]


class _PanelParts:
    """Rows of a panel, to become one."""

    def __init__(self, n_vars: int) -> None:
        self._n_vars = n_vars
        self._counts: list[list[NDArray[np.int64]]] = [[np.zeros(1, np.int64)] for _ in range(3)]
        self._values = [_Growing(kind) for kind in (np.uint8, np.int32, np.float32)]

    def append(self, rows: PackedRows, share: float) -> None:
        """As `_Growing.append`."""
        for k, (at, values) in enumerate(rows.parts):
            self._counts[k].append(np.diff(at))
            self._values[k].append(values[: at[-1]], share)

    def whole(self) -> Panel:
        """All of them as one; the type of the values does not depend on how they came."""
        starts = (np.cumsum(np.concatenate(counts)) for counts in self._counts)
        codes, far, rest = (values.whole() for values in self._values)
        values = (codes, far, as_float(compact(rest)))
        return Panel(PackedRows.of(zip(starts, values, strict=True)), self._n_vars)


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
    private = _Private(lambda: (np.zeros((n_codes, intake.n_genes), np.int64),))

    def one(block: PackedBlock) -> tuple[PackedRows, NDArray[np.int64], PackedRows]:
        rows, n = block.rows, len(block.rows.codes)
        cells = slice(block.start, block.start + rows.n_rows)
        # room for all; what is not written to costs nothing
        indptr = np.empty(rows.n_rows + 1, np.int64)
        indices, data = np.empty(n, np.int32), np.empty(n, rows.rest.dtype)
        scan_rows(
            *rows, intake.kind, roles, codes[cells],
            metrics[block.start - first : cells.stop - first], private.get()[0],
            indptr, indices, data,
        )  # fmt: skip
        used = indptr[-1]
        chosen = np.flatnonzero(sampled[cells])
        return pack(indptr, indices[:used], data[:used]), chosen + block.start, rows.take(chosen)

    panels, samples = _PanelParts(len(panel)), _PanelParts(intake.n_genes)
    chosen_rows = [np.zeros(0, np.int64)]
    for block, (part, chosen, whole) in _map_packed(
        one, source, intake, block_size=block_size, threads=threads, rows=rows, progress=progress
    ):
        share = (block.start + block.rows.n_rows - first) / (last - first)
        panels.append(part, share)
        samples.append(whole, share)
        chosen_rows.append(chosen)
    (sums,) = private.total()
    here = codes[first:last]
    counted = here[(here >= 0) & (metrics[:, 0] > 0)]
    return Scan(
        metrics=metrics,
        sums=sums,
        n_cells=np.bincount(counted, minlength=n_codes).astype(np.int64),
        panel=panels.whole(),
        sample_rows=np.concatenate(chosen_rows),
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

    def one(block: PackedBlock) -> None:
        cells = slice(block.start, block.start + block.rows.n_rows)
        here = slice(cells.start - first, cells.stop - first)
        histogram, group_sums = private.get()
        order = np.argsort(codes[cells] * n_strata + strata[cells])
        score_rows(
            *block.rows, intake.kind, totals[cells], codes[cells],
            strata[cells], order, *walk, plan.usable, plan.n_null, plan.centres,
            scores[here], z[here], histogram, groups[cells], group_sums,
        )  # fmt: skip

    for _ in _map_packed(
        one, source, intake, block_size=block_size, threads=threads, rows=rows, progress=progress
    ):
        pass
    return Scored(scores, z, *private.total())

"""The stages of a run, file to file: what the workflow, the command line and `analyse` all call.

A stage reads the data set and what earlier stages left in ``results/<dataset>/stages``, calls
functions that know nothing of files, and writes its own artefacts atomically. Run one by one, by
Snakemake, in shards or all in one go, the bytes are the same.
"""

from __future__ import annotations

import ctypes
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from senoscore import keys
from senoscore.errors import ConfigError, InputDataError, SenoscoreError, SenoscoreWarning
from senoscore.inspect import Facts, inspect_file
from senoscore.io._workers import workers
from senoscore.io.artefacts import (
    read_npz,
    sha256_file,
    write_h5ad,
    write_json,
    write_npz,
    write_tsv,
)
from senoscore.reader import Job, started
from senoscore.settings import Settings

if TYPE_CHECKING:
    from anndata import AnnData

    from senoscore import adjust, calling, targets
    from senoscore.citeseq import Evidence
    from senoscore.explain import Judged
    from senoscore.inputs import Input
    from senoscore.io.blocks import RowBlocks
    from senoscore.reader import Reader
    from senoscore.reference import Reference
    from senoscore.scoring import Matched
    from senoscore.scratch import Kept
    from senoscore.signatures import SignatureSet
    from senoscore.streaming import Panel, Scan

logger = logging.getLogger(__name__)

T = TypeVar("T")

STAGES: Final = ("inspect", "qc", "annotate", "score", "call", "burden", "report")
SHARDED: Final = ("qc", "score")
OPTIONAL: Final = ("doublets",)  # before annotate, where the settings ask for it
OUTPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "inspect": ("stages/facts.json",),
    "qc": ("stages/qc.npz",),
    "doublets": ("stages/doublets.tsv",),
    "annotate": ("stages/cells.h5ad", "stages/genes.npz", "stages/qc_limits.tsv", "labels.tsv"),
    "score": ("stages/scores.npz",),
    "call": (
        "senoscore.h5ad",
        "t_cells_exhausted.tsv",
        "t_cells_senescent.tsv",
        "coverage.tsv",
        "calibration.tsv",
        "pooled.tsv",
        "certificate.tsv",
        "protein_audit.tsv",
        "agreement.tsv",
    ),
    "burden": ("lineages.tsv", "donors.tsv", "comparisons.tsv", "targets.tsv"),
    "report": ("report.html",),
}
# the settings whose change reruns a stage
SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "inspect": ("dataset",),
    "qc": ("dataset", "annotate"),
    "doublets": ("dataset",),
    "annotate": ("dataset", "qc", "annotate"),
    "score": ("dataset", "score"),
    "call": ("dataset", "score", "call"),
    "burden": ("burden",),
    "report": ("report",),
}
BLOCK_SIZE: Final = 1024
N_HELD_BACK: Final = 100
SECONDS_BETWEEN_LINES: Final = 30


def shard_file(stage: str, shard: tuple[int, int] | None) -> str:
    """Name of the file a sharded stage writes; `shard` is (k, n) with k from 1."""
    name = {"qc": "qc", "score": "scores"}[stage]
    return f"stages/{name}.npz" if shard is None else f"stages/{name}-{shard[0]}of{shard[1]}.npz"


def run_stage(
    stage: str,
    directory: str | Path,
    *,
    source: str | Path | AnnData,
    settings: Mapping[str, Any] | Settings | None = None,
    threads: int = 1,
    shard: tuple[int, int] | None = None,
    block_size: int = BLOCK_SIZE,
    progress: bool = False,
) -> None:
    """Run one stage of one data set.

    Parameters
    ----------
    stage
        One of `STAGES`.
    directory
        ``results/<dataset>``; earlier stages have written there.
    source
        The data set.
    settings
        Nested mapping of what differs from the defaults, or `Settings`.
    threads, block_size
        How, not what: no result depends on them.
    shard
        (k, n): the k-th of n parts of the rows, for the stages in `SHARDED`.
    progress
        Show a bar on a terminal, lines in a log.

    Raises
    ------
    SenoscoreError
        The data or the settings do not allow it; the message is one sentence.
    """
    if stage not in _STAGE_FUNCTIONS:
        raise SenoscoreError(f"'{stage}' is no stage; there are {', '.join(_STAGE_FUNCTIONS)}")
    if shard is not None and (stage not in SHARDED or not 1 <= shard[0] <= shard[1]):
        raise SenoscoreError(
            f"shard {shard[0]} of {shard[1]} of stage '{stage}' does not exist; "
            f"{' and '.join(SHARDED)} take shards 1..n"
        )
    chosen = settings if isinstance(settings, Settings) else Settings.from_mapping(settings)
    run = _Run(Path(directory), source, chosen, threads, shard, block_size, progress)
    with run.working():
        _do(stage, run)


def _do(stage: str, run: _Run) -> None:
    if stage in SHARDED:
        run.forget_other_parts(stage)
    started = time.perf_counter()
    _STAGE_FUNCTIONS[stage](run)
    _give_back_memory()
    logger.info("stage %s: %.1f s", stage, time.perf_counter() - started)


def _give_back_memory() -> None:
    """What was freed goes back to the system: on Linux the heaps of threads keep it otherwise."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def analyse(
    source: str | Path | AnnData,
    *,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | Settings | None = None,
    threads: int = 1,
    report: bool = False,
    block_size: int = BLOCK_SIZE,
    progress: bool = False,
    reader: Reader | None = None,
) -> AnnData:
    """Every stage for one data set: quality control, lineages, scores, calls, tables.

    Parameters
    ----------
    source
        Path of an h5ad file or zarr store, or an AnnData (not changed).
    out
        Folder for the artefacts, as the workflow writes them; None keeps nothing but the result.
    settings
        Nested mapping of what differs from the defaults, e.g. ``{"call": {"fdr": 0.1}}``.
    threads, block_size
        How, not what: no result depends on them. One thread keeps to one core: nothing is read ahead
        or written beside the work.
    report
        Also write ``report.html`` (needs `out`).
    progress
        Show progress.
    reader
        A process that reads the file meanwhile (`senoscore.reader.started`); by default one is
        started for a large file, if there are threads to spare.

    Returns
    -------
    AnnData in score space: ``X`` = z (cells × signatures), ``layers`` ``score``, ``pvalue``,
    ``padj``; ``obs`` = original columns, quality metrics, ``lineage``, ``t_state``,
    ``senescence_call``, …; ``obsm`` = ``t_axes`` and the original embeddings; ``var`` =
    coverage of each signature; ``uns["senoscore"]`` = provenance.

    Examples
    --------
    >>> import senoscore as sn
    >>> s = sn.analyse("pbmc.h5ad", threads=2)  # doctest: +SKIP
    >>> s.obs["t_state"].value_counts()  # doctest: +SKIP
    """
    chosen = settings if isinstance(settings, Settings) else Settings.from_mapping(settings)
    with ExitStack() as stack:
        if reader is None:
            reader = stack.enter_context(started(source, threads))
        directory = stack.enter_context(_folder(out))
        # what one stage leaves, the next need not read back
        run = _Run(
            directory, source, chosen, threads, None, block_size, progress, known={}, reader=reader
        )
        with run.working():
            run.begin()
            if chosen.score.reference is None:  # else it brings its own
                _chosen_signatures(run)  # refused now, not after hours of work
            run.once("sha256", run.hash_source)  # with threads, beside the first stages
            for stage in _STAGE_FUNCTIONS:
                if stage == "report" and not (report and out is not None):
                    continue
                if stage == "doublets" and not chosen.qc.scrublet:
                    continue
                if stage == "report":  # it reads the files
                    run.finish()
                _do(stage, run)
        assert run.known is not None
        return cast("AnnData", run.known["result"])


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="senoscore-") as scratch:
        yield Path(scratch)


# --------------------------------------------------------------------------------------------
# one run of one stage


@dataclass(frozen=True)
class _Run:
    """The arguments of a stage, and what it reads of earlier ones, each loaded once."""

    directory: Path
    source: str | Path | AnnData
    settings: Settings
    threads: int = 1
    shard: tuple[int, int] | None = None
    block_size: int = BLOCK_SIZE
    progress: bool = False
    known: dict[str, Any] | None = None
    reader: Reader | None = None
    waiting: list[Future[object]] = field(default_factory=list)
    open: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def background(self) -> Executor:
        """What does beside the stages what they need not wait for; in turn if there is one thread."""
        return workers(self.threads, n=2)

    @contextmanager
    def working(self) -> Iterator[None]:
        """While stages run: what is left to do beside them is done, what was opened is closed."""
        stages = self.path("stages")
        stages.mkdir(parents=True, exist_ok=True)
        with self.open, self.background:
            try:
                yield
            except BaseException:
                with suppress(OSError):  # there is something in it
                    stages.rmdir()
                raise
            if self.waiting:
                started = time.perf_counter()
                self.finish()
                logger.info("stage finish: %.1f s", time.perf_counter() - started)

    def matrix(self, *, again: bool) -> RowBlocks:
        """The rows of the matrix; `again`: kept in scratch space for the next time, if there is room.

        Where several stages run in one process, it is opened once.
        """

        def opened() -> RowBlocks:
            data = self.input()
            rows = self._open(data.matrix)
            if not again or not isinstance(self.source, (str, Path)):
                return rows
            return self._kept(rows, has_counts=data.scale == "counts") or rows

        return self.once("matrix", opened)

    def begin(self) -> None:
        """Let another process look at the file and read its counts, while modules are loaded here."""
        if self.reader is not None:
            overrides = self.settings.dataset.overrides()
            job = Job(str(self.source), overrides, self.block_size, self.threads)
            self.reader.begin(job, self.path("stages"))

    def look(self) -> Facts:
        """What the data set holds; the other process has looked, or this one does."""
        if self.reader is not None:
            try:
                facts = cast("Facts", self.reader.facts())
            except OSError as error:
                logger.info("%s: the file is read here", error)
            else:
                self._take_rows(self.reader, facts.counts.value)
                return facts
        return inspect_file(self.source, overrides=self.settings.dataset.overrides())

    def _take_rows(self, reader: Reader, counts: str | None) -> None:
        """The counts that the other process reads already; it ends if they cannot be kept."""
        kept = None if counts is None else self._kept(self._open(counts), has_counts=True)
        if kept is None:
            reader.close()
        else:
            kept.hand_over(reader)
            self.keep("matrix", kept)

    def _kept(self, rows: RowBlocks, *, has_counts: bool) -> Kept | None:
        """The rows, to be kept in scratch space; None if there is too little."""
        from senoscore.scratch import Kept, has_room

        stages = self.path("stages")
        nnz = rows.n_obs * rows.n_vars if rows.nnz is None else rows.nnz
        if not has_room(stages, nnz, 0 if has_counts else rows.dtype.itemsize):
            logger.info("%s: too little room for scratch data, the file is read again", stages)
            return None
        kept = Kept(rows, stages)
        self.open.callback(kept.close)
        return kept

    def _open(self, matrix: str) -> RowBlocks:
        from senoscore.io.blocks import open_blocks

        rows = open_blocks(self.source, matrix=matrix)
        self.open.callback(rows.close)
        return rows

    def facts(self) -> Facts:
        """What stage inspect found."""
        return Facts.from_dict(json.loads(self.path("stages/facts.json").read_text("utf-8")))

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` returns, made once where several stages run in one process."""
        if self.known is None:
            return make()
        if name not in self.known:
            self.known[name] = make()
        return cast("T", self.known[name])

    def keep(self, name: str, value: object) -> None:
        """What `once` is to return."""
        if self.known is not None:
            self.known[name] = value

    def drop(self, *names: str) -> None:
        """Let go of what no later stage needs."""
        for name in names:
            if self.known is not None:
                self.known.pop(name, None)

    def path(self, name: str) -> Path:
        return self.directory / name

    def input(self) -> Input:
        from senoscore.inputs import read_input

        def read() -> Input:
            return read_input(self.source, facts=self.facts())

        return self.once("input", read)

    def write(self, stage: str, arrays: dict[str, NDArray[Any]]) -> None:
        """The arrays of a sharded stage, for `parts`; written while the next stage begins."""
        self.keep(stage, [dict(arrays)])
        self.later(write_npz, arrays, self.path(shard_file(stage, self.shard)), compress=False)

    def later(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Do it beside what follows, with one thread before it; `finish` waits, and raises errors."""
        self.waiting.append(self.background.submit(function, *args, **kwargs))

    def beside(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Callable[[], T]:
        """A call that gives the result; with several threads it is worked out meanwhile, else then."""
        if self.threads > 1:
            return self.background.submit(function, *args, **kwargs).result
        return lambda: function(*args, **kwargs)

    def finish(self) -> None:
        """Wait for what `later` left to do; an error there is raised here."""
        while self.waiting:
            self.waiting.pop(0).result()

    def hash_source(self) -> Callable[[], str]:
        """Gives the sha256 of the file; empty for what is no file."""
        path = Path(self.source) if isinstance(self.source, (str, Path)) else None
        if path is None or not path.is_file():
            return str
        return self.beside(sha256_file, path)

    def rows(self, n: int) -> tuple[int, int] | None:
        if self.shard is None:
            return None
        k, of = self.shard
        return (n * (k - 1) // of, n * k // of)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], object] | None]:
        """A progress bar of cells on a terminal, a few plain lines elsewhere."""
        if not self.progress:
            yield None
            return
        import sys

        from tqdm import tqdm

        if sys.stderr.isatty():
            with tqdm(total=total, desc=what, unit=" cells", unit_scale=True, leave=False) as shown:
                yield shown.update
            return
        started = said = time.monotonic()
        done = 0

        def line(n: int) -> None:
            nonlocal done, said
            done += n
            now = time.monotonic()
            if now - said >= SECONDS_BETWEEN_LINES and done < total:
                said = now
                rate = done / (now - started)
                logger.info(
                    "%s: %s of %s cells, %.0f cells/s, %.0f s left",
                    what, f"{done:,}", f"{total:,}", rate, (total - done) / rate,
                )  # fmt: skip

        yield line
        logger.info("%s: %s cells in %.1f s", what, f"{done:,}", time.monotonic() - started)

    def forget_other_parts(self, stage: str) -> None:
        """Delete what this stage left when it was split otherwise: `parts` would read that."""
        whole = self.path(shard_file(stage, None))
        if self.shard is not None:
            whole.unlink(missing_ok=True)
        for path in whole.parent.glob(f"{whole.stem}-*of*.npz"):
            if self.shard is None or not path.stem.endswith(f"of{self.shard[1]}"):
                path.unlink(missing_ok=True)

    def parts(self, stage: str) -> list[dict[str, NDArray[Any]]]:
        """The arrays a sharded stage left, in the order of rows."""
        return self.once(stage, lambda: self.read_parts(stage))

    def read_parts(self, stage: str, prefix: str = "") -> list[dict[str, NDArray[Any]]]:
        """The same from the files, or those of the arrays whose names begin with `prefix`."""
        whole = self.path(shard_file(stage, None))
        if whole.exists():
            return [read_npz(whole, prefix)]
        name = Path(shard_file(stage, (1, 1))).name.split("-")[0]
        found = sorted(
            self.path("stages").glob(f"{name}-*of*.npz"),
            key=lambda p: int(p.stem.split("-")[1].split("of")[0]),
        )
        if not found:
            raise InputDataError(f"{whole} is missing: run stage '{stage}' of this data set first")
        expected = int(found[0].stem.split("of")[1])
        if len(found) != expected:
            raise InputDataError(
                f"{len(found)} of {expected} shards of stage '{stage}' are in {found[0].parent}: "
                "run the missing ones"
            )
        return [read_npz(path, prefix) for path in found]


# --------------------------------------------------------------------------------------------
# inspect


def _inspect(run: _Run) -> None:
    write_json(run.look().to_dict(), run.path("stages/facts.json"))


# --------------------------------------------------------------------------------------------
# qc: the first pass over the matrix


def _scan(run: _Run, data: Input, codes: NDArray[np.int64], matrix: RowBlocks) -> Any:
    from senoscore import annotate

    return annotate.scan(
        matrix,
        data,
        codes,
        rows=run.rows,
        threads=run.threads,
        block_size=run.block_size,
        bar=lambda total: run.bar("quality control", total),
    )


def _labelled(run: _Run, data: Input) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Lineages by the file's labels, if it has any: the first two stages ask for them."""
    from senoscore import annotate

    return run.once("labelled", lambda: annotate.from_labels(data, run.settings.annotate))


def _qc(run: _Run) -> None:
    from senoscore import annotate

    data = run.input()
    labelled = _labelled(run, data)
    if labelled is not None:
        codes = annotate.lineage_codes(labelled[0][keys.OBS_LINEAGE])
    else:
        # lineages are not known before the markers are read; gene sums follow in `annotate`
        codes = np.full(len(data.obs), -1, np.int64)
    # other values than counts take as much room in scratch space as in the file
    often = data.scale == "counts" or labelled is None or run.settings.score.method != "matched"
    found = _scan(run, data, codes, run.matrix(again=run.known is not None and often))
    run.write(
        "qc",
        {
            "metrics": found.metrics,
            "sums": found.sums,
            "n_cells": found.n_cells,
            "sample_rows": found.sample_rows,
            "panel_genes": data.genes.symbols[annotate.panel_positions(data)],
            **found.panel.to_arrays("panel"),
            **found.sample.to_arrays("sample"),
        },
    )


def _merged_scan(run: _Run, *, sample: bool = True) -> Scan:
    """What the first pass left; without `sample` no sampled cells, unless they are here already."""
    from senoscore.streaming import Panel, Scan

    def read() -> Scan:
        merged = None
        for part in run.parts("qc"):
            rows, cells = part["sample_rows"][:0], Panel.stack([], int(part["sample_shape"][1]))
            if sample:
                rows, cells = part["sample_rows"], Panel.from_arrays(part, "sample")
            panel = Panel.from_arrays(part, "panel")
            scan = Scan(part["metrics"], part["sums"], part["n_cells"], panel, rows, cells)
            merged = scan if merged is None else merged.merge(scan)
        assert merged is not None
        return merged

    return run.once("scan", read)


# --------------------------------------------------------------------------------------------
# annotate: lineages, doublets, the verdict of quality control


def _annotate(run: _Run) -> None:
    from anndata import AnnData

    from senoscore import annotate, qc

    data = run.input()
    found = _merged_scan(run)
    n = len(data.obs)
    if len(found.metrics) != n:
        raise InputDataError(
            f"stage qc saw {len(found.metrics)} cells, the file has {n}: run stage qc again"
        )
    matrix = run.matrix(again=True)  # unless there are labels, it is read twice
    cells, label_table, _ = annotate.lineages(
        matrix, data, settings=run.settings.annotate, found=found, threads=run.threads,
        labelled=_labelled(run, data),
    )  # fmt: skip
    codes = annotate.lineage_codes(cells[keys.OBS_LINEAGE])
    again = None
    if found.n_cells.sum() == 0 and (codes >= 0).any():
        # lineages came from markers: gene sums and the sample need them, so one more pass
        again = _scan(run, data, codes, matrix)
        found.sums, found.n_cells = again.sums, again.n_cells
        found.sample_rows, found.sample = again.sample_rows, again.sample
    metrics = qc.metrics_frame(found.metrics, data.obs.index, has_counts=data.has_counts)
    verdict, limits = qc.judge(
        metrics,
        sample=data.column("sample"),
        lineage=np.asarray(cells[keys.OBS_LINEAGE].astype(object), dtype=object),
        has_counts=data.has_counts,
        settings=run.settings.qc,
    )
    if not verdict[keys.OBS_QC_PASS].any():
        raise InputDataError(
            f"none of {n} cells passes quality control (most frequent reason: "
            f"{verdict[keys.OBS_QC_REASON].mode().iloc[0]}); loosen the limits (config: qc)"
        )
    obs = pd.concat([metrics, verdict], axis=1)
    flag, pair = annotate.doublets(data, found.panel, found.metrics[:, 0])
    obs["doublet_mixed_lineage"] = flag
    obs["doublet_pair"] = pair
    if run.settings.qc.scrublet:
        obs = _with_scrublet(run, obs)
    for column in annotate.CELL_COLUMNS:
        obs[column] = np.asarray(cells[column].astype(object), dtype=object)
    stored = AnnData(obs=_storable(obs))
    run.later(write_h5ad, stored, run.path("stages/cells.h5ad"))
    run.keep("cells", stored.obs)
    run.keep("genes", (found.sums, found.n_cells, found.sample_rows, found.sample))
    run.drop("qc", "labelled")
    genes = {"sums": found.sums, "n_cells": found.n_cells}
    if again is not None:
        genes |= {"sample_rows": found.sample_rows, **found.sample.to_arrays("sample")}
    run.later(write_npz, genes, run.path("stages/genes.npz"), compress=False)
    write_tsv(limits, run.path("stages/qc_limits.tsv"))
    write_tsv(label_table, run.path("labels.tsv"))


def _doublets(run: _Run) -> None:
    from senoscore import doublets

    matrix = run.matrix(again=False)
    found = doublets.scrublet(matrix, run.input(), threads=run.threads)
    write_tsv(found.rename_axis("cell").reset_index(), run.path("stages/doublets.tsv"))


def _with_scrublet(run: _Run, obs: pd.DataFrame) -> pd.DataFrame:
    path = run.path("stages/doublets.tsv")
    if not path.exists():
        raise InputDataError(f"{path} is missing: run stage 'doublets' of this data set first")
    found = pd.read_csv(path, sep="\t")
    return obs.assign(
        doublet_score=found["doublet_score"].to_numpy(float),
        predicted_doublet=found["predicted_doublet"].to_numpy(bool),
    )


# --------------------------------------------------------------------------------------------
# score: the second pass


def _cells(run: _Run) -> pd.DataFrame:
    from anndata import read_h5ad

    return run.once("cells", lambda: read_h5ad(run.path("stages/cells.h5ad")).obs)


def _gene_sums(
    run: _Run,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Panel]:
    """Per lineage gene sums and cells; the sampled cells' rows, and their genes."""
    from senoscore.streaming import Panel

    def read() -> tuple[Any, Any, Any, Any]:
        genes = read_npz(run.path("stages/genes.npz"))
        if "sample_rows" in genes:
            rows, sample = genes["sample_rows"], Panel.from_arrays(genes, "sample")
        else:  # lineages were known in the first pass, which drew the sample
            parts = run.read_parts("qc", "sample")
            rows = np.concatenate([part["sample_rows"] for part in parts])
            panels = [Panel.from_arrays(part, "sample") for part in parts]
            sample = Panel.stack(panels, panels[0].n_vars)
        return genes["sums"], genes["n_cells"], rows, sample

    return run.once("genes", read)


def _chosen_signatures(run: _Run) -> SignatureSet:
    """The signatures that the settings ask for."""
    from senoscore.scoring import choose_signatures

    wanted = run.settings.score
    return run.once(
        "signatures",
        lambda: choose_signatures(
            wanted.signatures, wanted.signature_files, comparators=wanted.comparators
        ),
    )


class _Scoring:
    """What score and call share: built from artefacts, the same in every shard."""

    def __init__(self, run: _Run, data: Input) -> None:
        from senoscore import annotate, donors, scoring
        from senoscore.kernels.passes import LOG
        from senoscore.null import depth_strata

        settings = run.settings.score
        self.cells = _cells(run)
        self.sums, self.n_cells, self.sample_rows, self.sample = _gene_sums(run)
        self.codes = annotate.lineage_codes(self.cells[keys.OBS_LINEAGE])
        self.use = self.cells[keys.OBS_QC_PASS].to_numpy(bool)
        self.kind, self.log_base = scoring.pass_kind(data.scale)
        total = self.cells["total_counts"].to_numpy(np.float64)
        n_genes = self.cells["n_genes_by_counts"].to_numpy(np.float64)
        # without counts there is no total; any positive number will do, and depth is genes found
        self.totals = total if data.has_counts else (n_genes > 0).astype(np.float64)
        self.depth = n_genes if self.kind == LOG else self.totals
        self.strata, self.n_strata = depth_strata(
            self.depth, self.codes, len(keys.LINEAGES), self.use & (self.totals > 0)
        )
        self.reference = _reference(run, data)
        if self.reference is None:
            chosen = _chosen_signatures(run)
        else:
            chosen = self.reference.choose(settings.signatures, comparators=settings.comparators)
            self.strata = self.reference.strata(self.depth, self.codes, keys.LINEAGES)
            self.n_strata = self.reference.n_strata
        self.prepared = scoring.prepare(
            chosen, data.genes, lineages=keys.LINEAGES, min_coverage=settings.min_coverage,
            min_genes_found=settings.min_genes_found,
        )  # fmt: skip
        self.fitted = None
        if self.reference is not None:
            self.fitted = self.reference.fit(
                data.genes, keys.LINEAGES, list(chosen), self.prepared.allowed,
                min_coverage=settings.min_coverage,
            )  # fmt: skip
        self.eligible = scoring.control_eligible(data.genes)
        self.donor = donors.donor_names(data.column("donor"), len(self.cells))
        subset = (
            self.cells[keys.OBS_T_SUBSET]
            .astype(object)
            .where(
                self.cells[keys.OBS_LINEAGE] == "T",
                self.cells[keys.OBS_LINEAGE_SUBSET].astype(object),
            )
        )
        frame = pd.DataFrame(
            {
                "donor": self.donor,
                "lineage": self.cells[keys.OBS_LINEAGE].astype(object).to_numpy(),
                "subset": subset.fillna("").to_numpy(),
            }
        )
        valid = (self.codes >= 0) & self.use & (self.donor != "")
        unique = frame[valid].drop_duplicates().sort_values(["donor", "lineage", "subset"])
        self.group_table = unique.reset_index(drop=True)
        index = pd.MultiIndex.from_frame(self.group_table)
        self.groups = np.where(
            valid, index.get_indexer(pd.MultiIndex.from_frame(frame)), -1
        ).astype(np.int64)
        self.data = data
        self.settings = settings
        self.threads = run.threads

    @property
    def counted(self) -> NDArray[np.int64]:
        """Strata of the cells that passed quality control, -1 for the others."""
        return np.where(self.use, self.strata, -1)

    def null_strata(self) -> NDArray[np.int64]:
        """Strata of the cells whose null sets are counted."""
        from senoscore.scoring import null_strata

        if self.reference is not None:  # it is tested on every cell
            return self.counted
        return null_strata(self.cells.index, self.codes, self.counted)

    def plan(self, parts: Sequence[Mapping[str, NDArray[Any]]] = ()) -> Any:
        """The plan: that of the reference, that which stage score left in `parts`, or a new one."""
        from senoscore.null import Plan
        from senoscore.scoring import make_plan

        if self.fitted is not None:
            return self.fitted.plan
        if parts:
            if "plan_resting" not in parts[0]:
                raise InputDataError(
                    "the cells were scored by another version of senoscore: run stage score again"
                )
            return Plan.from_arrays(parts[0])
        return make_plan(
            self.prepared, sums=self.sums, n_cells=self.n_cells, eligible=self.eligible,
            genes=self.data.genes, sample=self.sample, sample_rows=self.sample_rows,
            totals=self.totals, codes=self.codes, use=self.use, kind=self.kind,
            n_null=self.settings.n_null, seed=self.settings.seed, threads=self.threads,
        )  # fmt: skip


def _reference(run: _Run, data: Input) -> Reference | None:
    """The frozen run that the settings name."""
    from senoscore.scoring import open_reference

    settings = run.settings.score
    if settings.reference is None:
        return None
    if settings.signature_files:
        raise ConfigError(
            "score.reference holds its own signatures: leave out score.signature_files, or freeze a "
            "run that has them"
        )
    return open_reference(settings.reference, data)


def _score(run: _Run) -> None:
    from senoscore import scoring, streaming

    data = run.input()
    state = run.once("state", lambda: _Scoring(run, data))
    settings = run.settings.score
    source = run.matrix(again=settings.method != "matched")
    rows = run.rows(source.n_obs)
    first, last = rows if rows is not None else (0, source.n_obs)
    arrays: dict[str, NDArray[Any]] = {}
    if data.scale in scoring.KINDS:
        intake = streaming.Intake(data.genes, state.kind, state.log_base)
        plan = state.plan()
        if run.known is not None and state.fitted is None:
            run.keep("calibrated", _calibrated(run, data, state, plan))
        with run.bar("scores", last - first) as progress:
            scored = streaming.score(
                source, intake, plan, totals=state.totals, codes=state.codes,
                strata=state.null_strata(), n_strata=state.n_strata, groups=state.groups,
                n_groups=len(state.group_table), rows=rows, block_size=run.block_size,
                threads=run.threads, progress=progress,
            )  # fmt: skip
        arrays |= {
            "score": scored.score,
            "z": scored.z,
            "histogram": scored.histogram,
            "group_sums": scored.group_sums,
        }
        if state.reference is not None:
            arrays["reference"] = np.asarray(state.reference.sha256)
        else:
            arrays |= plan.to_arrays()
    else:
        nothing = np.full((last - first, len(state.prepared.signatures)), np.nan)
        arrays |= {"score": nothing, "z": nothing}
    if settings.method != "matched":
        from senoscore.plain import score_plain

        arrays[settings.method] = score_plain(
            settings.method,
            source,
            data,
            state.prepared,
            state.codes,
            kind=scoring.pass_kind(data.scale),
            seed=settings.seed,
            rows=rows,
            threads=run.threads,
            block_size=run.block_size,
        )
    run.drop("matrix")
    source.close()
    run.write("score", arrays)


# --------------------------------------------------------------------------------------------
# call: p-values, states, the artefact in score space


def _joined(parts: list[dict[str, NDArray[Any]]], name: str) -> NDArray[Any]:
    return parts[0][name] if len(parts) == 1 else np.vstack([part[name] for part in parts])


def _summed(parts: list[dict[str, NDArray[Any]]], name: str) -> NDArray[Any]:
    return sum((part[name] for part in parts[1:]), start=parts[0][name])


@dataclass
class _Scores:
    """Scores with their p-values, and what they were measured against.

    able: lineages x strata x signatures, `power.powered`. calibrated: gives calibration.tsv, worked out
    meanwhile. told: what scoring against a reference says of the data. others: of the parts of stage
    score, another method's scores.
    """

    matched: Matched
    able: NDArray[np.uint8]
    pooled: pd.DataFrame = field(default_factory=pd.DataFrame)
    plan: Any = None
    histogram: Any = None
    calibrated: Callable[[], pd.DataFrame] = pd.DataFrame
    told: dict[str, Any] | None = None
    others: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass
class _Judged:
    """The verdict, and what it was read from.

    frames: z, p and adjusted p. rna: the same as tables, without antibodies.
    """

    frames: Mapping[str, pd.DataFrame]
    rna: calling.Tables
    recorder: adjust.Recorder
    evidence: Evidence | None
    audited: pd.DataFrame
    calls: pd.DataFrame
    obs: pd.DataFrame


def _call(run: _Run) -> None:
    from senoscore.donors import SENESCENCE_OF

    hashed = run.once("sha256", run.hash_source)
    data = run.input()
    if run.known is not None:
        # what burden asks of the marker genes: they would lie here till then
        _target_expression(run)
    state = run.once("state", lambda: _Scoring(run, data))
    scores = _p_values(run, data, state)
    run.drop("score")
    _give_back_memory()
    judged = _judge(run, data, state, scores)
    z, p = judged.frames["z"], judged.frames["pvalue"].filter([SENESCENCE_OF["T"]])
    run.keep("scored", (judged.obs, *(x.astype(np.float32, copy=False) for x in (z, p))))
    run.drop("genes", "state", "calibrated")
    run.later(_vouch, run, data, state, scores, judged, hashed)
    for state_name in ("exhausted", "senescent"):
        write_tsv(_t_table(judged.obs, state_name), run.path(f"t_cells_{state_name}.tsv"))
    write_tsv(state.prepared.var.reset_index(), run.path("coverage.tsv"))
    write_tsv(scores.pooled, run.path("pooled.tsv"))
    write_tsv(judged.audited, run.path("protein_audit.tsv"))
    write_tsv(_agreement(run, state, judged.frames, judged.calls), run.path("agreement.tsv"))


def _p_values(run: _Run, data: Input, state: _Scoring) -> _Scores:
    """What stage score left, as p-values; the calibration goes on."""
    from senoscore import donors, scoring
    from senoscore.kernels.passes import GROUP_SHIFT, UNIT

    parts = run.parts("score")
    score, z = _joined(parts, "score"), _joined(parts, "z")
    names = list(state.prepared.signatures)
    others = {
        name: _joined(parts, name)
        for name in parts[0]
        if name not in _SCORE_ARRAYS and not name.startswith("plan_")
    }
    if "histogram" not in parts[0]:
        refused = scoring.refused_scale(data.scale, data.matrix)
        state.prepared.var["status"] = "not scored"
        state.prepared.var["reason"] = refused
        warnings.warn(
            f"{_shown(run.source)}: {refused}, so that no signature is scored and no cell called; give a "
            "file with counts or log-normalised values, or name the matrix of counts (config: dataset.counts)",
            SenoscoreWarning,
            stacklevel=2,
        )
        nothing = np.full(score.shape, np.nan)
        able = np.zeros((len(keys.LINEAGES), state.n_strata, len(names)), np.uint8)
        return _Scores(scoring.Matched(score, z, nothing, nothing), able, others=others)
    histogram, group_sums = _summed(parts, "histogram"), _summed(parts, "group_sums")
    plan = state.plan(parts)
    scoring.note_unscored(state.prepared, plan.usable, plan)
    if not plan.usable.any():
        warnings.warn(
            f"{_shown(run.source)}: no signature could be scored, so that no cell is called; "
            "coverage.tsv says why for each",
            SenoscoreWarning,
            stacklevel=2,
        )
    _same_reference(state.reference, parts)
    pooled = donors.pooled_table(
        state.group_table, group_sums,
        np.bincount(state.groups[state.groups >= 0], minlength=len(state.group_table)),
        names, plan.usable, keys.LINEAGES, n_null=plan.n_null,
        unit=UNIT / 2**GROUP_SHIFT,
    )  # fmt: skip
    if state.fitted is not None:
        matched = scoring.finish_fitted(score, z, state.fitted, state.codes, state.strata)
        told = scoring.tell_reference(
            state.fitted, state.prepared, histogram, state.depth, state.codes, state.counted
        )
        transfer = told["transfer"]
        return _Scores(
            matched, state.fitted.able, pooled, plan, histogram, lambda: transfer, told, others
        )
    calibrated = run.once("calibrated", lambda: _calibrated(run, data, state, plan))
    matched = scoring.finish(score, z, histogram, state.codes, state.strata, threads=run.threads)
    able = _able(run, state, plan, histogram, score, z)
    return _Scores(matched, able, pooled, plan, histogram, calibrated, others=others)


def _calibrated(run: _Run, data: Input, state: _Scoring, plan: Any) -> Callable[[], pd.DataFrame]:
    """Gives calibration.tsv, which is worked out meanwhile."""
    from senoscore import scoring

    return run.beside(
        scoring.calibrate, state.prepared, plan, sums=state.sums, eligible=state.eligible,
        genes=data.genes, sample=state.sample, sample_rows=state.sample_rows,
        totals=state.totals, depth=state.depth, codes=state.codes, strata=state.strata,
        kind=state.kind, n_sets=N_HELD_BACK, seed=run.settings.score.seed, threads=run.threads,
    )  # fmt: skip


def _judge(run: _Run, data: Input, state: _Scoring, scores: _Scores) -> _Judged:
    """The verdict of every cell."""
    from senoscore import adjust, calling, citeseq

    matched, names = scores.matched, list(state.prepared.signatures)
    frames = {
        name: pd.DataFrame(values, index=state.cells.index, columns=names)
        for name, values in (("z", matched.z), ("pvalue", matched.pvalue), ("padj", matched.padj))
    }
    rna = tables = calling.Tables(frames["z"], frames["pvalue"], frames["padj"])
    recorder = adjust.Recorder()
    frozen = None if state.reference is None else adjust.Frozen(state.reference.steps)
    evidence = citeseq.for_run(run.source, data, state.cells, run.settings.call)
    audited = pd.DataFrame(columns=list(citeseq.AUDIT))
    if evidence is not None:
        audited = _audit(run, state, evidence, tables, scores.able, frozen)
        tables = evidence.on(tables)
    calls = _calls(run, state, tables, scores.able, frozen or recorder)
    if evidence is not None:
        calls = evidence.tell(calls)
    obs = _storable(
        pd.concat([_original_obs(data.obs, [*state.cells, *calls]), state.cells, calls], axis=1)
    )
    return _Judged(frames, rna, recorder, evidence, audited, calls, obs)


def _vouch(
    run: _Run,
    data: Input,
    state: _Scoring,
    scores: _Scores,
    judged: _Judged,
    hashed: Callable[[], str],
) -> None:
    """What nothing waits for: how far the calls can be trusted, and the artefact that says it all."""
    from senoscore import calling, certificate, citeseq
    from senoscore.streaming import Panel

    certified = pd.DataFrame(columns=list(certificate.COLUMNS))
    evidence, fitted, settings = judged.evidence, state.fitted, run.settings.call
    if scores.histogram is not None and data.scale == "counts":
        certified = certificate.certify(
            scores.plan,
            calling.thresholds(
                judged.rna, state.cells, judged.recorder.curves, threads=run.threads
            )
            if fitted is None
            else fitted.thresholds,
            voting=state.prepared.voting, able=scores.able, cells=state.cells,
            histogram=scores.histogram if fitted is None else fitted.histogram,
            within=None if fitted is None else fitted.strata,
            calls=judged.calls, sample=state.sample, sample_rows=state.sample_rows,
            gene_ids=data.genes.ids, sums=state.sums, n_cells=state.n_cells, depth=state.depth,
            codes=state.codes, strata=state.counted, settings=settings,
            arm=evidence.table if evidence is not None and evidence.used else None,
            threads=run.threads,
        )  # fmt: skip
    calibration = scores.calibrated()
    # what is not needed again would be the largest part of the memory of a large file
    scores.plan = scores.histogram = None
    state.sample = Panel.stack([], state.sample.n_vars)
    _give_back_memory()
    adata = _score_space(
        run, data, state, scores.matched, judged.obs, judged.calls, calibration, hashed()
    )
    if len(certified):
        adata.uns[keys.UNS]["certificate"] = certified
    if scores.told is not None:
        adata.uns[keys.UNS]["reference"] = scores.told
    if evidence is not None:
        adata.obsm.update(citeseq.keep(evidence, state.cells.index))
        adata.uns[keys.UNS]["protein"] = citeseq.tell(evidence, judged.audited)
    if settings.smooth is not None:
        from senoscore import smoothing  # scipy's trees take long to load

        shown = [n for n, s in state.prepared.signatures.items() if s.role in _SMOOTHED]
        adata.obsm[keys.OBSM_Z_SMOOTHED] = smoothing.smoothed_table(
            judged.frames["z"][shown], run.source, settings.smooth, state.codes,
            settings.smooth_neighbors,
        )  # fmt: skip
    for name, values in scores.others.items():
        adata.layers[name] = values.astype(np.float32, copy=False)
    write_h5ad(adata, run.path("senoscore.h5ad"), threads=run.threads)
    run.keep("result", adata)
    write_tsv(calibration, run.path("calibration.tsv"))
    write_tsv(certified, run.path("certificate.tsv"))


def _agreement(
    run: _Run, state: _Scoring, frames: Mapping[str, pd.DataFrame], calls: pd.DataFrame
) -> pd.DataFrame:
    """Published sets against ours, where they are scored."""
    from senoscore.agreement import agreement

    prepared = state.prepared
    return agreement(
        frames["z"], frames["padj"], comparators=list(prepared.signatures.with_role("comparator")),
        lineage=state.cells[keys.OBS_LINEAGE], use=state.use, fdr=run.settings.call.fdr,
        call=calls[keys.OBS_SENESCENCE_CALL], t_state=calls[keys.OBS_T_STATE],
        genes=prepared.var["genes_used"].astype(str).str.split().to_dict(),
    )  # fmt: skip


def _audit(
    run: _Run,
    state: _Scoring,
    evidence: Evidence,
    tables: calling.Tables,
    able: NDArray[np.uint8],
    frozen: Any,
) -> pd.DataFrame:
    """How well RNA says what the antibodies say; calls from RNA alone are made for it."""
    from senoscore import adjust, citeseq

    run.finish()  # the panel may still be being written
    panel, symbols, totals = read_panel(run.directory)
    calls = _calls(run, state, tables, able, frozen or adjust.Recorder())
    return citeseq.audit(
        evidence,
        rna=citeseq.panel_values(panel, symbols, totals if state.data.has_counts else None),
        lineage=np.asarray(state.cells[keys.OBS_LINEAGE].astype(object), dtype=object),
        use=state.use, tables=tables, t_state=calls[keys.OBS_T_STATE],
    )  # fmt: skip


def _able(
    run: _Run,
    state: _Scoring,
    plan: Any,
    histogram: NDArray[np.int64],
    score: NDArray[np.float64],
    z: NDArray[np.float64],
) -> NDArray[np.uint8]:
    from senoscore import power

    return power.powered(
        state.prepared.voting, score=score, z=z, centres=plan.centres, histogram=histogram,
        codes=state.codes, strata=state.strata, totals=state.totals, sums=state.sums,
        n_cells=state.n_cells, kind=state.kind, level=run.settings.call.fdr,
        on_cp10k=run.settings.call.on_cp10k, share=run.settings.call.power,
        shallow=run.settings.call.shallow, threads=run.threads,
    )  # fmt: skip


_SMOOTHED: Final = ("axis", "arm", "lineage")
_SCORE_ARRAYS: Final = ("score", "z", "histogram", "group_sums", "reference")


def _same_reference(
    reference: Reference | None, parts: Sequence[Mapping[str, NDArray[Any]]]
) -> None:
    expected = "" if reference is None else reference.sha256
    if any(str(part.get("reference", "")) != expected for part in parts):
        raise InputDataError(
            "the reference has changed since the cells were scored: run stage score again"
        )


def _calls(
    run: _Run, state: _Scoring, tables: Any, able: NDArray[np.uint8], recorder: Any
) -> pd.DataFrame:
    from senoscore import calling, scoring

    names = list(state.prepared.signatures)
    asked = {name for lineage in keys.LINEAGES for name in calling.subject(lineage)}
    at = [k for k, name in enumerate(names) if name in asked]
    able_cells = pd.DataFrame(
        scoring.powered_cells(able[:, :, at], state.codes, state.strata),
        index=state.cells.index,
        columns=[names[k] for k in at],
    )
    verdicts = calling.verdicts(
        tables, state.cells, able_cells, settings=run.settings.call, adjust=recorder
    )
    axes = calling.t_axes(tables, calling.among(state.cells[keys.OBS_LINEAGE], "T"))
    axes_obs = axes.rename(columns=lambda axis: f"T_{axis}")
    return pd.concat([verdicts, axes_obs], axis=1)


def _original_obs(obs: pd.DataFrame, ours: list[str]) -> pd.DataFrame:
    """The file's own columns; one that has the name of one of ours is kept as ``original_<name>``."""
    taken, renamed = {str(name) for name in obs}, {}
    for name in ours:
        if name in obs:
            kept = f"original_{name}"
            while kept in taken:  # of a file that holds an earlier run's columns already
                kept = f"original_{kept}"
            taken.add(kept)
            renamed[name] = kept
    return obs.rename(columns=renamed)


def _storable(obs: pd.DataFrame) -> pd.DataFrame:
    """Columns as h5ad stores them: text as categories, fixed vocabularies with all categories."""
    obs = obs.copy(deep=False)
    vocabularies = {
        keys.OBS_LINEAGE: keys.LINEAGES,
        keys.OBS_T_STATE: keys.T_STATES,
        keys.OBS_SENESCENCE_CALL: keys.SENESCENCE_CALLS,
    }
    for column in obs:
        if column in vocabularies:
            values = obs[column].astype("category").cat.as_unordered()
            obs[column] = values.cat.set_categories(list(vocabularies[column]))
        elif obs[column].dtype == object:
            obs[column] = _as_text(obs[column])
        elif isinstance(obs[column].dtype, pd.CategoricalDtype):
            old = obs[column].cat.categories
            if old.dtype == object or isinstance(old.dtype, pd.StringDtype):
                obs[column] = obs[column].cat.rename_categories([str(c) for c in old])
    return obs


def _as_text(values: pd.Series) -> pd.Categorical:
    """Any values as text."""
    from senoscore import calling

    if not all(isinstance(v, str) for v in values.dropna().unique()):
        # before they are told apart: True and 1 are one to pandas, in text they are two
        values = values.map(str, na_action="ignore")
    codes, texts = pd.factorize(values)
    return calling.as_texts(codes, list(texts))


def _score_space(
    run: _Run,
    data: Input,
    state: _Scoring,
    matched: Any,
    obs: pd.DataFrame,
    calls: pd.DataFrame,
    calibration: pd.DataFrame,
    sha256: str,
) -> AnnData:
    from anndata import AnnData

    from senoscore import __version__, calling

    axes = calls[[f"T_{axis}" for axis in keys.AXES]].copy()
    axes.columns = list(keys.AXES)
    path = Path(run.source) if isinstance(run.source, (str, Path)) else None
    provenance: dict[str, Any] = {
        "version": __version__,
        "settings": json.dumps(
            {k: v for k, v in run.settings.to_dict().items() if k != "report"}, sort_keys=True
        ),
        "facts": json.dumps(
            {k: v for k, v in data.facts.to_dict().items() if k != "path"}, sort_keys=True
        ),
        "matrix": data.matrix,
        "scale": data.scale,
        "organism": str(data.genes.organism or ""),
        "input": path.name if path is not None else "AnnData in memory",
        "input_sha256": sha256,
        "gene_notes": " ".join(data.genes.notes),
        "rule": calling.rule_text(run.settings.call),
    }
    limits = pd.read_csv(run.path("stages/qc_limits.tsv"), sep="\t")
    if len(limits):
        provenance["qc_limits"] = limits
    provenance["versions"] = json.dumps(_versions(), sort_keys=True)
    if len(calibration):
        provenance["calibration"] = calibration.reset_index(drop=True)
    return AnnData(
        X=matched.z.astype(np.float32, copy=False),
        obs=obs,
        var=state.prepared.var.copy(),
        layers={
            keys.LAYER_SCORE: matched.score.astype(np.float32, copy=False),
            keys.LAYER_PVALUE: matched.pvalue.astype(np.float32, copy=False),
            keys.LAYER_PADJ: matched.padj.astype(np.float32, copy=False),
        },
        obsm={**data.obsm, keys.OBSM_T_AXES: axes},
        uns={keys.UNS: provenance},
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("anndata", "h5py", "numba", "numpy", "pandas", "scanpy", "scipy")
    return {name: version(name) for name in names}


def _t_table(obs: pd.DataFrame, state: str) -> pd.DataFrame:
    """The T cells of one state (and those in both), strongest first; of equal ones by name."""
    wanted = obs[keys.OBS_T_STATE].isin([state, "both"])
    axis = {"exhausted": "T_exhaustion", "senescent": "T_senescence"}[state]
    columns = [
        keys.OBS_T_STATE, keys.OBS_T_STATE_RULE, "t_substate", keys.OBS_T_SUBSET,
        *(f"T_{a}" for a in keys.AXES), "total_counts", "n_genes_by_counts",
    ]  # fmt: skip
    table = obs.loc[wanted, columns].rename_axis("cell").reset_index()
    return table.sort_values([axis, "cell"], ascending=[False, True], kind="stable")


# --------------------------------------------------------------------------------------------
# burden, report


def _target_expression(run: _Run) -> tuple[targets.Expression, NDArray[np.float64]]:
    """Expression of the targets, and each cell's total; the other marker genes are let go of."""
    from senoscore import targets
    from senoscore.signatures import read_targets

    def read() -> tuple[targets.Expression, NDArray[np.float64]]:
        first = _merged_scan(run, sample=False)
        totals = first.metrics[:, 0].copy()
        return targets.target_expression(first.panel, totals, run.input(), read_targets()), totals

    found = run.once("targets", read)
    run.drop("scan", "qc")
    return found


def _scored(run: _Run) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """obs, z, and p of the T senescence axis; the rest of the artefact is not read."""
    from anndata.io import read_elem

    from senoscore.donors import SENESCENCE_OF
    from senoscore.io.h5 import safe_h5_open

    if run.known is not None:
        return cast("tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]", run.known["scored"])
    with safe_h5_open(run.path("senoscore.h5ad")) as file:
        obs, var, z = (read_elem(file[name]) for name in ("obs", "var", "X"))
        p = {
            name: file["layers"][keys.LAYER_PVALUE][:, var.index.get_loc(name)]
            for name in var.index.intersection([SENESCENCE_OF["T"]])
        }
    return (
        obs,
        pd.DataFrame(z, index=obs.index, columns=var.index),
        pd.DataFrame(p, index=obs.index),
    )


def _burden(run: _Run) -> None:
    from senoscore import compare, donors, targets
    from senoscore.signatures import read_targets

    data = run.input()
    expression, totals = _target_expression(run)
    obs, z, pvalue = _scored(run)
    column = data.column("donor")
    donor = donors.donor_names(column, len(obs))
    settings = run.settings.burden
    everyone = np.full(len(obs), donors.ALL_DONORS, dtype=object)
    per_donor, per_lineage = (
        donors.burden_table(
            obs,
            z,
            pvalue,
            donor=who,
            min_cells=settings.min_cells,
            confidence=settings.confidence,
        )
        for who in (donor, everyone)
    )
    write_tsv(per_donor, run.path("donors.tsv"))
    write_tsv(per_lineage.drop(columns="donor"), run.path("lineages.tsv"))
    # by place, not by name: names of cells may occur twice
    others = {c: data.obs[c].array for c in data.obs.columns if c not in obs}
    known = pd.concat([obs, pd.DataFrame(others, index=obs.index)], axis=1) if others else obs
    compared = compare.comparisons(
        known, z, donor=None if column is None else donor,
        condition=data.facts.condition.value, age=data.facts.age.value,
        reference=settings.reference, covariates=settings.covariates,
        min_cells=settings.min_cells, confidence=settings.confidence,
    )  # fmt: skip
    write_tsv(compared, run.path("comparisons.tsv"))
    found = targets.target_table(
        expression, read_targets(),
        lineage=obs[keys.OBS_LINEAGE], call=obs[keys.OBS_SENESCENCE_CALL],
        use=obs[keys.OBS_QC_PASS].to_numpy(bool), donor=donor,
        totals=totals if data.has_counts else None, confidence=settings.confidence,
    )  # fmt: skip
    write_tsv(found, run.path("targets.tsv"))


def _report(run: _Run) -> None:
    from senoscore.report import build_report

    settings = run.settings.report
    build_report(run.directory, title=settings.title, figures=settings.figures)


def reopen(
    directory: str | Path,
    *,
    source: str | Path | AnnData | None = None,
    signature: str | None = None,
    threads: int = 1,
) -> Judged:
    """A finished run as it stood when it made its calls, for `senoscore.explain`.

    Parameters
    ----------
    directory
        ``results/<dataset>``, with its ``stages`` folder.
    source
        The data set; None takes the path the run was started with.
    signature
        A signature wanted besides those that decide calls.
    threads
        Threads that read.

    Raises
    ------
    InputDataError
        There is no finished run, the data set is not found, or it is not the one that was scored.
    """
    from senoscore import calling, explain, scoring, streaming
    from senoscore.io.blocks import open_blocks

    run = _finished(Path(directory), source, threads)
    data = run.input()
    if not _cells(run).index.equals(data.obs.index):
        raise InputDataError(
            f"{_shown(run.source)} has other cells than the run in {directory}: name the file that "
            "was scored"
        )
    state, parts = _Scoring(run, data), run.parts("score")
    if "histogram" not in parts[0]:
        raise InputDataError(
            f"{directory}: {scoring.refused_scale(data.scale, data.matrix)}, so that there is "
            "nothing to explain"
        )
    score, z = _joined(parts, "score"), _joined(parts, "z")
    histogram = _summed(parts, "histogram")
    plan, fitted = state.plan(parts), state.fitted
    _same_reference(state.reference, parts)
    if fitted is None:
        able = _able(run, state, plan, histogram, score, z)
    else:
        histogram, able = fitted.histogram, fitted.able
    keep = {name for lineage in keys.LINEAGES for name in calling.deciding(lineage)}
    if signature is not None:
        scoring.note_unscored(state.prepared, plan.usable, plan)
        scoring.require_scored(state.prepared, signature)
        keep.add(signature)
    groups = state.group_table
    named = np.asarray((groups["lineage"] + " " + groups["subset"]).str.strip(), dtype=object)

    def read(rows: NDArray[np.int64]) -> sparse.csr_matrix:
        intake = streaming.Intake(data.genes, state.kind, state.log_base)
        with open_blocks(run.source, matrix=data.matrix) as blocks:
            return explain.read_rows(blocks, intake, rows, threads=threads)

    return explain.judge(
        cells=state.cells, plan=plan, voting=state.prepared.voting, histogram=histogram,
        score=score, z=z, able=able, codes=state.codes, fitted=fitted,
        strata=state.strata, keep=sorted(keep), settings=run.settings.call, donor=state.donor,
        group=np.where(state.groups >= 0, named[state.groups], "") if len(named) else state.donor,
        totals=state.totals, symbols=data.genes.symbols, sums=state.sums, eligible=state.eligible,
        rank=scoring.id_rank(data.genes), kind=state.kind, seed=run.settings.score.seed,
        sample=state.sample, sample_rows=state.sample_rows, read=read, arm=_arm_of(run),
    )  # fmt: skip


def _arm_of(run: _Run) -> pd.DataFrame | None:
    """The phenotype arm by antibodies that the calls of a finished run rest on."""
    from anndata.io import read_elem

    from senoscore.io.h5 import safe_h5_open

    with safe_h5_open(run.path("senoscore.h5ad")) as file:
        told = file.get(f"uns/{keys.UNS}/protein/used")
        if told is None or not bool(read_elem(told)):
            return None
        return pd.DataFrame(read_elem(file[f"obsm/{keys.OBSM_PROTEIN_ARM}"]))


def freeze(
    directory: str | Path, *, source: str | Path | AnnData | None = None, threads: int = 1
) -> Reference:
    """What the cells of a finished run were compared with, for scoring other data sets by it.

    Parameters
    ----------
    directory
        ``results/<dataset>``, with its ``stages`` folder.
    source
        The data set; None takes the path the run was started with.
    threads
        Threads that read.

    Raises
    ------
    InputDataError
        There is no finished run, it cannot be frozen, or `source` is not what was scored.
    """
    from anndata.io import read_elem

    from senoscore import __version__, adjust, calling, reference, scoring
    from senoscore.io.h5 import safe_h5_open

    run = _finished(Path(directory), source, threads)
    data = run.input()
    if not _cells(run).index.equals(data.obs.index):
        raise InputDataError(
            f"{_shown(run.source)} has other cells than the run in {directory}: name the file that "
            "was scored"
        )
    state = _Scoring(run, data)
    if state.reference is not None:
        raise InputDataError(
            f"the run in {directory} was itself scored against a reference: use that one"
        )
    parts = run.parts("score")
    if "histogram" not in parts[0]:
        raise InputDataError(
            f"{directory}: {scoring.refused_scale(data.scale, data.matrix)}, so that there is "
            "nothing to freeze"
        )
    with safe_h5_open(run.path("senoscore.h5ad")) as file:
        name, sha256 = (
            str(read_elem(file[f"uns/{keys.UNS}/{k}"])) for k in ("input", "input_sha256")
        )
    path = Path(run.source) if isinstance(run.source, (str, Path)) else None
    if path is not None and path.is_file() and sha256_file(path) != sha256:
        raise InputDataError(f"{path} has changed since it was scored: analyse it again")
    score, z = _joined(parts, "score"), _joined(parts, "z")
    histogram = _summed(parts, "histogram")
    plan = state.plan(parts)
    matched = scoring.finish(score, z, histogram, state.codes, state.strata)
    able = _able(run, state, plan, histogram, score, z)
    tables = calling.Tables(
        *(
            pd.DataFrame(values, index=state.cells.index, columns=list(state.prepared.signatures))
            for values in (matched.z, matched.pvalue, matched.padj)
        )
    )
    recorder = adjust.Recorder()
    _calls(run, state, tables, able, recorder)
    settings = run.settings.to_dict()
    return reference.build(
        plan=plan, signatures=state.prepared.signatures, voting=state.prepared.voting,
        genes=data.genes, scale=data.scale, sums=state.sums, n_cells=state.n_cells,
        eligible=state.eligible, rank=scoring.id_rank(data.genes), depth=state.depth,
        codes=state.codes, strata=state.strata, histogram=histogram, able=able,
        pvalue=matched.pvalue, padj=matched.padj, steps=recorder.curves,
        seed=run.settings.score.seed,
        about={
            "version": __version__,
            "versions": _versions(),
            "settings": {k: settings[k] for k in ("qc", "annotate", "score", "call")},
            "input": name,
            "input_sha256": sha256,
        },
    )  # fmt: skip


def _finished(directory: Path, source: str | Path | AnnData | None, threads: int) -> _Run:
    """The run in a folder, with its own settings."""
    from anndata.io import read_elem

    from senoscore.io.h5 import safe_h5_open

    scored, facts = directory / "senoscore.h5ad", directory / "stages" / "facts.json"
    missing = [path for path in (scored, facts) if not path.is_file()]
    if missing:
        raise InputDataError(
            f"{missing[0]} is not there: name the results folder of one data set, with its stages"
        )
    with safe_h5_open(scored) as file:
        settings = Settings.from_mapping(json.loads(read_elem(file["uns/senoscore/settings"])))
    if source is None:
        source = str(json.loads(facts.read_text("utf-8")).get("path") or "")
        if not source or not Path(source).exists():
            raise InputDataError(
                f"the data set scored in {directory} is not at {source!r} any more: say where it is "
                "(source)"
            )
    return _Run(directory, source, settings, threads)


def _shown(source: object) -> str:
    return str(source) if isinstance(source, (str, Path)) else "the AnnData"


def read_panel(
    directory: str | Path,
) -> tuple[sparse.csr_matrix, NDArray[Any], NDArray[np.float64]]:
    """Stored values of the marker and signature genes, cell by cell, as the first pass kept them.

    Returns
    -------
    cells × genes, the genes' symbols, and each cell's total.
    """
    run = _Run(Path(directory), "", Settings())
    scan = _merged_scan(run, sample=False)
    symbols = run.parts("qc")[0]["panel_genes"]
    return scan.panel.columns(), symbols, scan.metrics[:, 0]


_STAGE_FUNCTIONS: Final[Mapping[str, Callable[[_Run], None]]] = {
    "inspect": _inspect,
    "qc": _qc,
    "doublets": _doublets,
    "annotate": _annotate,
    "score": _score,
    "call": _call,
    "burden": _burden,
    "report": _report,
}

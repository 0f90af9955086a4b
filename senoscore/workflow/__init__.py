"""What the rules ask: which files, which settings, how much memory. Pure, and tested without rules."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from senoscore.calling import with_verdict
from senoscore.config import Config, parse
from senoscore.pipeline import BLOCK_SIZE, OUTPUTS, SECTIONS, SHARDED

RULES: Final = Path(__file__).resolve().parent / "rules"
CAPTIONS: Final = Path(__file__).resolve().parent / "report"

# where the number of cells is not known yet: so much, and so much for each MB of input
_UNKNOWN_MB: Final = 1500
_PER_INPUT_MB: Final = 2.0
_ROOM: Final = 1.25  # over what was measured
_SIGNATURES: Final = 56  # scored where the settings name none
_COMPARATORS: Final = 9  # published sets, scored besides where the settings ask for them

# What a run holds, in bytes, measured with benchmarks/run.py
_PANEL: Final = 0.06  # share of a cell's values that lie in marker and signature genes
_STORED: Final = 8  # a stored value as it is read: float32 and its column
_KEPT: Final = 4  # one that a stage leaves for the next: packed counts less, logged values more
_SAMPLED: Final = 7 * 1000  # whole cells kept, so many of each lineage
_BLOCK_COPIES: Final = 2  # of each block under way: as read, and as genes
_COUNTED: Final = 7 * 10 * 2048 * 8  # of a signature's null: lineages, depths, bins


class _Need(NamedTuple):
    """What a stage holds: so many megabytes, bytes of a cell, bytes of a cell and signature, copies
    of the panel, of the sampled cells and of the counted null, and whether it walks over the matrix.
    """

    base: float = 330
    per_cell: float = 300
    per_score: float = 0
    panels: float = 0
    samples: float = 0
    nulls: float = 0
    reads: bool = False


_NEEDS: Final[Mapping[str, _Need]] = {
    "inspect": _Need(base=200, per_cell=100),
    "qc": _Need(panels=1.5, samples=2, reads=True),
    "doublets": _Need(base=1000, per_cell=9000, reads=True),
    "annotate": _Need(base=430, panels=0.6, samples=1),
    "score": _Need(per_score=16, samples=1, nulls=1, reads=True),
    "call": _Need(base=430, per_cell=700, per_score=24, samples=3, nulls=3),
    "burden": _Need(panels=1, per_score=6, samples=1),
    "report": _Need(per_cell=2000, per_score=16, panels=1),
}


class Wildcards(Protocol):
    """What Snakemake hands to a function of a rule."""

    dataset: str
    shard: str


class Plan:
    """A checked config, as functions of wildcards."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.config: Config = parse(values)

    def datasets(self) -> str:
        """Regular expression of the data sets: no stray path can match the wildcard."""
        return "|".join(re.escape(name) for name in self.config.datasets)

    def is_remote(self, wildcards: Wildcards) -> bool:
        """Whether the file has to be downloaded."""
        return self.config.datasets[wildcards.dataset].url is not None

    def path(self, wildcards: Wildcards) -> str:
        """Where the file is on this machine."""
        return self.config.datasets[wildcards.dataset].path or ""

    def url(self, wildcards: Wildcards) -> str:
        """Where the file is to be had."""
        return self.config.datasets[wildcards.dataset].url or ""

    def checks(self, wildcards: Wildcards) -> str:
        """Options of `senoscore fetch` for this file."""
        sha256 = self.config.datasets[wildcards.dataset].sha256
        allowed = " ".join(self.config.model.download_schemes)
        return f"--schemes {allowed}" + (f" --sha256 {sha256}" if sha256 else "")

    def settings(self, stage: str) -> Callable[[Wildcards], str]:
        """The settings a stage reads, and no others: a change reruns what depends on it."""

        def of(wildcards: Wildcards) -> str:
            changed = self.config.settings(wildcards.dataset)
            own = {name: changed[name] for name in SECTIONS[stage] if name in changed}
            return json.dumps(own, sort_keys=True, separators=(",", ":"))

        return of

    def parts(self, pattern: str) -> Callable[[Wildcards], list[str]]:
        """The files of all row shards of a data set; one without a suffix where it is not split."""

        def of(wildcards: Wildcards) -> list[str]:
            n = self.config.shards(wildcards.dataset)
            suffixes = [""] if n == 1 else [f"-{k}of{n}" for k in range(1, n + 1)]
            filled = pattern.replace("{dataset}", wildcards.dataset)
            return [filled.replace("{shard}", suffix) for suffix in suffixes]

        return of

    def doublets(self, pattern: str) -> Callable[[Wildcards], list[str]]:
        """Scrublet's table of a data set whose settings ask for it."""

        def of(wildcards: Wildcards) -> list[str]:
            wanted = self.config.settings(wildcards.dataset).get("qc", {}).get("scrublet", False)
            return [pattern.replace("{dataset}", wildcards.dataset)] if wanted else []

        return of

    def reference(self, wildcards: Wildcards) -> list[str]:
        """The frozen run that a data set is scored against, if any: a new one reruns the scores."""
        chosen = self.config.settings(wildcards.dataset).get("score", {}).get("reference")
        return [] if chosen is None else [chosen]

    def memory(self, stage: str) -> Callable[[Wildcards, Iterable[str], int, int], int]:
        """MB to ask for: by the facts where they are known; doubled when a job was killed for it."""

        def of(wildcards: Wildcards, input: Iterable[str], threads: int, attempt: int) -> int:
            paths = [Path(p) for p in input]
            facts = next((p for p in paths if p.name == "facts.json" and p.exists()), None)
            if facts is None:
                needed = math.ceil(_UNKNOWN_MB + _PER_INPUT_MB * _size_mb(paths))
                return needed * (1 << (attempt - 1))
            known = json.loads(facts.read_text("utf-8"))
            score = self.config.settings(wildcards.dataset).get("score", {})
            chosen = score.get("signatures")
            n_signatures = len(with_verdict(chosen)) if chosen else _SIGNATURES
            n_signatures += _COMPARATORS if score.get("comparators") else 0
            needed = stage_mb(
                stage, n_obs=known["n_obs"], n_vars=known["n_vars"], nnz=known["nnz"]["value"],
                n_signatures=n_signatures, threads=threads,
                shards=self.config.shards(wildcards.dataset),
            )  # fmt: skip
            return needed * (1 << (attempt - 1))

        return of

    def targets(self) -> list[str]:
        """The last file of every data set."""
        last = OUTPUTS["report"][-1]
        return [f"{self.config.results}/{name}/{last}" for name in self.config.datasets]


def shard_option(wildcards: Wildcards) -> str:
    """``--shard 2/3`` for the suffix ``-2of3``; nothing where a file is not split."""
    return f"--shard {wildcards.shard[1:].replace('of', '/')}" if wildcards.shard else ""


def stage_mb(
    stage: str,
    *,
    n_obs: int,
    n_vars: int,
    nnz: int | None,
    n_signatures: int = _SIGNATURES,
    threads: int = 1,
    shards: int = 1,
    block_size: int = BLOCK_SIZE,
) -> int:
    """Memory a stage needs at its peak, in MB, from what `inspect` found, with some room.

    Parameters
    ----------
    stage
        One of `pipeline.STAGES`, or ``doublets``.
    n_obs, n_vars, nnz
        Cells, genes and stored values of the matrix; None where nobody counted them (dense).
    n_signatures
        How many are scored.
    threads, block_size
        Blocks of cells under way: one for every thread, and two more.
    shards
        Parts the rows are split into, for the stages that are.
    """
    need = _NEEDS[stage]
    values = n_vars if nnz is None else nnz / max(n_obs, 1)
    cells = math.ceil(n_obs / shards) if stage in SHARDED else n_obs
    held = cells * (
        need.per_cell + need.per_score * n_signatures + need.panels * _PANEL * values * _KEPT
    )
    held += need.samples * min(_SAMPLED, n_obs) * values * _KEPT
    # every thread counts for itself
    held += need.nulls * n_signatures * _COUNTED * (threads + 1 if need.reads else 1)
    if need.reads:
        waiting = min((threads + 2) * block_size, cells)
        held += waiting * values * _STORED * _BLOCK_COPIES
    return math.ceil(_ROOM * (need.base + held / 1e6))


def runtime(wildcards: Wildcards, input: Iterable[str], attempt: int) -> int:
    """Minutes to ask for: ten, and one for every 50 MB of input."""
    return math.ceil((10 + _size_mb(input) / 50) * attempt)


def _size_mb(paths: Iterable[str | Path]) -> float:
    """Size of the files that are there; those still to come count nothing."""
    found = 0
    for path in map(Path, paths):
        if path.is_dir():
            found += sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
        elif path.exists():
            found += path.stat().st_size
    return found / 1e6


def put_on_path() -> None:
    """Let rules find `senoscore` where Snakemake was started from a venv that is not activated."""
    folders = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    current = os.environ.get("PATH", "").split(os.pathsep)
    new = [folder for folder in dict.fromkeys(folders) if folder not in current]
    os.environ["PATH"] = os.pathsep.join(new + current)

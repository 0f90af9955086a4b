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
from typing import Any, Final, Protocol

from senoscore.config import Config, parse
from senoscore.pipeline import BLOCK_SIZE, OUTPUTS, SECTIONS

RULES: Final = Path(__file__).resolve().parent / "rules"
CAPTIONS: Final = Path(__file__).resolve().parent / "report"

# Measured peaks (MB): 650 for 6 000 cells, 840 for 40 000; the rest is room.
_BASE_MB: Final = 1000  # interpreter, libraries, tables of genes and signatures
_PER_CELL_MB: Final = 0.009  # panel genes, scores and tables of a cell
_PER_BLOCK_VALUE_MB: Final = 1e-4  # a stored value in the blocks under way, all copies and threads
_PER_INPUT_MB: Final = 2.0  # where the number of cells is not known yet


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

    def targets(self) -> list[str]:
        """The last file of every data set."""
        last = OUTPUTS["report"][-1]
        return [f"{self.config.results}/{name}/{last}" for name in self.config.datasets]


def shard_option(wildcards: Wildcards) -> str:
    """``--shard 2/3`` for the suffix ``-2of3``; nothing where a file is not split."""
    return f"--shard {wildcards.shard[1:].replace('of', '/')}" if wildcards.shard else ""


def mem_mb(wildcards: Wildcards, input: Iterable[str], attempt: int) -> int:
    """Memory to ask for, in MB: by cells and values per cell; doubled when a job was killed for it."""
    facts = next(
        (Path(p) for p in input if Path(p).name == "facts.json" and Path(p).exists()), None
    )
    if facts is None:
        needed = 1.5 * _BASE_MB + _PER_INPUT_MB * _size_mb(input)
    else:
        known = json.loads(facts.read_text("utf-8"))
        n_obs, stored = known["n_obs"], known["nnz"]["value"]
        per_cell = known["n_vars"] if stored is None else stored / max(n_obs, 1)
        blocks = BLOCK_SIZE * per_cell * _PER_BLOCK_VALUE_MB
        needed = _BASE_MB + _PER_CELL_MB * n_obs + blocks
    return math.ceil(needed * (1 << (attempt - 1)))


def runtime(wildcards: Wildcards, input: Iterable[str], attempt: int) -> int:
    """Minutes to ask for: ten, and one for every 50 MB of input."""
    return math.ceil((10 + _size_mb(input) / 50) * attempt)


def _size_mb(paths: Iterable[str]) -> float:
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

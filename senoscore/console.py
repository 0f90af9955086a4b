"""What the command line shows: one sentence per mistake, one line per warning, one line at the end."""

from __future__ import annotations

import csv
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

PROGRAM = "senoscore"

# of glibc: M_MMAP_THRESHOLD; M_TRIM_THRESHOLD; M_ARENA_MAX, for a thread's own heap gives all back
_MALLOPT: Final = {-3: 32 << 20, -1: 256 << 20, -8: 1}


def printable(text: str) -> str:
    """Text without control characters: names in a file can hold terminal commands."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def say(kind: str, text: str) -> None:
    """One message on stderr."""
    with suppress(BrokenPipeError):
        print(f"{PROGRAM}: {kind}: {printable(text)}", file=sys.stderr, flush=True)


def configure() -> None:
    """Messages of the library and warnings as single lines on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{PROGRAM}: %(message)s"))
    logger = logging.getLogger("senoscore")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        say("warning", " ".join(str(message).split()))

    warnings.showwarning = show


@contextmanager
def job(what: str, folder: Path) -> Iterator[None]:
    """Say how a job ended: data set, cells, signatures, seconds, memory."""
    start = time.perf_counter()
    yield
    parts = [
        what,
        *_facts(folder),
        f"{time.perf_counter() - start:.1f} s",
        f"peak {peak_mib():,} MiB",
    ]
    logging.getLogger("senoscore").info("%s", printable(", ".join(parts)))


def _facts(folder: Path) -> list[str]:
    """Cells and signatures, as far as the artefacts of the data set know them by now."""
    found: list[str] = []
    with suppress(OSError, ValueError, KeyError):
        facts = json.loads((folder / "stages" / "facts.json").read_text("utf-8"))
        found.append(f"{facts['n_obs']:,} cells")
        cells = folder / "stages" / "cells.h5ad"
        if cells.exists():
            import h5py

            with h5py.File(cells) as file:
                passed = file["obs/qc_pass"][:]
            found.append(f"{int(passed.sum()):,} pass")
        coverage = folder / "coverage.tsv"
        if coverage.exists():
            with coverage.open(encoding="utf-8", newline="") as table:
                status = [row["status"] for row in csv.DictReader(table, delimiter="\t")]
            scored = status.count("scored")
            of = f" of {len(status)}" if scored < len(status) else ""
            found.append(f"{scored}{of} signatures")
    return found


def settle_process(threads: int = 1) -> None:
    """For a command that computes and ends: its cores, how it treats memory and hands on Python's lock.

    Memory that was freed is kept: blocks of rows come and go, and memory asked of the system anew
    must be cleared first. What Python makes here is mostly needed to the end, so it need not be looked
    through for what is not.
    """
    import atexit
    import ctypes
    import gc

    # linear algebra would take every core, and its sums may depend on how many; what other packages
    # start takes what the command was given
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if "numba" not in sys.modules:  # once its threads run it refuses another number
        os.environ.setdefault("NUMBA_NUM_THREADS", str(threads))
    # numpy would ask for pages of 2 MB, cleared whole for arrays that are mostly not written to
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    sys.setswitchinterval(1e-3)  # threads that decode wait for the one that loads modules
    gc.set_threshold(100_000, 50, 100)
    atexit.register(gc.freeze)  # nor when the process ends
    with suppress(AttributeError, OSError):  # another library than glibc
        for option, value in _MALLOPT.items():
            ctypes.CDLL(None).mallopt(option, value)


def cores() -> int:
    """Cores this process may use, which on a cluster is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mb() -> int:
    """Memory of this machine, in MB, less a tenth for the others on it."""
    if not hasattr(os, "sysconf"):
        return 8_000
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 0.9 / 1e6)


def peak_mib() -> int:
    """The most memory this process has held."""
    try:
        import resource
    except ImportError:  # not a Unix
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> 20 if sys.platform == "darwin" else peak >> 10


def hush() -> None:
    """After a reader such as `head` has gone: nothing more to write, and no complaint about it."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

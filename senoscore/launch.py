"""`senoscore run`: Snakemake with the shipped Snakefile, and its failures as sentences."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from senoscore.config import Config
from senoscore.console import PROGRAM, memory_mb, say
from senoscore.errors import ConfigError, SenoscoreError

_PACKAGE = Path(__file__).resolve().parent
_MARK = f"{PROGRAM}: error: "


def shipped(name: str) -> Path:
    """A file of the workflow: inside an installed wheel, else in the checkout.

    Parameters
    ----------
    name
        ``Snakefile``, or a path under ``config/``.
    """
    for folder in (_PACKAGE / "workflow", _PACKAGE.parent):
        if (folder / name).exists():
            return folder / name
    raise SenoscoreError(f"the shipped {name} is missing from {_PACKAGE}; reinstall senoscore")


def find_config(given: str | None, folder: Path) -> Path:
    """The config file to run: the one named, else the usual places."""
    places = [Path(given)] if given else [folder / "config" / "config.yaml", folder / "config.yaml"]
    for place in places:
        if place.is_file():
            return place.resolve()
    if given:
        raise ConfigError(f"config file {given!r} does not exist")
    raise ConfigError(
        f"no config file: neither config/config.yaml nor config.yaml is in {folder.resolve()}; "
        "name one, or start from `senoscore config template`"
    )


def has_snakemake() -> bool:
    """Whether Snakemake is installed."""
    return importlib.util.find_spec("snakemake") is not None


def run_workflow(
    config: Config,
    file: Path,
    *,
    folder: Path,
    cores: str | None = None,
    profile: str | None = None,
    options: Sequence[str] = (),
) -> int:
    """Run the whole workflow in a folder.

    Parameters
    ----------
    config, file
        The checked config, and where it was read.
    folder
        Where results go and relative paths start.
    cores
        For jobs on this machine; None leaves it to the profile.
    profile
        `local`, `slurm`, or a profile of the user's own; None means `local` unless cores are given.
    options
        Passed on to Snakemake.

    Returns
    -------
    Exit code: 0, 2 after a mistake that a job could name, else Snakemake's own.
    """
    if not has_snakemake():
        raise SenoscoreError(
            "Snakemake is not installed; install senoscore[workflow], or use `senoscore analyse FILE`"
        )
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(shipped("Snakefile"))]
    command += ["--configfile", str(file), "--directory", str(folder)]
    command += ["--profile", _profile(profile or "local")]
    command += ["--cores", cores] if cores else []
    if profile in (None, "local"):
        # so many data sets at once as fit: Snakemake would count cores only
        command += ["--resources", f"mem_mb={memory_mb()}"]
    folder.mkdir(parents=True, exist_ok=True)
    start = time.time()
    with _lock(folder) as (handle, left_behind):
        if left_behind and (folder / ".snakemake" / "locks").is_dir():
            subprocess.run([*command, "--unlock"], check=False, capture_output=True)
        code = _wait([*command, *options], handle)
        if code >= 0 and handle >= 0:  # Snakemake ended by itself, and so removed its locks
            os.ftruncate(handle, 0)
    if code == 0:
        return 0
    told = list(_sentences(folder / config.model.pathvars.get("logs", "logs"), start))
    for sentence in told:
        say("error", sentence)
    if hint := _summary_of_some(config, folder):
        say("note", hint)
    return 2 if told else code


def _summary_of_some(config: Config, folder: Path) -> str:
    """How to have a summary of the data sets that are done, where others are not; else empty."""
    results = folder / config.results
    done = [name for name in config.datasets if (results / name / "report.html").is_file()]
    if not 0 < len(done) < len(config.datasets):
        return ""
    command = shlex.join([PROGRAM, "summary", str(results), *done])
    return (
        f"{len(done)} of {len(config.datasets)} data sets have their report; the summary waits for "
        f"all. One of these: {command}"
    )


def _profile(name: str) -> str:
    """The folder of a shipped profile; any other name is Snakemake's to find."""
    if name in ("local", "slurm") and not Path(name).is_dir():
        return str(shipped(f"config/profiles/{name}"))
    return name


def _wait(command: list[str], handle: int) -> int:
    """Run Snakemake; after Ctrl-C, which it gets too, let it stop its jobs and clean up."""
    process = subprocess.Popen(command, pass_fds=[handle] if handle >= 0 else [])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            with suppress(KeyboardInterrupt):
                process.wait()
            raise


@contextmanager
def _lock(folder: Path) -> Iterator[tuple[int, bool]]:
    """Hold the folder; yields the handle, and whether an earlier run died holding it.

    The system drops this lock when the last process that holds it ends, however it ends (Snakemake
    inherits the handle). So a lock of Snakemake's that is still there was left by a killed run.
    """
    try:
        import fcntl
    except ImportError:  # not a Unix: Snakemake's own lock has to do
        yield -1, False
        return
    state = folder / ".snakemake"
    state.mkdir(exist_ok=True)
    handle = os.open(state / "senoscore.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SenoscoreError(
                f"another senoscore run is working in {folder.resolve()}; wait for it, or use "
                "--directory"
            ) from None
        left_behind = os.read(handle, 1) != b""
        os.pwrite(handle, b"1", 0)
        yield handle, left_behind
    finally:
        os.close(handle)


def _sentences(logs: Path, start: float) -> Iterator[str]:
    """What the jobs that failed just now said, with where to read more."""
    for log in sorted(logs.rglob("*.log")):
        if log.stat().st_mtime < start - 1:
            continue
        lines = log.read_text("utf-8", errors="replace").splitlines()
        for i, line in enumerate(lines):
            if line.startswith(_MARK):
                text = "\n".join([line.removeprefix(_MARK), *lines[i + 1 :]])
                yield f"{log.parent.name}, {log.stem}: {text} (log: {log})"

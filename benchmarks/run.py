"""Measure senoscore and its peers on one simulated file, and write RESULTS.md.

Every measurement is a process of its own (`_jobs.py`), so that its peak memory is its own. After one
round to warm up (compiled code, page cache) the jobs take turns, `--repeats` times.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
EXAMPLES = """\
examples:
  python benchmarks/run.py                                 what RESULTS.md holds, without --large
  python benchmarks/run.py --large                         and four times the cells: another half hour
  python benchmarks/run.py --n-cells 5000 --repeats 1 --peers pyucell --out /tmp/RESULTS.md
  python benchmarks/run.py --redraw benchmarks/RESULTS.json      write the page again, measure nothing
"""
# job -> what the page calls it
PEERS = {
    "scanpy": "scanpy: QC metrics, normalise, log1p, 20 x score_genes",
    "pyucell": "pyUCell, one process",
    "pyucell 2": "pyUCell, two processes",
    "decoupler aucell": "decoupler AUCell",
    "decoupler ulm": "decoupler ULM",
    "scdrs": "scDRS, 200 control sets",
}
ANALYSE = "senoscore analyse --no-report --signatures verdict"
OURS = {
    "read_h5ad": "anndata.read_h5ad",
    "inflate 1": "inflating every chunk, nothing else, 1 thread",
    "inflate 2": "inflating every chunk, nothing else, 2 threads",
    "blocks 1": "senoscore, row blocks, 1 thread",
    "blocks 2": "senoscore, row blocks, 2 threads",
    "analyse 1": f"{ANALYSE}, 1 thread",
    "analyse 2": f"{ANALYSE}, 2 threads",
    "analyse all 2": "senoscore analyse --no-report, all signatures, 2 threads",
    "ucell 1": "senoscore ucell, 1 thread",
    "ucell 2": "senoscore ucell, 2 threads",
    "aucell 1": "senoscore aucell, 1 thread",
    "aucell 2": "senoscore aucell, 2 threads",
    "matched 1": "senoscore matched controls, 1 thread",
    "matched 2": "senoscore matched controls, 2 threads",
}
PAGE = os.sysconf("SC_PAGE_SIZE")
SLOW = 60  # seconds; a peer that takes longer is measured once
STAGES = ("inspect", "qc", "annotate", "score", "call", "burden")

Measured = dict[str, Any]


# ---------------------------------------------------------------------------------------------
# measuring


def held(pid: int) -> float:
    """Memory of a process and those it started, now (MB); files they map alike count once."""

    def pages(pid: int, *, child: bool) -> int:
        try:
            resident, of_files = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:  # it has ended
            return 0
        own = resident - of_files if child else resident
        return own + sum(pages(int(other), child=True) for other in children)

    return pages(pid, child=False) * PAGE / 2**20


def watch(argv: list[str]) -> Measured:
    """Run a process: wall, cpu, peak memory (MB), what it printed, and why it failed."""
    environment = os.environ | {
        "PYTHONPATH": f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    }
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(argv, stdout=out, stderr=err, env=environment)
        ended, together = threading.Event(), [0.0]

        def look() -> None:
            while not ended.wait(0.05):
                together[0] = max(together[0], held(process.pid))

        looking = threading.Thread(target=look)
        looking.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        ended.set()
        looking.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        said, complaints = out.read(), err.read()
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": max(together[0], usage.ru_maxrss / 1024),
        "out": said,
        "err": complaints,
        "failed": process.returncode != 0,
    }


def job(name: str, path: Path, scratch: Path) -> Measured:
    """One measurement of a job of `_jobs.py`, or of `senoscore analyse` from start to exit."""
    if name.startswith("analyse"):
        return analyse(path, scratch, name.split()[-1], everything="all" in name)
    seen = watch([sys.executable, str(HERE / "_jobs.py"), name, str(path), str(scratch)])
    if seen["failed"]:
        last = (seen["err"].strip() or "no message").splitlines()[-1]
        return {"skipped": f"failed: {last[:200]}"}
    found: Measured = json.loads(seen["out"].splitlines()[-1])
    return {**found, "wall": seen["wall"], "peak": seen["peak"]}


def senoscore(*argv: str) -> Measured:
    seen = watch([sys.executable, "-m", "senoscore", *argv])
    if seen["failed"]:
        raise SystemExit(f"senoscore {' '.join(argv)} failed:\n{seen['err']}")
    return seen


def analyse(path: Path, scratch: Path, threads: str, *, everything: bool = False) -> Measured:
    """From start to exit; `everything`: all signatures, not those that calls are read from."""
    out = scratch / "results" / path.stem
    seen = senoscore(
        "analyse", str(path), "--out", str(out), "--threads", threads, "--no-report",
        *([] if everything else ["--signatures", "verdict"]),
    )  # fmt: skip
    stages = re.findall(r"stage (\w+): ([\d.]+) s", seen["err"])
    return {
        "seconds": seen["wall"],
        "cpu": seen["cpu"],
        "peak": seen["peak"],
        "stages": {name: float(seconds) for name, seconds in stages},
    }


def stages(path: Path, scratch: Path, threads: str) -> dict[str, Measured]:
    """Each stage as a process of its own, as the workflow runs them."""
    out = scratch / "results" / f"{path.stem}-stages"
    found = {}
    for name in STAGES:
        seen = senoscore("stage", name, str(out), "--source", str(path), "--threads", threads)
        found[name] = {"seconds": seen["wall"], "cpu": seen["cpu"], "peak": seen["peak"]}
    facts = json.loads((out / "stages" / "facts.json").read_text())
    return {**found, "facts": {k: facts[k] for k in ("n_obs", "n_vars", "nnz")}}


def simulated(n_cells: int, n_genes: int, depth: int, scratch: Path) -> Path:
    path = scratch / f"cohort-{n_cells}x{n_genes}-depth{depth}.h5ad"
    if not path.exists():
        say(f"simulating {path.name}")
        sizes = ["--n-cells", str(n_cells), "--n-genes", str(n_genes), "--depth", str(depth)]
        senoscore("simulate", str(path), *sizes, "--threads", str(os.cpu_count() or 1))
    return path


def measure(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    path = simulated(args.n_cells, args.n_genes, args.depth, scratch)
    names = [*OURS, *args.peers]
    runs: dict[str, list[Measured]] = {name: [] for name in names}
    for name in OURS:
        say(f"warm-up: {name}")
        job(name, path, scratch)
    for i in range(args.repeats):
        for name in names:
            before = runs[name]
            if before and ("skipped" in before[0] or (name in PEERS and before[0]["wall"] > SLOW)):
                continue
            before.append(job(name, path, scratch))
            say(f"{i + 1}/{args.repeats} {name}: {before[-1].get('seconds', before[-1])}")
    found = {
        "runs": runs,
        "differ": job("differ", path, scratch),
        "stages": stages(path, scratch, "2"),
        "bytes": path.stat().st_size,
        "asked": {"n_cells": args.n_cells, "n_genes": args.n_genes, "depth": args.depth},
        "machine": machine(),
    }
    if args.large:
        large = simulated(4 * args.n_cells, args.n_genes, args.depth, scratch)
        found["large"] = {
            "n_cells": 4 * args.n_cells,
            "runs": [job("analyse 2", large, scratch) for _ in range(2)],
            "read_h5ad": job("read_h5ad", large, scratch),
            "stages": stages(large, scratch, "2"),
        }
    return found


def machine() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    def read(path: str, key: str) -> str:
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            return "unknown"
        return next(
            (line.split(":")[1].strip() for line in lines if line.startswith(key)), "unknown"
        )

    versions = {}
    for name in ("senoscore", "anndata", "h5py", "isal", "numba", "numpy", "scipy", "pandas",
                 "scanpy", "pyucell", "decoupler", "scdrs"):  # fmt: skip
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    memory = read("/proc/meminfo", "MemTotal").split()[0]
    return {
        "processor": read("/proc/cpuinfo", "model name"),
        "cores": str(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "memory": f"{int(memory) / 2**20:.0f} GiB" if memory.isdigit() else memory,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
        "date": datetime.now(UTC).date().isoformat(),
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------
# the page


class Results:
    """Medians of what was measured, and the ratios that were promised."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found, self.runs = found, found["runs"]
        self.n_cells = found["asked"]["n_cells"]

    def skipped(self, name: str) -> str | None:
        runs = self.runs.get(name)
        return "not asked for" if not runs else runs[0].get("skipped")

    def of(self, name: str, key: str = "seconds") -> list[float]:
        return [] if self.skipped(name) else [run[key] for run in self.runs[name]]

    def median(self, name: str, key: str = "seconds") -> float:
        return statistics.median(self.of(name, key) or [float("nan")])

    def cells(self, name: str) -> int:
        return int(self.runs[name][0].get("cells", self.n_cells))

    def per_cell(self, name: str) -> float:
        return float("nan") if self.skipped(name) else self.median(name) / self.cells(name)

    def targets(self) -> Iterator[tuple[str, str, float, bool]]:
        """What was promised, how it is written, the number, and whether it holds."""
        m, differ = self.median, self.found["differ"]

        def at_most(what: str, number: float, limit: float, unit: str = "x") -> Any:
            return what, f"at most {limit:g} {unit}", number, number <= limit

        def at_least(what: str, number: float, limit: float) -> Any:
            return what, f"at least {limit:g} x", number, number >= limit

        yield at_most("analyse, 2 threads / read_h5ad", m("analyse 2") / m("read_h5ad"), 1.0)
        yield at_least("read_h5ad / row blocks, 2 threads", m("read_h5ad") / m("blocks 2"), 3)
        yield at_least("analyse, 1 thread / 2 threads", m("analyse 1") / m("analyse 2"), 1.6)
        busy = m("analyse 1", "cpu") / m("analyse 1")
        yield at_most("cores that analyse keeps busy, 1 thread", busy, 1.02, "")
        # like with like: pyUCell in one process, and the faster of one and two
        alone = self.per_cell("pyucell")
        faster = min(x for x in (alone, self.per_cell("pyucell 2"), math.inf) if x == x)
        aucell, scdrs = self.per_cell("decoupler aucell"), self.per_cell("scdrs")
        for job, peer, theirs, limit in (
            ("ucell 1", "pyUCell, 1 process", alone, 100),
            ("ucell 2", "pyUCell (the faster)", faster, 100),
            ("aucell 1", "decoupler", aucell, 80),
            ("aucell 2", "decoupler", aucell, 80),
            ("matched 1", "scDRS", scdrs, 100),
            ("matched 2", "scDRS", scdrs, 100),
        ):
            what, threads = job.split()
            ratio = theirs / self.per_cell(job)
            if math.isfinite(ratio):
                yield at_least(
                    f"{peer} / {what}, {threads} thread{'s' * (threads > '1')}", ratio, limit
                )
        for name, value in differ.items():
            if name != "wall" and name != "peak":
                yield at_most(f"{name}, largest difference from the original", value, 1e-6, "")
        peak = m("analyse 2", "peak")
        yield at_most(f"peak of analyse, {self.n_cells:,} cells, GB", peak * 2**20 / 1e9, 1.2, "GB")
        large = self.found.get("large")
        if large:
            n = large["n_cells"]
            high = statistics.median(run["peak"] for run in large["runs"])
            slow = statistics.median(run["seconds"] for run in large["runs"])
            each = m("analyse 2") / self.n_cells
            yield at_most(f"peak of analyse, {n:,} cells, GB", high * 2**20 / 1e9, 1.25 * 1.2, "GB")
            read = large["read_h5ad"]["seconds"]
            yield at_most(f"analyse, 2 threads / read_h5ad, {n:,} cells", slow / read, 1.0)
            yield at_most(f"time per cell, {n:,} / {self.n_cells:,} cells", slow / n / each, 1.15)

    def inside(self) -> list[dict[str, float]]:
        """Seconds per stage inside runs of analyse, where the runs say so."""
        return [run["stages"] for run in self.runs["analyse 2"] if run["stages"]]

    def stage_seconds(self) -> dict[str, float]:
        """Per stage inside one run of analyse; of stages run alone where the run does not say."""
        if inside := self.inside():
            found = {k: statistics.median(each[k] for each in inside) for k in inside[0]}
            rest = self.median("analyse 2") - sum(found.values())
            return found | {"start, imports, exit": rest}
        return {k: self.found["stages"][k]["seconds"] for k in STAGES}


def number(value: float) -> str:
    if value != value:
        return "-"
    return (
        f"{value:.1e}"
        if 0 < abs(value) < 1e-3
        else f"{value:,.0f}"
        if value >= 100
        else f"{value:.2f}"
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(results: Results, picture: str) -> str:
    found, asked, about = results.found, results.found["asked"], results.found["machine"]
    values = results.runs["read_h5ad"][0]["values"]
    promised = [
        [what, limit, number(value), "met" if met else "**not met**"]
        for what, limit, value, met in results.targets()
    ]
    rows = []
    for name, what in (OURS | PEERS).items():
        if reason := results.skipped(name):
            rows.append([what, "-", "-", "-", "-", reason])
            continue
        n, times = results.cells(name), results.of(name)
        scaled = results.median(name) * results.n_cells / n
        note = f"{n:,} cells, scaled" if n != results.n_cells else ""
        spread = f"{number(min(times))}-{number(max(times))}" if len(times) > 1 else "once"
        rows.append([what, number(results.median(name)), spread, number(scaled),
                     number(results.median(name, "peak")), note])  # fmt: skip
    limit = results.median("inflate 2")
    each = results.stage_seconds()
    whole = results.median("analyse 2")
    passes = [[k, number(v), f"{v / whole:.0%}", number(v / limit)] for k, v in each.items()]
    alone = not results.inside()
    return f"""# Benchmarks

{about["processor"]}, {about["cores"]} cores, {about["memory"]}; {about["system"]}; Python
{about["python"]}; {about["date"]}. {about["versions"]}.

One simulated file, {asked["n_cells"]:,} cells x {asked["n_genes"]:,} genes, {values / asked["n_cells"]:,.0f}
genes per cell, gzip, {found["bytes"] / 1e6:,.0f} MB. Made and measured by `python benchmarks/run.py`: every
number is the median of processes of their own, in turns, after a round to warm up. `analyse` is timed
from the start of the process to its exit, everything else by the call. Memory is the peak of the
process and those it starts, together, the input included. Cores that
a run keeps busy are its processor time by its time. `--signatures verdict` scores the 32
signatures that calls are read from, each with 200 null sets; without it all 56 are scored, and the
calls are the same.

## What was promised

{table(["ratio or size", "promised", "measured", ""], promised)}

![Where the time goes, and how much faster than the originals]({picture})

## Times

20 signatures; the rank methods, ULM and scDRS on a part of the cells, in memory, scaled to all of them
in the column "all cells". A peer that takes over {SLOW} s is measured once.

{table(["", "seconds", "range", "all cells", "peak MB", ""], rows)}

## Pass by pass

{"Each stage as a process of its own." if alone else "Inside one run of `analyse`, 2 threads."} The limit:
inflating every chunk of the matrix with ISA-L in two threads, and nothing else, takes {number(limit)} s;
`analyse` decodes the matrix in qc, and in score reads what qc kept of it in scratch space. `finish` is
what is left of calibration, certificate and the writing of files when the other stages are done.

{table(["stage", "seconds", "of analyse", "x the limit"], passes)}

## Memory, asked for and used

What `senoscore.workflow` asks Snakemake for, from the facts alone, and the peak of the stage.

{table(["cells", "stage", "asked for, MB", "peak, MB"], memory_rows(found))}
"""


def memory_rows(found: dict[str, Any]) -> list[list[str]]:
    from senoscore.workflow import stage_mb

    rows = []
    for each in (found["stages"], found.get("large", {}).get("stages")):
        for name in STAGES if each else ():
            facts = each["facts"]
            asked = stage_mb(
                name,
                n_obs=facts["n_obs"],
                n_vars=facts["n_vars"],
                nnz=facts["nnz"]["value"],
                threads=2,
            )
            peak = each[name]["peak"] * 2**20 / 1e6
            rows.append([f"{facts['n_obs']:,}", name, f"{asked:,}", f"{peak:,.0f}"])
    return rows


def draw(results: Results, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    bars = {
        "read_h5ad": {"": results.median("read_h5ad")},
        "analyse" if results.inside() else "analyse,\nstages alone": results.stage_seconds(),
        "row blocks": {"": results.median("blocks 2")},
        "inflate only": {"": results.median("inflate 2")},
    }
    shades = plt.get_cmap("viridis")
    for y, (_, parts) in enumerate(bars.items()):
        start = 0.0
        for i, (part, seconds) in enumerate(parts.items()):
            colour = shades(0.15 + 0.8 * i / max(len(parts) - 1, 1)) if part else "0.6"
            left.barh(y, seconds, left=start, color=colour, label=part or None)
            start += seconds
        left.text(start, y, f" {start:.1f} s", va="center", fontsize=8)
    left.set_yticks(range(len(bars)), list(bars))
    left.invert_yaxis()
    left.margins(x=0.12)
    left.set_title(f"seconds for {results.n_cells:,} cells, 2 threads", fontsize=9)
    left.legend(fontsize=7, frameon=False, loc="lower right")
    ratios = {
        what.split(" / ")[1]: (value, float(limit.split()[2]))
        for what, limit, value, _ in results.targets()
        if limit.startswith("at least") and what.split()[0] in ("pyUCell", "decoupler", "scDRS")
    }
    for y, (value, limit) in enumerate(ratios.values()):
        right.barh(y, value, color="tab:green" if value >= limit else "tab:red")
        right.text(value, y, f" {value:,.0f} x", va="center", fontsize=8)
        right.plot([limit, limit], [y - 0.4, y + 0.4], color="black")
    right.set_yticks(range(len(ratios)), list(ratios))
    right.invert_yaxis()
    right.set_xscale("log")
    right.set_xlim(10, 3 * max([value for value, _ in ratios.values()], default=100))
    right.set_xticks(*[(10, 100, 1000)] * 2)
    right.minorticks_off()
    right.set_title("times as fast as pyUCell, decoupler, scDRS (line: promised)", fontsize=9)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def write(found: dict[str, Any], out: Path) -> None:
    results = Results(found)
    picture = out.with_suffix(".png")
    draw(results, picture)
    out.write_text(page(results, picture.name))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n-cells", type=int, default=100_000, help="default: 100000")
    parser.add_argument("--n-genes", type=int, default=30_000, help="default: 30000")
    parser.add_argument(
        "--depth", type=int, default=10_000, help="counts per cell (default: 10000)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=list(PEERS),
        default=list(PEERS),
        help="default: all; none: --peers",
    )
    parser.add_argument("--large", action="store_true", help="analyse four times the cells, too")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md", help="the page to write")
    parser.add_argument(
        "--scratch", type=Path, help="folder for inputs; kept and used again if given"
    )
    parser.add_argument("--redraw", type=Path, metavar="JSON", help="from an earlier run's numbers")
    args = parser.parse_args()
    sys.path.insert(0, str(HERE.parent))
    if args.redraw:
        write(json.loads(args.redraw.read_text()), args.out)
        return 0
    with tempfile.TemporaryDirectory(prefix="senoscore-benchmark-") as folder:
        scratch = args.scratch or Path(folder)
        scratch.mkdir(parents=True, exist_ok=True)
        found = measure(args, scratch)
    args.out.with_suffix(".json").write_text(json.dumps(found, indent=1))
    write(found, args.out)
    say(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

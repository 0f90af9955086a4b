"""The workflow on a real SLURM: `.ci/slurm` starts one of one node."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from senoscore.simulate import simulate_to

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_executor_plugin_slurm") is None,
        reason="snakemake-executor-plugin-slurm is not installed",
    ),
    pytest.mark.skipif(
        not os.environ.get("SENOSCORE_SLURM"),
        reason="set SENOSCORE_SLURM=1 to send jobs to the SLURM of this machine",
    ),
]


def senoscore(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "senoscore", *argv],
        cwd=cwd, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


def test_jobs_of_the_cluster_write_what_one_machine_writes(tmp_path: Path) -> None:
    here = tmp_path / "on a cluster"
    here.mkdir()
    simulate_to(here / "cohort.h5ad", n_cells=1500, n_genes=6000, seed=2)
    (here / "text.h5ad").write_text("no HDF5 file", "utf-8")
    (here / "config.yaml").write_text(
        "score: {signatures: [verdict]}\n"
        "datasets:\n"
        "  cohort: {path: cohort.h5ad, shards: 2}\n"
        "  text: {path: text.h5ad}\n",
        "utf-8",
    )
    done = senoscore(
        "run", "config.yaml", "--profile", "slurm", "--max-threads", "2",
        "--slurm-init-seconds-before-status-checks", "3", cwd=here,
    )  # fmt: skip
    told = done.stdout + done.stderr
    # the broken file is named, and stops nobody else
    assert done.returncode != 0
    assert "text.h5ad" in told
    assert "1 of 2 data sets have their report" in told
    assert not (here / "results" / "text" / "report.html").exists()
    assert (here / "results" / "cohort" / "report.html").is_file(), told
    # two runs of rows a pass, one job for annotate and one for the last three stages
    jobs = [line for line in told.splitlines() if "has been submitted with SLURM jobid" in line]
    assert len(jobs) == 6, told
    alone = senoscore(
        "analyse", "cohort.h5ad", "--out", "alone", "--signatures", "verdict", cwd=here
    )
    assert alone.returncode == 0, alone.stderr
    for table in (here / "alone").glob("*.tsv"):
        assert table.read_bytes() == (here / "results" / "cohort" / table.name).read_bytes(), table

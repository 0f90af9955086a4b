"""The workflow: what would run, what did run, what runs again, and how it fails."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from senoscore import launch, workflow
from senoscore.config import parse as load_config
from senoscore.pipeline import OUTPUTS, SECTIONS, SHARDED, STAGES, shard_file
from senoscore.signatures import read_signatures
from senoscore.workflow import Plan, runtime, shard_option, stage_mb

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(__file__).parent / "cases"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("snakemake") is None, reason="Snakemake is not installed"
)


def senoscore(*argv: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "senoscore", *argv],
        cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if check and done.returncode:
        raise AssertionError(f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def dry_run(config: Path, cwd: Path, *options: str) -> list[dict[str, str]]:
    """The jobs Snakemake would start: rule, wildcards, shell command."""
    done = senoscore("run", str(config), "-n", "-p", *options, cwd=cwd)
    jobs = []
    for block in re.split(r"\n\[.*\]\n", done.stdout + done.stderr)[1:]:
        found = re.match(r"(?:local)?rule (\w+):", block)
        if found is None:
            continue
        names = re.search(r"wildcards: (.*)", block)
        command = re.search(r"Shell command: (.*)", block)
        jobs.append(
            {
                "rule": found[1],
                "wildcards": names[1] if names else "",
                "shell": command[1] if command else "",
                "text": block,
            }
        )
    return jobs


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A case's config in a folder with the (empty) files it names."""
    from senoscore import config

    for path in CASES.iterdir():
        shutil.copy(path, tmp_path)
    file = tmp_path / f"{request.param}.yaml"
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        checked = config.load(file)
    finally:
        os.chdir(here)
    for dataset in checked.datasets.values():
        if dataset.path is not None:
            path = tmp_path / dataset.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return file


# -------------------------------------------------------------------------------------------------
# what would run


@pytest.mark.parametrize("case", ["simple"], indirect=True)
def test_one_data_set_is_one_chain_of_stages(case: Path) -> None:
    jobs = dry_run(case, case.parent)
    assert sorted(job["rule"] for job in jobs) == sorted([*STAGES, "summary", "all"])
    for job in jobs:
        if job["rule"] in STAGES:
            words = shlex.split(job["shell"].split(" 2> ")[0])
            assert words[:4] == ["senoscore", "stage", job["rule"], "results/pbmc"]
            assert words[words.index("--source") + 1] == "pbmc.h5ad"
            assert words[words.index("--settings") + 1] == "{}"


@pytest.mark.parametrize("case", ["scrublet"], indirect=True)
def test_scrublet_is_a_stage_of_its_own_where_the_config_asks_for_it(case: Path) -> None:
    jobs = dry_run(case, case.parent)
    assert sorted(job["rule"] for job in jobs) == sorted([*STAGES, "doublets", "summary", "all"])


@pytest.mark.parametrize("case", ["odd_names"], indirect=True)
def test_names_that_a_shell_would_trip_over(case: Path) -> None:
    for job in dry_run(case, case.parent):
        if job["rule"] in STAGES:
            command, log = job["shell"].split(" 2> ")
            words = shlex.split(command)
            assert words[3] == "my results; here/odd.Name_1-x"
            assert words[words.index("--source") + 1] == 'a b;c\'d $HOME "x"/e&f.h5ad'
            assert shlex.split(log) == [f"my logs/odd.Name_1-x/{job['rule']}.log"]


@pytest.mark.parametrize("case", ["sharded"], indirect=True)
def test_a_large_file_is_split_where_it_says_so(case: Path) -> None:
    jobs = dry_run(case, case.parent)
    for stage in ("qc", "score"):
        shells = [job["shell"] for job in jobs if job["rule"] == stage]
        shards = sorted(re.findall(r"--shard (\S+)", " ".join(shells)))
        assert len(shells) == 4
        assert shards == ["1/3", "2/3", "3/3"]
    gathered = next(
        job["text"]
        for job in jobs
        if job["rule"] == "annotate" and "dataset=large" in job["wildcards"]
    )
    for k in (1, 2, 3):
        assert f"results/large/{shard_file('qc', (k, 3))}" in gathered


@pytest.mark.parametrize("case", ["remote"], indirect=True)
def test_what_has_to_be_downloaded_is_and_is_checked(case: Path) -> None:
    jobs = dry_run(case, case.parent)
    fetched = {
        job["wildcards"]: shlex.split(job["shell"]) for job in jobs if job["rule"] == "fetch"
    }
    assert fetched["dataset=open"][:4] == [
        "senoscore", "fetch", "https://example.org/open.h5ad", "downloads/datasets/open.h5ad",
    ]  # fmt: skip
    words = fetched["dataset=checked"]
    assert words[2] == "https://example.org/a%20b.h5ad?x=1&y=2"
    assert words[words.index("--sha256") + 1].startswith("2c26b46b")
    sources = {
        shlex.split(job["shell"])[shlex.split(job["shell"]).index("--source") + 1]
        for job in jobs
        if job["rule"] in STAGES
    }
    assert sources == {f"downloads/datasets/{name}.h5ad" for name in ("open", "checked")}


@pytest.mark.parametrize("case", ["table"], indirect=True)
def test_each_stage_is_told_its_own_settings_only(case: Path) -> None:
    told: dict[tuple[str, str], dict[str, object]] = {}
    for job in dry_run(case, case.parent):
        if job["rule"] in STAGES:
            words = shlex.split(job["shell"])
            name = job["wildcards"].removeprefix("dataset=").split(",")[0]
            told[name, job["rule"]] = json.loads(words[words.index("--settings") + 1])
    assert told["one", "qc"] == {"dataset": {"donor": "patient"}}
    assert told["one", "score"] == {"dataset": {"donor": "patient"}, "score": {"seed": 2}}
    assert told["two", "qc"] == {}
    assert told["two", "score"] == {"score": {"seed": 1}}
    assert told["two", "call"] == {"score": {"seed": 1}, "call": {"fdr": 0.1}}
    for (_, stage), settings in told.items():
        assert settings.keys() <= set(SECTIONS[stage])


@pytest.mark.parametrize("case", ["sharded"], indirect=True)
def test_slurm_profile(case: Path) -> None:
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed")
    jobs = dry_run(case, case.parent, "--profile", "slurm", "--cores", "8")
    small = next(j for j in jobs if j["rule"] == "qc" and "dataset=small" in j["wildcards"])
    assert re.search(r"mem_mb=\d{4}", small["text"])
    assert re.search(r"runtime=\d+", small["text"])
    assert "threads: 4" in small["text"]


def test_the_rules_write_what_the_stages_write() -> None:
    """One truth: a file that a stage writes and no rule names would be lost on a cluster."""
    for stage in STAGES:
        text = (ROOT / "senoscore" / "workflow" / "rules" / f"{stage}.smk").read_text("utf-8")
        output = text.split("output:")[1].split("log:")[0]
        named = set(re.findall(r'"<results>/\{dataset\}/([^"]+)"', output))
        assert {name.replace("{shard}", "") for name in named} == set(OUTPUTS[stage]), stage


def test_the_table_of_contents_is_short() -> None:
    lines = (ROOT / "Snakefile").read_text("utf-8").splitlines()
    assert len(lines) <= 60
    rules = {path.stem for path in (ROOT / "senoscore" / "workflow" / "rules").glob("*.smk")}
    assert rules == {name for line in lines for name in re.findall(r"RULES\}/(\w+)\.smk", line)}


@pytest.mark.parametrize("case", ["simple"], indirect=True)
def test_lint_wants_nothing_but_containers(case: Path) -> None:
    """The software of every rule is this package; a container for it is the site's business."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
         "--configfile", str(case), "--lint"],
        cwd=case.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = set(re.findall(r"^    \* (.*?):?$", done.stderr, re.MULTILINE))
    assert found == {"Specify a conda environment or container for each rule."}, done.stderr


def test_rules_are_formatted() -> None:
    if importlib.util.find_spec("snakefmt") is None:
        pytest.skip("snakefmt is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "senoscore/workflow/rules"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# -------------------------------------------------------------------------------------------------
# helpers of the rules


class Wildcards:
    def __init__(self, dataset: str = "", shard: str = "") -> None:
        self.dataset, self.shard = dataset, shard


def test_a_frozen_reference_is_an_input_of_what_is_scored_against_it() -> None:
    one = {"path": "b.h5ad", "score": {"reference": "own.npz"}}
    plan = Plan({"datasets": {"a": "a.h5ad", "b": one}, "score": {"reference": "ref.npz"}})
    assert plan.reference(Wildcards("a")) == ["ref.npz"]
    assert plan.reference(Wildcards("b")) == ["own.npz"]
    assert Plan({"datasets": {"a": "a.h5ad"}}).reference(Wildcards("a")) == []


def test_shard_option() -> None:
    assert shard_option(Wildcards(shard="")) == ""
    assert shard_option(Wildcards(shard="-2of13")) == "--shard 2/13"


def test_memory_and_time_grow_with_the_input_and_the_attempt(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"0" * 1000)
    os.truncate(os.open(large, os.O_RDWR | os.O_CREAT), 10**9)
    plan = Plan({"datasets": {"a": "a.h5ad"}})

    def memory(wildcards: Wildcards, paths: list[str], attempt: int) -> int:
        return plan.memory("qc")(wildcards, paths, 2, attempt)

    for of in (memory, runtime):
        asked = [of(Wildcards("a"), [str(path)], 1) for path in (small, large)]
        assert asked[0] < asked[1]
        assert of(Wildcards("a"), [str(large)], 2) >= 2 * asked[1]
        assert of(Wildcards("a"), ["not there yet"], 1) <= asked[0]
    assert memory(Wildcards("a"), [str(tmp_path)], 1) == memory(
        Wildcards("a"), [str(small), str(large)], 1
    )


# peaks (MB) of stages run alone in two threads on simulated cells with 2,506 genes each, 56 signatures
PEAKS = {
    "inspect": {100_000: 193, 400_000: 207},
    "qc": {100_000: 630, 400_000: 966},
    "annotate": {100_000: 430, 400_000: 660},
    "score": {100_000: 725, 400_000: 1003},
    "call": {100_000: 910, 400_000: 1291},
    "burden": {100_000: 430, 400_000: 757},
    "report": {100_000: 617, 400_000: 1681},
}


@pytest.mark.parametrize("stage", PEAKS)
def test_memory_asked_for_is_what_was_measured_and_some_room(stage: str) -> None:
    for n, peak in PEAKS[stage].items():
        asked = stage_mb(stage, n_obs=n, n_vars=30_000, nnz=n * 2506, n_signatures=56, threads=2)
        assert 1.1 * peak < asked < 1.7 * peak, f"{n} cells"


def test_memory_follows_what_a_stage_holds() -> None:
    asked = functools.partial(stage_mb, n_obs=10**6, n_vars=20_000, nnz=10**6 * 700, threads=4)
    for stage in STAGES:
        assert asked(stage, n_obs=2 * 10**6, nnz=2 * 10**6 * 700) > asked(stage) > 200
        # what is the same for every stage cannot be what each of them holds
        assert (asked(stage, shards=8) < asked(stage)) == (stage in SHARDED)
        assert (asked(stage, threads=8) > asked(stage)) == (stage in SHARDED)
        assert (asked(stage, block_size=8192) > asked(stage)) == (stage in SHARDED)
    for stage in ("score", "call", "burden"):
        assert asked(stage, n_signatures=100) > asked(stage, n_signatures=10)
    assert asked("qc", nnz=None) > asked("qc")  # a dense matrix holds every gene of every cell
    assert asked("call") < 8_000  # a million cells on a laptop


def test_so_many_sets_are_scored_as_memory_is_asked_for() -> None:
    shipped = read_signatures()
    assert len(shipped.default()) == workflow._SIGNATURES
    assert len(shipped.with_role("comparator")) == workflow._COMPARATORS


def test_a_rule_asks_by_the_facts_the_config_and_its_threads(tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps({"n_obs": 10**6, "n_vars": 20_000, "nnz": {"value": 7 * 10**8}}))
    few = {"path": "b.h5ad", "score": {"signatures": ["t_senescence"]}, "shards": 4}
    plan = Plan({"datasets": {"a": "a.h5ad", "b": few}})

    def asked(name: str, attempt: int = 1) -> int:
        return plan.memory("score")(Wildcards(name), ["source.h5ad", str(facts)], 2, attempt)

    size = {"n_obs": 10**6, "n_vars": 20_000, "nnz": 7 * 10**8, "threads": 2}
    assert asked("a") == stage_mb("score", **size)
    assert asked("b") == stage_mb("score", **size, n_signatures=1, shards=4)
    assert asked("a", 2) == 2 * asked("a")


@pytest.mark.parametrize(
    ("shard", "kept"),
    [
        (None, {"qc.npz", "scores.npz"}),
        ((1, 2), {"qc-1of2.npz", "qc-2of2.npz", "scores.npz"}),
        ((2, 3), {"scores.npz"}),
    ],
)
def test_parts_of_another_split_are_not_read_again(
    shard: tuple[int, int] | None, kept: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `shards` changed together with a setting, the stage after it read the old parts."""
    from senoscore import pipeline

    monkeypatch.setattr(pipeline, "_STAGE_FUNCTIONS", {"qc": lambda run: None})
    stages = tmp_path / "stages"
    stages.mkdir()
    for name in ("qc.npz", "qc-1of2.npz", "qc-2of2.npz", "qc-1of12.npz", "scores.npz"):
        (stages / name).touch()
    pipeline.run_stage("qc", tmp_path, source="x.h5ad", shard=shard)
    assert {path.name for path in stages.iterdir()} == kept


def test_no_stray_path_matches_a_data_set() -> None:
    plan = Plan({"datasets": {"a.b": "x", "c": "y"}})
    pattern = re.compile(plan.datasets())
    assert pattern.fullmatch("a.b")
    assert not pattern.fullmatch("axb")
    assert not pattern.fullmatch("c/d")


# -------------------------------------------------------------------------------------------------
# a run, killed and continued


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file under a name that needs quotes."""
    path = tmp_path_factory.mktemp("data here") / "it's; a cohort.h5ad"
    sizes = ["--n-cells", "300", "--n-genes", "1200", "--n-donors", "2"]
    senoscore("simulate", str(path), *sizes, cwd=path.parent)
    return path


SETTINGS = {"score": {"n_null": 20}, "report": {"figures": False}}


@pytest.fixture(scope="module")
def killed_and_continued(cohort: Path) -> Path:
    """A run over the file in two shards, killed on the way and started again."""
    folder = cohort.parent
    datasets = {"cut": {"path": cohort.name, "shards": 2}}
    (folder / "c.yaml").write_text(json.dumps({"datasets": datasets, **SETTINGS}))
    command = [sys.executable, "-m", "senoscore", "run", "c.yaml", "--cores", "2"]
    with (folder / "killed.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        end = time.monotonic() + 120
        while not list(folder.glob("results/cut/stages/qc*.npz")):
            assert process.poll() is None, (folder / "killed.log").read_text()
            assert time.monotonic() < end, "no first artefact in two minutes"
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "results" / "cut" / "stages" / "cells.h5ad").exists()
    senoscore(*command[3:], cwd=folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_second_run_has_nothing_to_do(killed_and_continued: Path) -> None:
    done = senoscore("run", "c.yaml", "--cores", "2", cwd=killed_and_continued)
    assert "Nothing to be done" in done.stderr


@pytest.mark.parametrize(
    ("changed", "again", "not_again"),
    [
        ({"score": {"n_null": 20, "seed": 1}}, {"score", "call"}, {"inspect", "qc", "annotate"}),
        ({"call": {"fdr": 0.1}}, {"call", "burden", "report"}, {"annotate", "score"}),
        ({"report": {"title": "x", "figures": False}}, {"report"}, {"call", "burden"}),
        ({"qc": {"n_mads": 4}}, {"annotate", "score", "call"}, {"inspect", "qc"}),
        ({"score": {"n_null": 20, "seed": 0}}, set(), {"inspect", "qc", "score", "report"}),
    ],
    ids=["seed", "fdr", "title", "mads", "default"],
)
def test_a_changed_setting_reruns_what_reads_it_and_what_follows(
    changed: dict[str, object], again: set[str], not_again: set[str], killed_and_continued: Path
) -> None:
    folder = killed_and_continued
    config = {**json.loads((folder / "c.yaml").read_text()), **changed}
    (folder / "changed.yaml").write_text(json.dumps(config))
    rules = {job["rule"] for job in dry_run(Path("changed.yaml"), folder)}
    assert again <= rules
    assert not rules & not_again


def test_the_run_gives_the_same_bytes_as_analyse(killed_and_continued: Path) -> None:
    """In shards, killed and continued, by Snakemake: or whole, in one process."""
    folder = killed_and_continued
    (source,) = folder.glob("*.h5ad")
    (folder / "settings.yaml").write_text(json.dumps(SETTINGS))
    out = folder / "analysed" / "cut"
    senoscore("analyse", source.name, "--out", str(out), "--config", "settings.yaml", cwd=folder)
    whole, cut = digests(out), digests(folder / "results" / "cut")
    for stage in ("qc", "score"):
        whole.pop(shard_file(stage, None))
        for k in (1, 2):
            cut.pop(shard_file(stage, (k, 2)))
    assert cut == whole
    assert whole.keys() >= {"senoscore.h5ad", "report.html", "donors.tsv"}


def test_the_summary_names_the_data_set(killed_and_continued: Path) -> None:
    rows = (killed_and_continued / "results" / "summary.tsv").read_text("utf-8").splitlines()
    assert len(rows) > 3
    assert {row.split("\t")[0] for row in rows[1:]} == {"cut"}
    assert (killed_and_continued / "results" / "summary.html").is_file()


def test_every_job_closes_with_cells_time_and_memory(killed_and_continued: Path) -> None:
    log = (killed_and_continued / "logs" / "cut" / "call.log").read_text("utf-8")
    assert re.search(
        r"senoscore: cut: call, 300 cells, \d+ pass, (\d+ of )?\d+ signatures, [\d.]+ s, peak [\d,]+ MiB",
        log,
    )


def test_what_a_job_says_is_the_last_word_of_the_run(cohort: Path, tmp_path: Path) -> None:
    """One data set of which nothing passes, one that is no data set: a sentence for each."""
    (tmp_path / "page.h5ad").write_text("<!DOCTYPE html><html>not found</html>")
    config = {
        "datasets": {
            "strict": {"path": str(cohort), "qc": {"min_genes": 100_000}},
            "page": "page.h5ad",
        }
    }
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    done = senoscore("run", "c.yaml", "--cores", "2", cwd=tmp_path, check=False)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-2:]
    assert last[0].startswith("senoscore: error: page, inspect: ")
    assert last[1].startswith("senoscore: error: strict, annotate: none of 300 cells passes")
    assert "Traceback" not in done.stderr


def test_what_is_done_can_be_summed_up_where_a_data_set_failed(tmp_path: Path) -> None:
    config = load_config({"results": "r", "datasets": {name: f"{name}.h5ad" for name in "abc"}})
    assert launch._summary_of_some(config, tmp_path) == ""
    for name in "ca":
        (tmp_path / "r" / name).mkdir(parents=True)
        (tmp_path / "r" / name / "report.html").touch()
    told = launch._summary_of_some(config, tmp_path)
    assert told.startswith("2 of 3 data sets")
    assert told.endswith(f"senoscore summary {tmp_path / 'r'} a c")
    (tmp_path / "r" / "b").mkdir()
    (tmp_path / "r" / "b" / "report.html").touch()
    assert launch._summary_of_some(config, tmp_path) == ""


def test_a_download_is_part_of_the_run(cohort: Path, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(cohort.read_bytes()).hexdigest()
    config = {
        "datasets": {"far": {"url": cohort.as_uri(), "sha256": sha256}},
        "download_schemes": ["file"],
    }
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    senoscore("run", "c.yaml", "--until", "inspect", cwd=tmp_path)
    assert (tmp_path / "resources/datasets/far.h5ad").read_bytes() == cohort.read_bytes()
    assert (tmp_path / "results/far/stages/facts.json").is_file()


def test_two_runs_in_one_folder_are_refused(cohort: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "c.yaml").write_text(json.dumps({"datasets": {"a": str(cohort)}}))
    (tmp_path / ".snakemake").mkdir()
    with (tmp_path / ".snakemake" / "senoscore.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = senoscore("run", "c.yaml", "-n", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("senoscore: error: another senoscore run is working in")

"""The command line: exit codes, one sentence per mistake, nothing else on stdout."""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from anndata import read_h5ad

from senoscore import __version__, cli, console
from senoscore.cli import main
from senoscore.errors import InputDataError
from senoscore.explain import explain_cells
from senoscore.io.artefacts import read_npz, write_npz
from senoscore.pipeline import OUTPUTS, analyse, run_stage
from senoscore.simulate import simulate

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line configures the process; the other tests should not see it."""
    monkeypatch.chdir(tmp_path)
    logger, show = logging.getLogger("senoscore"), warnings.showwarning
    handlers, level = logger.handlers[:], logger.level
    monkeypatch.setattr(cli.console, "settle_process", lambda threads: None)
    yield
    logger.handlers[:], warnings.showwarning = handlers, show
    logger.setLevel(level)


def run(*argv: str) -> int:
    try:
        return main(argv)
    except SystemExit as end:
        return int(end.code or 0)


def commands() -> list[tuple[str, ...]]:
    """Every command, those under a command too."""

    def below(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        for group in groups:
            for name, child in group.choices.items():
                yield from below(child, (*path, name))
        if not groups:
            yield path

    return list(below(cli.build_parser(), ()))


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, "--help") == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert f"senoscore {' '.join(command)}" in out.split("examples:")[1]


def test_the_names_others_rely_on() -> None:
    names = {" ".join(command) for command in commands()}
    assert names >= {
        "run", "analyse", "inspect", "simulate", "demo", "signatures list", "signatures show",
        "signatures check", "config check", "stage",
    }  # fmt: skip


def test_commands_are_short() -> None:
    import ast

    tree = ast.parse(Path(cli.__file__).read_text("utf-8"))
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and node.name not in ("build_parser", "main")
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > 20
    ]
    assert long == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"senoscore {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["analize", "x"], "'analize' is no command; did you mean 'analyse'?; see "
         "'senoscore --help'"),
        ([], "the following arguments are required: COMMAND; see 'senoscore --help'"),
        (["run", "gone.yaml"], "config file 'gone.yaml' does not exist"),
        (["run"], "no config file: neither config/config.yaml nor config.yaml is in {here}; name "
         "one, or start from `senoscore config template`"),
        (["run", "a.yaml", "b.yaml"], "unrecognized arguments: b.yaml; see 'senoscore --help'"),
        (["run", "bad.yaml"], "bad.yaml, line 1: datasets.x.scroe: is not a key here; did you mean "
         "'score'?"),
        (["run", "missing.yaml"], "missing.yaml: datasets.x.path: no file at 'gone.h5ad'"),
        (["config", "check", "bad.yaml"], "bad.yaml, line 1: datasets.x.scroe: is not a key here; "
         "did you mean 'score'?"),
        (["config", "check", "missing.yaml", "--files"], "missing.yaml: datasets.x.path: no file "
         "at 'gone.h5ad'"),
        (["analyse", "gone.h5ad", "--out", "x"], "there is no file 'gone.h5ad'"),
        (["analyse", "bad.yaml", "--out", "x", "--set", "call.fd=1"], "--set: call.fd: is not a key "
         "here; did you mean 'fdr'?"),
        (["analyse", "x"], "the following arguments are required: --out; see 'senoscore analyse "
         "--help'"),
        (["analyse", "x", "--out", "y", "--threads", "0"], "argument --threads: '0' should be a "
         "whole number from 1; see 'senoscore analyse --help'"),
        (["inspect", "gone.h5ad"], "gone.h5ad: no such file"),
        (["stage", "qc", "x", "--source", "gone.h5ad"], "there is no file 'gone.h5ad'"),
        (["stage", "qd", "x", "--source", "bad.yaml"], "'qd' is no stage; there are "
         + ", ".join(OUTPUTS)),
        (["stage", "qc", "x", "--source", "y", "--shard", "3/2"], "argument --shard: '3/2' should "
         "be K/N with K from 1 to N, such as 2/3; see 'senoscore stage --help'"),
        (["stage", "qc", "x", "--source", "y", "--settings", "{"], "argument --settings: not JSON: "
         "Expecting property name enclosed in double quotes: line 1 column 2 (char 1); see "
         "'senoscore stage --help'"),
        (["simulate", "."], None),
        (["fetch", "http://127.0.0.1/x", "x"], "the address leads to 'http://127.0.0.1/x': 'http' "
         "is not allowed, only https"),
        (["signatures", "show", "t_senescense"], None),
        (["summary", "results", "x"], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_exit_code_2(
    argv: list[str], sentence: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text("datasets: {x: {path: y, scroe: 1}}\n")
    (tmp_path / "missing.yaml").write_text("datasets: {x: gone.h5ad}\n")
    assert run(*argv) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("senoscore: error: ")
    assert len(shown.err.splitlines()) == 1
    if sentence is not None:
        assert shown.err == f"senoscore: error: {sentence.format(here=tmp_path)}\n"


def test_traceback_on_request(tmp_path: Path) -> None:
    from senoscore.errors import ConfigError

    with pytest.raises(ConfigError):
        main(["config", "check", "gone.yaml", "--traceback"])


def test_an_error_of_ours_is_not_dressed_up_as_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    from senoscore import config

    def broken(*_: object, **__: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(config, "load", broken)
    with pytest.raises(KeyError):
        main(["config", "check", "x"])


def test_names_in_files_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", "\x1b[2Jgone\x07.h5ad") == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert "\x07" not in error
    assert "gone" in error


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning("two\n  lines", UserWarning, "x.py", 3)
    assert capsys.readouterr().err == "senoscore: warning: two lines\n"


def test_values_that_cannot_be_scored_are_said_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = simulate(200, 3000, n_donors=2)
    cohort.X = np.asarray(cohort.X.todense()) - cohort.X.mean()
    cohort.write_h5ad(tmp_path / "scaled.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run("analyse", "scaled.h5ad", "--out", "out", "--no-report") == 0
    said = capsys.readouterr().err
    told = [line for line in said.splitlines() if "no signature" in line]
    assert len(told) == 1
    assert "200 cells, " in said
    assert ", 0 of 56 signatures, " in said
    assert told[0].startswith("senoscore: warning: scaled.h5ad: X holds scaled values")
    assert "give a file with counts" in told[0]


def test_signatures_are_chosen_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(300, 3000, n_donors=2).write_h5ad(tmp_path / "cohort.h5ad")
    names = ["t_axis_exhaustion", "core_senescence"]
    chosen = ["analyse", "cohort.h5ad", "--out", "out", "--no-report", "--signatures"]
    for also in ([], ["--set", "call.fdr=0.1"]):
        assert run(*chosen, ", ".join(names), *also) == 0
        found = read_h5ad(tmp_path / "out" / "senoscore.h5ad")
        assert list(found.var_names) == names
        assert json.loads(found.uns["senoscore"]["settings"])["call"]["fdr"] == (
            0.1 if also else 0.05
        )
    capsys.readouterr()
    assert run(*chosen, "core_senescense") == 2
    assert "no signature 'core_senescense' (did you mean core_senescence" in capsys.readouterr().err
    # before anything that takes long
    chosen[chosen.index("out")] = "other"
    assert run(*chosen, "core_senescense") == 2
    assert not (tmp_path / "other" / "stages").exists()


def test_scores_of_another_version_are_not_called(tmp_path: Path) -> None:
    file = tmp_path / "cohort.h5ad"
    simulate(300, 3000, n_donors=2).write_h5ad(file)
    settings = {"score": {"signatures": ["core_senescence"]}}
    analyse(file, out=tmp_path, settings=settings)
    scores = tmp_path / "stages" / "scores.npz"
    arrays = read_npz(scores)
    del arrays["plan_resting"]
    write_npz(arrays, scores, compress=False)
    with pytest.raises(InputDataError, match="another version of senoscore: run stage score again"):
        run_stage("call", tmp_path, source=file, settings=settings)


def test_a_file_that_cannot_be_read_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.h5ad").write_bytes(b"this is no HDF5")
    assert run("analyse", "bad.h5ad", "--out", "out", "--no-report") == 2
    assert "bad.h5ad" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_the_name_of_all_signatures_of_the_verdict_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate(300, 3000, n_donors=2).write_h5ad(tmp_path / "cohort.h5ad")
    (tmp_path / "own.gmt").write_text("verdict\tmine\tCDKN2A\tCDKN1A\tIL6\tCXCL8\tMMP3\n")
    assert run(
        "analyse", "cohort.h5ad", "--out", "out", "--no-report",
        "--set", "score.signature_files=[own.gmt]",
    ) == 2  # fmt: skip
    assert "'verdict' stands for all signatures" in capsys.readouterr().err


def test_config_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "template") == 0
    template = capsys.readouterr().out
    (tmp_path / "my.yaml").write_text(template)
    assert run("config", "check", "my.yaml") == 0
    assert capsys.readouterr().out == "my.yaml: 1 data set, no mistakes\n"
    assert run("config", "schema") == 0
    assert capsys.readouterr().out == (ROOT / "config" / "config.schema.json").read_text("utf-8")


def test_signature_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("signatures", "list") == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["name", "role", "lineages", "species", "genes", "title"]
    assert any(row.startswith("t_senescence ") for row in rows)
    assert run("signatures", "show", "t_senescence") == 0
    shown = capsys.readouterr().out
    assert "lineages: T\n" in shown
    assert any(row.split()[:2] == ["CD27", "-"] for row in shown.splitlines() if row)
    assert run("signatures", "check") == 0
    assert "no mistakes" in capsys.readouterr().out
    (tmp_path / "mine.gmt").write_text("mine\tnote\tCDKN2A\tNOTAGENE\n")
    assert run("signatures", "check", "mine.gmt") == 2
    both = capsys.readouterr()
    assert "NOTAGENE" in both.out
    assert both.err.startswith("senoscore: error: mine.gmt: 1 mistake")


def test_simulate_and_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--n-cells", "60", "--n-genes", "1500", "--seed", "3"]
    assert run("simulate", "s.h5ad", *sizes) == 0
    assert capsys.readouterr().out == "s.h5ad\n"
    assert run("inspect", "s.h5ad") == 0
    assert "60 cells x" in capsys.readouterr().out
    assert run("inspect", "s.h5ad", "--json") == 0
    assert json.loads(capsys.readouterr().out)["n_obs"] == 60


@pytest.mark.parametrize("command", ["simulate", "demo", "explain"])
def test_help_tells_the_defaults_of_the_functions(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(command, "--help")
    told = dict(re.findall(r"--([a-z-]+) [A-Z]\s[^-]*?default: (\d+)", capsys.readouterr().out))
    functions = {"simulate": simulate, "demo": simulate, "explain": explain_cells}
    known = inspect.signature(functions[command]).parameters
    numbers = {name: int(n) for name, n in told.items() if name.replace("-", "_") in known}
    numbers.pop("threads", None)
    assert len(numbers) == {"simulate": 4, "demo": 1, "explain": 1}[command]
    for name, n in numbers.items():
        assert known[name.replace("-", "_")].default == n, name


def test_simulated_depth_is_the_median_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--n-cells", "600", "--n-genes", "3000"]
    for depth in (900, 9000):
        assert run("simulate", "s.h5ad", *sizes, "--depth", str(depth)) == 0
        totals = np.asarray(read_h5ad(tmp_path / "s.h5ad").X.sum(axis=1))
        assert float(np.median(totals)) == pytest.approx(depth, rel=0.15)
    assert run("simulate", "s.h5ad", *sizes, "--depth", "3") == 2
    assert "depth_median" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "own", "rest"),
    [
        (["run"], ["run"], []),
        (["run", "c.yaml", "-n"], ["run", "c.yaml"], ["-n"]),
        (["run", "-n", "--cores", "2"], ["run", "--cores", "2"], ["-n"]),
        (["run", "--cores=2", "c.yaml"], ["run", "--cores=2", "c.yaml"], []),
        (["run", "c.yaml", "--set-threads", "qc=2"], ["run", "c.yaml"], ["--set-threads", "qc=2"]),
        (
            ["run", "c.yaml", "-k", "-d", "x", "--until", "qc"],
            ["run", "c.yaml", "-d", "x"],
            ["-k", "--until", "qc"],
        ),
        (["run", "--profile"], ["run", "--profile"], []),
    ],
)
def test_what_run_keeps_and_what_goes_to_snakemake(
    argv: list[str], own: list[str], rest: list[str]
) -> None:
    assert cli._split_run(argv) == (own, rest)


def start(*argv: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "senoscore", *argv], text=True, stderr=subprocess.PIPE, **options
    )  # type: ignore[call-overload,no-any-return]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = start("signatures", "list", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()  # as `| head -0` does
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
    process.stderr.close()


def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.yaml"
    os.mkfifo(fifo)  # reading it waits
    process = start(
        "config", "check", str(fifo), stdout=subprocess.DEVNULL,
        # in a background job of a shell Ctrl-C is ignored, by children too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    handle = os.open(fifo, os.O_WRONLY)  # returns when the command has opened it
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    os.close(handle)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_reference_that_is_not_there_is_said_before_the_file_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "any.h5ad").write_text("not looked at")
    for how in (("--reference", "gone.npz"), ("--set", "score.reference=gone.npz")):
        assert run("analyse", "any.h5ad", "--out", "results", *how) == 2
        said = "senoscore: error: there is no reference at 'gone.npz'; make one: senoscore freeze\n"
        assert capsys.readouterr().err == said

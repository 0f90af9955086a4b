"""The command line: one short function per command, no science, no defaults of its own."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import itertools
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from senoscore import __version__, console
from senoscore.errors import SenoscoreError

Command = Callable[[argparse.Namespace], int]

_SHOWN: Final = (
    "title", "description", "lineages", "species", "role", "source", "licence", "warning",
)  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one sentence, with the near name for an unknown command."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def error(self, message: str) -> NoReturn:
        console.say("error", f"{message}; see '{self.prog} --help'")
        raise SystemExit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            near = difflib.get_close_matches(str(value), known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
            raise argparse.ArgumentError(None, f"'{value}' is no {action.dest}; {hint}")


# -------------------------------------------------------------------------------------------------
# commands


def _run(args: argparse.Namespace) -> int:
    from senoscore import config, launch

    folder = Path(args.directory)
    file = launch.find_config(args.config, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        checked = config.load(file, name=args.config)
        config.check_files(checked)
    return launch.run_workflow(
        checked, file, folder=folder, cores=args.cores, profile=args.profile, options=args.options
    )


def _settings(args: argparse.Namespace) -> dict[str, Any] | None:
    """What differs from the defaults; pydantic is not loaded where nothing needs it."""
    chosen = [*args.set, *([f"score.reference={args.reference}"] if args.reference else [])]
    if chosen or args.config:
        from senoscore import config

        chosen += [f"score.signatures=[{args.signatures}]"] if args.signatures else []
        return config.settings_for_file(args.file, args.config, chosen)
    if not args.signatures:
        return None
    return {"score": {"signatures": [name.strip() for name in args.signatures.split(",")]}}


def _require_reference(settings: dict[str, Any] | None) -> None:
    """Look for the reference now, and not after a pass over the file."""
    file = (settings or {}).get("score", {}).get("reference")
    if file and not Path(file).exists():
        raise SenoscoreError(f"there is no reference at {file!r}; make one: senoscore freeze")


def _analyse(args: argparse.Namespace) -> int:
    from senoscore.reader import started

    _exists(args.file)
    console.settle_process(args.threads)
    out = Path(args.out)
    with started(args.file, args.threads) as reader:  # it loads what it needs while we do
        settings = _settings(args)
        _require_reference(settings)
        from senoscore.pipeline import analyse

        with console.job(f"{out.name}: analysed", out):
            analyse(
                args.file, out=out, settings=settings, threads=args.threads,
                report=not args.no_report, progress=True, reader=reader,
            )  # fmt: skip
    print(out / ("senoscore.h5ad" if args.no_report else "report.html"))
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from senoscore.inspect import inspect_file

    facts = inspect_file(args.file)
    print(json.dumps(facts.to_dict(), indent=2, sort_keys=True) if args.json else facts.describe())
    return 0


def _simulate(args: argparse.Namespace) -> int:
    from senoscore.simulate import simulate_to

    given = _given(args, "n_cells", "n_genes", "n_donors", "depth_median", "seed", "threads")
    print(simulate_to(args.out, **given))
    return 0


def _demo(args: argparse.Namespace) -> int:
    from senoscore import config, launch
    from senoscore.simulate import simulate_to

    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    simulate_to(folder / "demo.h5ad", **_given(args, "n_cells", "threads"))
    file = folder / "config.yaml"
    file.write_text("datasets:\n  demo: demo.h5ad\n", "utf-8")
    checked = config.load(file)
    code = launch.run_workflow(checked, file.resolve(), folder=folder, cores=str(args.threads))
    if code == 0:
        print(folder / checked.results / "demo" / "report.html")
    return code


def _signatures_list(args: argparse.Namespace) -> int:
    from senoscore.signatures import read_signatures

    rows = [("name", "role", "lineages", "species", "genes", "title")]
    for name, s in read_signatures(args.file).items():
        genes = str(len(s.voting()))
        rows.append((name, s.role, " ".join(s.lineages), " ".join(s.species), genes, s.title))
    _table(rows)
    return 0


def _signatures_show(args: argparse.Namespace) -> int:
    from senoscore.signatures import read_signatures

    signature = read_signatures(args.file).select([args.name])[args.name]
    for key in _SHOWN:
        value = getattr(signature, key)
        if value:
            print(f"{key}: {value if isinstance(value, str) else ' '.join(value)}")
    print()
    rows = [("gene", "sign", "weight", "votes", "measurable", "evidence", "note")]
    for g in signature.genes:
        sign, votes = "0+-"[g.direction], "yes" if g.votes else "no"
        evidence = " ".join(g.evidence)
        rows.append((g.symbol, sign, f"{g.weight:g}", votes, g.measurable, evidence, g.note))
    _table(rows)
    return 0


def _signatures_check(args: argparse.Namespace) -> int:
    from senoscore.signatures import check_signatures, read_signatures

    problems = check_signatures(args.file)
    if problems:
        for problem in problems:
            print(console.printable(str(problem)))
        noun = "mistake" if len(problems) == 1 else "mistakes"
        raise SenoscoreError(f"{args.file or 'the shipped signatures'}: {len(problems)} {noun}")
    print(f"{len(read_signatures(args.file))} signatures, no mistakes")
    return 0


def _config_check(args: argparse.Namespace) -> int:
    from senoscore import config

    checked = config.load(args.file)
    if args.files:
        config.check_files(checked)
    n = len(checked.datasets)
    print(f"{args.file}: {n} data set{'s' * (n != 1)}, no mistakes")
    return 0


def _config_schema(args: argparse.Namespace) -> int:
    from senoscore import config

    print(config.schema_text(), end="")
    return 0


def _config_rules(args: argparse.Namespace) -> int:
    from senoscore import config
    from senoscore.calling import rule_text
    from senoscore.settings import Settings

    print(rule_text(Settings.from_mapping(config.settings_for_file("", args.file)).call))
    return 0


def _config_template(args: argparse.Namespace) -> int:
    from senoscore import launch

    print(launch.shipped("config/config.yaml").read_text("utf-8"), end="")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from senoscore.fetch import fetch

    fetch(args.url, args.out, sha256=args.sha256, schemes=args.schemes)
    return 0


def _stage(args: argparse.Namespace) -> int:
    from senoscore.pipeline import run_stage

    _exists(args.source)
    console.settle_process(args.threads)
    folder = Path(args.dir)
    part = "" if args.shard is None else f" {args.shard[0]}/{args.shard[1]}"
    with console.job(f"{folder.name}: {args.name}{part}", folder):
        run_stage(
            args.name, folder, source=args.source, settings=args.settings, threads=args.threads,
            shard=args.shard, progress=True,
        )  # fmt: skip
    return 0


def _explain(args: argparse.Namespace) -> int:
    from senoscore import tl
    from senoscore.io.artefacts import write_tsv

    found = tl.explain(
        args.dir,
        **_given(args, "cells", "state", "donor", "lineage", "signature", "source", "max_cells"),
    )
    print(console.printable(found.describe()))
    if args.tsv:
        write_tsv(found.to_frame(), args.tsv)
    if args.png:
        from senoscore.plots_explain import save

        save(found, args.png, args.signature)
    return 0


def _freeze(args: argparse.Namespace) -> int:
    from senoscore import tl

    made = tl.freeze(args.dir, args.out, **_given(args, "source"))
    held = ", ".join(f"{n:,} {name}" for name, n in made.about["n_cells"].items())
    print(f"{args.out}: {len(made.signatures)} signatures, cells: {held}; {made.sha256[:12]}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from senoscore.export import export

    export(args.dir, args.out, **_given(args, "source"))
    print(args.out)
    return 0


def _summary(args: argparse.Namespace) -> int:
    from senoscore.report import build_summary

    build_summary(args.results, args.dataset)
    return 0


# -------------------------------------------------------------------------------------------------
# arguments


def build_parser() -> argparse.ArgumentParser:
    """Every command with its options and examples."""
    parser = _Parser(
        prog=console.PROGRAM,
        description="Which immune cells are senescent, and which T cells are exhausted instead.",
        epilog="Each command has --help with examples. Start with `senoscore demo`.",
    )
    parser.add_argument("--version", action="version", version=f"senoscore {__version__}")
    add = _adder(parser)

    run = add("run", _run, "run the whole workflow over all data sets of a config", _RUN)
    run.add_argument("config", nargs="?", help="config file (default: config/config.yaml)")
    run.add_argument("--cores", metavar="N", help="cores for jobs on this machine (default: all)")
    run.add_argument("--profile", metavar="P", help="local, slurm, or a Snakemake profile of yours")
    run.add_argument(
        "--directory", "-d", default=".", metavar="DIR", help="where paths start and results go"
    )

    analyse = add("analyse", _analyse, "every stage for one file, without Snakemake", _ANALYSE)
    analyse.add_argument("file", help=".h5ad file, .h5mu file or .zarr folder")
    analyse.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    _threads(analyse)
    analyse.add_argument("--config", metavar="C", help="take the settings of this config file")
    analyse.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="one setting, as dotted path: call.fdr=0.1, dataset.cell_type=louvain",
    )  # fmt: skip
    analyse.add_argument(
        "--reference", metavar="FILE", help="score against a frozen run (see senoscore freeze)"
    )
    analyse.add_argument(
        "--signatures", metavar="NAMES",
        help="score these only, with commas between; 'verdict': those that calls are read from",
    )  # fmt: skip
    analyse.add_argument("--no-report", action="store_true", help="no report.html")

    inspect = add("inspect", _inspect, "what is in a file, and how that was found", _INSPECT)
    inspect.add_argument("file", help=".h5ad file, .h5mu file or .zarr folder")
    inspect.add_argument("--json", action="store_true", help="as JSON")

    simulate = add("simulate", _simulate, "write an immune cohort with planted states", _SIMULATE)
    simulate.add_argument("out", help=".h5ad file to write")
    simulate.add_argument("--n-cells", type=_positive, metavar="N", help="cells (default: 6000)")
    simulate.add_argument("--n-genes", type=_positive, metavar="G", help="genes (default: 20000)")
    simulate.add_argument("--n-donors", type=_positive, metavar="D", help="donors (default: 8)")
    simulate.add_argument(
        "--depth", dest="depth_median", type=_positive, metavar="C",
        help="median counts per cell (default: 4000; 10000 gives some 2,500 genes per cell)",
    )  # fmt: skip
    simulate.add_argument(
        "--seed", type=_whole, metavar="S", help="default: 0; same seed, same bytes"
    )
    _threads(simulate)

    demo = add("demo", _demo, "simulate a cohort, run the workflow, print the report's path", _DEMO)
    demo.add_argument("--out", default="demo", metavar="DIR", help="folder (default: demo)")
    demo.add_argument("--n-cells", type=_positive, metavar="N", help="cells (default: 6000)")
    _threads(demo, default=console.cores())

    add_set = _adder(add("signatures", None, "the signatures: list, show, check", ""))
    listed = add_set("list", _signatures_list, "all signatures", _SIGNATURES)
    shown = add_set("show", _signatures_show, "one signature, gene by gene", _SIGNATURES)
    shown.add_argument("name", help="name of the signature")
    for each in (listed, shown):
        each.add_argument("--file", metavar="FILE", help="yours instead of the shipped ones")
    checked = add_set("check", _signatures_check, "mistakes in a file of signatures", _SIGNATURES)
    checked.add_argument("file", nargs="?", help="TSV, GMT or folder (default: the shipped ones)")

    add_config = _adder(add("config", None, "the config file: check, rules, schema, template", ""))
    check = add_config("check", _config_check, "every mistake in a config file at once", _CONFIG)
    check.add_argument("file", help="config file")
    check.add_argument("--files", action="store_true", help="also look whether the data are there")
    rules = add_config(
        "rules", _config_rules, "print the rule of the calls with its thresholds", _CONFIG
    )
    rules.add_argument("file", nargs="?", help="config file (default: the defaults)")
    add_config("schema", _config_schema, "print the JSON schema, for editors", _CONFIG)
    add_config("template", _config_template, "print a commented config file", _CONFIG)

    fetch = add("fetch", _fetch, "download a file, resumed and checked", _FETCH)
    fetch.add_argument("url", help="where it is")
    fetch.add_argument("out", help="where it goes")
    fetch.add_argument("--sha256", metavar="HEX", help="what its checksum has to be")
    fetch.add_argument(
        "--schemes", nargs="+", default=["https"], metavar="S", help="kinds of address allowed"
    )

    stage = add("stage", _stage, "one stage of one data set (what the rules call)", _STAGE)
    stage.add_argument(
        "name", help="inspect, qc, doublets (scrublet), annotate, score, call, burden or report"
    )
    stage.add_argument("dir", help="folder of the data set's results")
    stage.add_argument("--source", required=True, metavar="FILE", help="the data set")
    stage.add_argument(
        "--settings", type=_json, default={}, metavar="JSON", help="what differs from the defaults"
    )
    stage.add_argument(
        "--shard", type=_shard, metavar="K/N", help="only the K-th of N runs of rows"
    )
    _threads(stage)

    explain = add("explain", _explain, "the genes behind a score, and behind a call", _EXPLAIN)
    explain.add_argument("dir", help="folder of the data set's results, with its stages")
    which = explain.add_mutually_exclusive_group(required=True)
    which.add_argument("--cell", dest="cells", action="append", metavar="NAME", help="one cell")
    which.add_argument("--state", metavar="S", help="all cells of a T-cell state")
    which.add_argument("--donor", metavar="D", help="a donor, subset by subset")
    explain.add_argument(
        "--lineage", metavar="L", help="--state is a senescence call of this lineage"
    )
    explain.add_argument("--signature", metavar="NAME", help="only this signature")
    explain.add_argument("--source", metavar="FILE", help="the data set, if it has moved")
    explain.add_argument(
        "--max-cells",
        type=_positive,
        metavar="N",
        help="cells of a group to look at (default: 200)",
    )
    explain.add_argument("--tsv", metavar="OUT", help="write the genes as a table")
    explain.add_argument("--png", metavar="OUT", help="draw the genes of one signature")

    freeze = add("freeze", _freeze, "keep a run as the reference of other data sets", _FREEZE)
    freeze.add_argument("dir", help="folder of the data set's results, with its stages")
    freeze.add_argument("out", help=".npz file to write")
    freeze.add_argument("--source", metavar="FILE", help="the data set, if it has moved")

    export = add(
        "export", _export, "the calls in a copy of the data set, as columns of obs", _EXPORT
    )
    export.add_argument("dir", help="folder of the data set's results")
    export.add_argument("out", help=".h5ad file to write")
    export.add_argument("--source", metavar="FILE", help="the data set, if it has moved")

    summary = add("summary", _summary, "all data sets side by side: summary.tsv, .html", _SUMMARY)
    summary.add_argument("results", help="folder that holds the folders of the data sets")
    summary.add_argument("dataset", nargs="+", help="names of the data sets")
    return parser


def _adder(parser: argparse.ArgumentParser) -> Callable[..., argparse.ArgumentParser]:
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(
        name: str, command: Command | None, what: str, examples: str
    ) -> argparse.ArgumentParser:
        epilog = "examples:\n" + textwrap.indent(examples, "  ") if examples else None
        made: argparse.ArgumentParser = commands.add_parser(
            name, help=what, description=f"{what[0].upper()}{what[1:]}.", epilog=epilog
        )
        made.add_argument("--traceback", action="store_true", help="show where an error arose")
        if command is not None:
            made.set_defaults(function=command)
        return made

    return add


_RUN: Final = """\
senoscore run config/config.yaml --cores 8
senoscore run my.yaml --profile slurm --default-resources slurm_account=lab
senoscore run my.yaml -n          what would be done (unknown options go to Snakemake)"""
_ANALYSE: Final = """\
senoscore analyse pbmc.h5ad --out results/pbmc --threads 4
senoscore analyse pbmc.h5ad --out results/pbmc --set dataset.cell_type=louvain --set call.fdr=0.1
senoscore analyse large.h5ad --out results/large --threads 8 --signatures verdict --no-report"""
_INSPECT: Final = """\
senoscore inspect pbmc.h5ad
senoscore inspect pbmc.h5ad --json | jq .counts"""
_SIMULATE: Final = """\
senoscore simulate cohort.h5ad --n-cells 20000 --seed 1
senoscore simulate deep.h5ad --n-cells 100000 --n-genes 30000 --depth 10000"""
_DEMO: Final = """\
senoscore demo
senoscore demo --out /tmp/demo --n-cells 2000"""
_SIGNATURES: Final = """\
senoscore signatures list
senoscore signatures show t_senescence
senoscore signatures check my_sets.gmt"""
_CONFIG: Final = """\
senoscore config template > my.yaml
senoscore config check my.yaml --files
senoscore config rules my.yaml
senoscore config schema > config.schema.json"""
_FETCH: Final = """\
senoscore fetch https://example.org/pbmc.h5ad pbmc.h5ad --sha256 0123abcd..."""
_STAGE: Final = """\
senoscore stage inspect results/pbmc --source pbmc.h5ad
senoscore stage qc results/pbmc --source pbmc.h5ad --threads 4 --shard 1/3
senoscore stage call results/pbmc --source pbmc.h5ad --settings '{"call":{"fdr":0.1}}'"""
_EXPLAIN: Final = """\
senoscore explain results/tumour --state exhausted
senoscore explain results/tumour --cell AAACCTGAGAAACCAT-1 --tsv cell.tsv --png cell.png
senoscore explain results/tumour --lineage mono_mac --state senescent"""
_FREEZE: Final = """\
senoscore freeze results/healthy healthy.npz
senoscore analyse tumour.h5ad --out results/tumour --reference healthy.npz"""
_EXPORT: Final = """\
senoscore export results/tumour tumour_called.h5ad"""
_SUMMARY: Final = """\
senoscore summary results pbmc tumour"""


def _threads(parser: argparse.ArgumentParser, default: int = 1) -> None:
    parser.add_argument(
        "--threads", type=_positive, default=default, metavar="N",
        help=f"threads, each keeps one core busy (default: {default}); no result depends on it",
    )  # fmt: skip


def _whole(text: str, least: int = 0) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"'{text}' should be a whole number from {least}")
    return number


def _positive(text: str) -> int:
    return _whole(text, least=1)


def _shard(text: str) -> tuple[int, int]:
    k, _, n = text.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise argparse.ArgumentTypeError(f"'{text}' should be K/N with K from 1 to N, such as 2/3")
    return int(k), int(n)


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('should look like \'{"call": {"fdr": 0.1}}\'')
    return value


# -------------------------------------------------------------------------------------------------
# helpers


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Options that were given; the library has the defaults of the others."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _exists(path: str) -> None:
    if not Path(path).exists():
        raise SenoscoreError(f"there is no file {path!r}")


def _table(rows: Sequence[Sequence[str]]) -> None:
    """Columns side by side, the last one as long as it is."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print(console.printable("  ".join([*cells, row[-1]]).rstrip()))


def _split_run(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """`run`'s own arguments, and all others for Snakemake; the config comes before those."""
    own, rest = list(argv[:1]), list[str]()
    words = iter(argv[1:])
    for word in words:
        name, equals, _ = word.partition("=")
        if name in ("--cores", "--profile", "--directory", "-d"):
            own += [word] if equals else [word, *itertools.islice(words, 1)]
        elif word in ("--help", "-h", "--traceback") or not (rest or word.startswith("-")):
            own.append(word)
        else:
            rest.append(word)
    return own, rest


def _sentence(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; ask for more, or split the file (config: shards)"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; mistakes of the user or the file are one sentence and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    console.configure()
    rest: list[str] = []
    if arguments[:1] == ["run"]:
        arguments, rest = _split_run(arguments)
    args = build_parser().parse_args(arguments)
    args.options = rest
    try:
        code: int = args.function(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        console.hush()
        return 0
    except (SenoscoreError, OSError, MemoryError) as error:
        if args.traceback:
            raise
        console.say("error", _sentence(error))
        return 2
    return code

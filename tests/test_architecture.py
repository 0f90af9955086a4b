"""Who may import whom, what start-up may load, and the shape of public functions."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from senoscore.errors import SenoscoreError

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "senoscore"

# a module may import from the layers above it, and from its own as long as no circle arises
LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(line.split())
    for line in (
        "errors keys",
        "settings console ages models reader",
        "io kernels genes signatures fetch",
        "_columns _scales lineages _clustering markers inspect qc null adjust calibration calling power",
        "inputs streaming scratch reference",
        "plain scoring annotate",
        "protein",
        "citeseq",
        "doublets donors smoothing explain certificate design compare targets freeze agreement",
        "_planted simulate",
        "plots plots_explain",
        "report summary export",
        "pipeline notebook",
        "pp tl pl get",
        "config",
        "launch",
        "cli",
        "__main__",
        "workflow",
    )
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# packages that know nothing but the errors
ALONE = {"io": {"errors"}, "kernels": {"errors"}, "genes": {"errors"}}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = path
    return found


def for_types(tree: ast.Module) -> set[ast.AST]:
    """What stands under `if TYPE_CHECKING`: it never runs."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }


def imports(name: str, path: Path, known: dict[str, Path], *, types: bool) -> Iterator[str]:
    """Our modules that a module imports, anywhere in it."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped = set() if types else for_types(tree)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom):
            start = name.split(".")[: -node.level or None] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            wanted = [base, *(f"{base}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        else:
            continue
        yield from (w for w in wanted if w in known and w not in (name, "senoscore"))


def part(module: str) -> str:
    return module.split(".")[1]


def edges(*, types: bool = True) -> list[tuple[str, str]]:
    known = modules()
    return [
        (name, other)
        for name, path in known.items()
        if name != "senoscore"
        for other in imports(name, path, known, types=types)
    ]


def wrong_way(pairs: list[tuple[str, str]]) -> list[str]:
    return [
        f"{name} imports {other}"
        for name, other in pairs
        if part(name) != part(other) and LEVEL[part(other)] > LEVEL[part(name)]
    ]


def test_every_module_has_its_place() -> None:
    names = {part(name) for name in modules() if name != "senoscore"}
    missing = sorted(names - LEVEL.keys())
    assert not missing, f"add {missing} to LAYERS, where data flow through them"


def test_imports_point_left() -> None:
    assert wrong_way(edges()) == []


def test_the_check_of_imports_sees_a_wrong_one() -> None:
    assert wrong_way([("senoscore.io.blocks", "senoscore.cli")]) != []


def test_no_circles() -> None:
    graph: dict[str, set[str]] = {}
    for name, other in edges(types=False):
        graph.setdefault(name, set()).add(other)
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(graph.get(name, ())):
                walk(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        walk(name, ())


def test_io_kernels_and_genes_do_not_know_each_other() -> None:
    strangers = [
        f"{name} imports {other}"
        for name, other in edges()
        if part(name) in ALONE and part(other) not in ALONE[part(name)] | {part(name)}
    ]
    assert strangers == []


def test_no_module_imports_scanpy_or_configures_the_process_when_it_loads() -> None:
    """scanpy takes seconds to import; warnings, seeds and logging are the user's."""
    calls = {"basicConfig", "filterwarnings", "simplefilter", "seed"}
    found = []
    for name, path in modules().items():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                wanted = [getattr(node, "module", None) or "", *(a.name for a in node.names)]
                found += [f"{name}: {w}" for w in wanted if w.split(".")[0] == "scanpy"]
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                called = getattr(node.value.func, "attr", "")
                found += [f"{name}: {called}()"] if called in calls else []
    assert found == []


HEAVY = ("scanpy", "numba", "anndata", "snakemake", "matplotlib", "statsmodels")


def loaded(*argv: str) -> set[str]:
    """Which heavy libraries a command loads."""
    code = (
        "import sys\nfrom senoscore.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["run", "--help"],
        ["config", "check", str(ROOT / "config" / "config.yaml")],
        ["signatures", "list"],
        ["analyse", "missing.h5ad", "--out", "x"],
        ["inspect", "FILE"],
    ],
    ids=lambda argv: " ".join(argv[:2]),
)
def test_quick_commands_load_nothing_heavy(argv: list[str], tmp_path: Path) -> None:
    if argv[-1] == "FILE":
        argv = [*argv[:-1], str(small_h5ad(tmp_path / "small.h5ad"))]
    assert loaded(*argv) == set()


def test_import_senoscore_is_light() -> None:
    code = "import sys, senoscore; print(*[m for m in sys.modules if m in ('numpy', 'pandas')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def small_h5ad(path: Path) -> Path:
    """A file of 20 cells, written in another process so that nothing is loaded here."""
    code = (
        "import sys, numpy as np, pandas as pd\nfrom anndata import AnnData\n"
        "counts = np.random.default_rng(0).poisson(1.0, (20, 30)).astype('float32')\n"
        "var = pd.DataFrame(index=[f'GENE{i}' for i in range(30)])\n"
        "obs = pd.DataFrame(index=[f'cell{i}' for i in range(20)])\n"
        "AnnData(counts, obs=obs, var=var).write_h5ad(sys.argv[1])\n"
    )
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=env, timeout=120)
    return path


# -------------------------------------------------------------------------------------------------
# public functions


def public() -> Iterator[tuple[str, object]]:
    import senoscore as sn

    for module in ("pp", "tl", "pl", "get"):
        for name in getattr(sn, module).__all__:
            made = getattr(getattr(sn, module), name)
            if inspect.isfunction(made):
                yield f"sn.{module}.{name}", made


@pytest.fixture(scope="module")
def functions() -> dict[str, inspect.Signature]:
    return {name: inspect.signature(made) for name, made in public()}  # type: ignore[arg-type]


def test_public_functions_start_with_adata_and_take_options_by_name(
    functions: dict[str, inspect.Signature],
) -> None:
    wrong = []
    for name, signature in functions.items():
        positional = [
            p.name
            for p in signature.parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        # pictures are made of tables
        starts = positional[:1] == ["adata"] or (positional and name.startswith("sn.pl."))
        if not starts or len(positional) > 3:
            wrong.append(f"{name}{signature}")
    assert functions
    assert wrong == []


def test_copy_is_by_name_false_and_seen_in_the_return_type(
    functions: dict[str, inspect.Signature],
) -> None:
    wrong = []
    for name, signature in functions.items():
        copy = signature.parameters.get("copy")
        if copy is not None and (
            copy.kind is not copy.KEYWORD_ONLY
            or copy.default is not False
            or signature.return_annotation != "AnnData | None"
        ):
            wrong.append(f"{name}{signature}")
    assert wrong == []


def test_public_functions_say_what_they_do() -> None:
    short = [name for name, made in public() if len((made.__doc__ or "").splitlines()) < 3]
    assert short == []


def test_errors_have_one_root() -> None:
    from senoscore import errors

    raised = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    strays = [e for e in raised if not issubclass(e, SenoscoreError | Warning)]
    assert len(raised) >= 4
    assert strays == []


def argsorting_kernels(path: Path) -> list[str]:
    return [
        f"{path.name}: {node.name}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Name) and d.id == "njit" for d in node.decorator_list)
        and any(isinstance(n, ast.Attribute) and n.attr == "argsort" for n in ast.walk(node))
    ]


def test_no_kernel_argsorts(tmp_path: Path) -> None:
    """See `kernels._numba`: two cached kernels, one that sorts and one that argsorts, may crash."""
    assert not [name for path in modules().values() for name in argsorting_kernels(path)]
    (tmp_path / "x.py").write_text("@njit\ndef f(a):\n    return a.argsort()\n", "utf-8")
    assert argsorting_kernels(tmp_path / "x.py") == ["x.py: f"]

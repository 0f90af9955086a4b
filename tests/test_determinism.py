"""The same bytes in every output, however the same values are stored, cut up and read.

One run is the baseline; each test changes one thing about how, never what. All tables are compared as
bytes, and `senoscore.h5ad` element by element: X, layers, obs, var, obsm and uns. What may differ is
the provenance that names the input: `MAY_DIFFER`, and nothing else.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from senoscore import _clustering, pipeline, reader, scoring, scratch
from senoscore.io.artefacts import write_h5ad
from senoscore.pipeline import OUTPUTS, SHARDED, STAGES, analyse, run_stage
from senoscore.scoring import SAMPLE_PER_LINEAGE
from senoscore.simulate import simulate_to

# uns["senoscore"]: the input's name and checksum
MAY_DIFFER = {"input", "input_sha256"}
# uns["senoscore"]["facts"]: how the matrix lies in the file (nothing counts the values of a dense
# one), its size on disk, and in whose words it was proven to hold counts: on a sample of places
FACTS_MAY_DIFFER = {"storage", "nnz", "file_bytes"}
PROOF_MAY_DIFFER = {"counts", "scale", "x_scale"}
SIGNATURE = "t_senescence"

pytestmark = pytest.mark.filterwarnings("ignore::senoscore.errors.SenoscoreWarning")

Hashes = dict[str, str]


def sha256(values: Any) -> str:
    """Of an array's type, shape and content; text as text, categories with their order."""
    if isinstance(values, pd.DataFrame):
        columns = [("index", values.index), *((name, values[name]) for name in values)]
        return sha256(repr([(name, sha256(column)) for name, column in columns]))
    if isinstance(getattr(values, "dtype", None), pd.CategoricalDtype):
        values = values.array if isinstance(values, pd.Series) else values
        return sha256(repr((list(values.categories), values.ordered)) + sha256(values.codes))
    if isinstance(values, (pd.Series, pd.Index)):
        values = values.to_numpy()
    if isinstance(values, np.ndarray) and values.dtype != object:
        content = f"{values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes()
    else:
        content = repr(list(values) if isinstance(values, np.ndarray) else values).encode()
    return hashlib.sha256(content).hexdigest()


def outputs(folder: Path, *, like: pd.Index | None = None) -> Hashes:
    """A hash of everything a run leaves; with `like`, cells are first put into that order."""
    found = {}
    for path in sorted(folder.glob("*.tsv")):
        found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    adata = ad.read_h5ad(folder / "senoscore.h5ad")
    if like is not None:
        adata = adata[like].copy()
    found["X"] = sha256(adata.X)
    found |= {f"layers/{name}": sha256(values) for name, values in adata.layers.items()}
    found |= {f"obs/{name}": sha256(adata.obs[name]) for name in adata.obs}
    found |= {f"obsm/{name}": sha256(values) for name, values in adata.obsm.items()}
    found |= {"obs_names": sha256(adata.obs_names), "var": sha256(adata.var)}
    provenance = adata.uns["senoscore"]
    for name in set(provenance) - MAY_DIFFER:
        value = provenance[name]
        if name == "facts":
            value = {k: v for k, v in json.loads(value).items() if k not in FACTS_MAY_DIFFER}
            for fact in PROOF_MAY_DIFFER:
                del value[fact]["how"]
        found[f"uns/{name}"] = sha256(value)
    return found


def differing(one: Hashes, other: Hashes) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def report(folder: Path) -> str:
    """The report without what names the input: its size, checksum, storage, and where it was proven."""
    page = (folder / "report.html").read_text("utf-8")
    provenance = ad.read_h5ad(folder / "senoscore.h5ad", backed="r").uns["senoscore"]
    facts = json.loads(provenance["facts"])
    page = re.sub(r"<tr><td>(Storage|Stored values)</td>.*?</tr>", "", page, flags=re.DOTALL)
    for text in (
        provenance["input_sha256"],
        f"{facts['file_bytes']['value']:,}",
        *(facts[fact]["how"] for fact in PROOF_MAY_DIFFER),
    ):
        page = page.replace(html.escape(str(text), quote=False), "...")
    return page


# -------------------------------------------------------------------------------------------------
# the data, and the baseline


@pytest.fixture(scope="module", autouse=True)
def few_cells_are_enough() -> Iterator[None]:
    """For the null, and for clusters: so few that choices are made, which could depend on something."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "NULL_CELLS", 60)
        patch.setattr(_clustering, "MAX_CHOOSING", 1500)
        patch.setattr(_clustering, "MAX_GRAPH", 1600)
        yield


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,400 cells x 3,000 genes of six donors, labelled: CSR, gzip.

    More than 1,000 are T cells, so that which of them are sampled could depend on something.
    """
    path = tmp_path_factory.mktemp("csr") / "cohort.h5ad"
    return simulate_to(path, 2400, 3000, seed=5, n_donors=6, depth_median=3000)


@pytest.fixture(scope="module")
def baseline(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Hashes]:
    folder = tmp_path_factory.mktemp("baseline")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analyse(cohort, out=folder)
    found = outputs(folder)
    scored = ad.read_h5ad(folder / "senoscore.h5ad")
    # the data set has to be one on which something can go wrong
    states = scored.obs["t_state"].value_counts()
    assert states.sum() > SAMPLE_PER_LINEAGE
    assert (states[["exhausted", "senescent", "cycling"]] > 5).all()
    assert set(OUTPUTS["call"] + OUTPUTS["burden"]) <= {p.name for p in folder.iterdir()}
    for name in ("calibration.tsv", "certificate.tsv", "comparisons.tsv", "targets.tsv"):
        assert len(pd.read_csv(folder / name, sep="\t")) > 0, name
    return folder, found


# -------------------------------------------------------------------------------------------------
# how it is read


@pytest.mark.parametrize(
    "how",
    [
        {"threads": 2},
        {"threads": 3},
        {"block_size": 257},
        {"block_size": 4096},
        {"block_size": 65536},
        {"threads": 3, "block_size": 257},
    ],
    ids=str,
)
def test_threads_and_blocks_change_no_byte(
    how: dict[str, int], cohort: Path, baseline: tuple[Path, Hashes], tmp_path: Path
) -> None:
    analyse(cohort, out=tmp_path, **how)
    assert differing(outputs(tmp_path), baseline[1]) == []
    same_file(tmp_path, baseline[0])


def test_a_second_process_changes_no_byte(
    cohort: Path, baseline: tuple[Path, Hashes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    handed = scratch.Kept._by_other

    def counted(self: scratch.Kept, *args: Any) -> Any:
        for load in handed(self, *args):
            read.append(load().rows.n_rows)
            yield load

    monkeypatch.setattr(reader, "MIN_BYTES", 0)
    monkeypatch.setattr(scratch.Kept, "_by_other", counted)
    analyse(cohort, out=tmp_path, threads=2, block_size=257)
    assert sum(read) == 2400
    assert differing(outputs(tmp_path), baseline[1]) == []
    same_file(tmp_path, baseline[0])


def same_file(one: Path, other: Path) -> None:
    """Of the same input the artefact is the same file, provenance included."""
    a, b = ((folder / "senoscore.h5ad").read_bytes() for folder in (one, other))
    assert a == b


def test_shards_change_no_byte(cohort: Path, baseline: tuple[Path, Hashes], tmp_path: Path) -> None:
    """Three shards, each with other threads and blocks, as jobs on different machines might have."""
    for stage in STAGES[:-1]:
        for k in (1, 2, 3) if stage in SHARDED else (None,):
            shard = None if k is None else (k, 3)
            run_stage(stage, tmp_path, source=cohort, shard=shard, threads=k or 1,
                      block_size=200 * (k or 1))  # fmt: skip
    assert differing(outputs(tmp_path), baseline[1]) == []
    same_file(tmp_path, baseline[0])


# -------------------------------------------------------------------------------------------------
# how it is stored


def stored(adata: ad.AnnData, how: str, folder: Path) -> Any:
    """The same values in another form, under the same name."""
    path = folder / "cohort.h5ad"
    if how == "memory":
        return adata
    if how == "dask":
        array = pytest.importorskip("dask.array")
        adata.X = array.from_array(adata.X.toarray(), chunks=(400, 1100))
        return adata
    if how == "zarr":
        pytest.importorskip("zarr")
        adata.write_zarr(folder / "cohort.zarr", chunks=(500, 500))
        return folder / "cohort.zarr"
    if how == "csc":
        adata.X = adata.X.tocsc()
    elif how == "dense":
        adata.X = adata.X.toarray()
    elif how == "float64, lzf":
        adata.X = adata.X.astype(np.float64)
    adata.write_h5ad(path, compression="lzf" if "lzf" in how else "gzip")
    return path


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("how", ["csc", "dense", "zarr", "dask", "memory", "float64, lzf"])
def test_storage_changes_no_byte(
    how: str, cohort: Path, baseline: tuple[Path, Hashes], tmp_path: Path
) -> None:
    source = stored(ad.read_h5ad(cohort), how, tmp_path)
    analyse(source, out=tmp_path / "out", threads=2)
    assert differing(outputs(tmp_path / "out"), baseline[1]) == []


# -------------------------------------------------------------------------------------------------
# the order it is in, and what else is scored


def test_order_of_cells_changes_no_byte(
    cohort: Path, baseline: tuple[Path, Hashes], tmp_path: Path
) -> None:
    adata = ad.read_h5ad(cohort)
    mixed = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()
    mixed.write_h5ad(tmp_path / "cohort.h5ad", compression="gzip")
    analyse(tmp_path / "cohort.h5ad", out=tmp_path / "out", threads=2)
    one = outputs(tmp_path / "out", like=adata.obs_names)
    assert differing(one, outputs(baseline[0], like=adata.obs_names)) == []


def test_cells_of_equal_strength_are_listed_by_name(baseline: tuple[Path, Hashes]) -> None:
    obs = ad.read_h5ad(baseline[0] / "senoscore.h5ad").obs
    obs["T_exhaustion"] = obs["T_exhaustion"].round()
    for rows in (obs, obs.iloc[::-1]):
        table = pipeline._t_table(rows, "exhausted")
        ordered = list(zip(-table["T_exhaustion"], table["cell"], strict=True))
        assert ordered == sorted(ordered)
    assert table["T_exhaustion"].duplicated().any()


def test_order_of_genes_changes_no_byte(
    cohort: Path, baseline: tuple[Path, Hashes], tmp_path: Path
) -> None:
    adata = ad.read_h5ad(cohort)
    mixed = adata[:, np.random.default_rng(2).permutation(adata.n_vars)].copy()
    mixed.write_h5ad(tmp_path / "cohort.h5ad", compression="gzip")
    analyse(tmp_path / "cohort.h5ad", out=tmp_path / "out", threads=2)
    assert differing(outputs(tmp_path / "out"), baseline[1]) == []


def test_a_signature_scores_the_same_alone(
    cohort: Path, baseline: tuple[Path, Hashes], tmp_path: Path
) -> None:
    alone = analyse(cohort, out=tmp_path, settings={"score": {"signatures": [SIGNATURE]}})
    company = ad.read_h5ad(baseline[0] / "senoscore.h5ad")[:, [SIGNATURE]]
    assert list(alone.var_names) == [SIGNATURE]
    assert sha256(alone.X) == sha256(np.asarray(company.X))
    for name in ("score", "pvalue", "padj"):
        assert np.isfinite(alone.layers[name]).any()
        assert sha256(alone.layers[name]) == sha256(np.asarray(company.layers[name])), name


def test_the_signatures_of_the_verdict_give_the_same_calls(
    cohort: Path, baseline: tuple[Path, Hashes], tmp_path: Path
) -> None:
    analyse(cohort, out=tmp_path, threads=2, settings={"score": {"signatures": ["verdict"]}})
    few, all_of_them = outputs(tmp_path), baseline[1]
    calls = [
        n for n in all_of_them if n.startswith(("obs", "donors", "lineages", "t_cells", "targets"))
    ]
    assert len(calls) > 40
    assert [name for name in calls if few[name] != all_of_them[name]] == []
    # the tables of all signatures have the rows of the few, as they are (those of comparisons.tsv are
    # adjusted for all that is compared)
    for table in ("coverage.tsv", "pooled.tsv"):
        one, other = (set((at / table).read_text().splitlines()) for at in (tmp_path, baseline[0]))
        assert one < other, table


# -------------------------------------------------------------------------------------------------
# without labels: lineages from clusters; and the report


@pytest.fixture(scope="module")
def unlabelled(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> ad.AnnData:
    adata = ad.read_h5ad(cohort)
    named = [c for c in adata.obs if c.startswith(("cell_type", "true_"))]
    adata.obs = adata.obs.drop(columns=named)
    return adata


@pytest.fixture(scope="module")
def without_labels(unlabelled: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unlabelled")
    unlabelled.write_h5ad(folder / "cohort.h5ad", compression="gzip")
    analyse(folder / "cohort.h5ad", out=folder / "out", report=True)
    found = ad.read_h5ad(folder / "out" / "senoscore.h5ad")
    assert set(found.obs["lineage_source"].dropna()) == {"markers"}
    assert found.obs["lineage"].nunique() > 4
    return folder / "out"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "how", ["threads and blocks", "csc", "dense", "no scratch", "cells", "genes"]
)
def test_without_labels_no_byte_changes(
    how: str, unlabelled: ad.AnnData, without_labels: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    adata, options, like = unlabelled, {"threads": 2}, None
    if how == "threads and blocks":
        options = {"threads": 3, "block_size": 257}
    elif how == "no scratch":
        monkeypatch.setattr("senoscore.scratch.has_room", lambda *_: False)
    elif how == "cells":
        adata = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()
        like = unlabelled.obs_names
    elif how == "genes":
        adata = adata[:, np.random.default_rng(2).permutation(adata.n_vars)].copy()
    source = stored(adata.copy(), how, tmp_path)
    out = tmp_path / "out"
    analyse(source, out=out, report=True, **options)
    assert differing(outputs(out, like=like), outputs(without_labels, like=like)) == []
    assert report(out) == report(without_labels)
    if how in ("threads and blocks", "no scratch"):
        same_file(out, without_labels)
        assert (out / "report.html").read_bytes() == (without_labels / "report.html").read_bytes()


# -------------------------------------------------------------------------------------------------
# the test of the test


def test_one_changed_bit_is_seen(baseline: tuple[Path, Hashes], tmp_path: Path) -> None:
    folder, found = baseline
    adata = ad.read_h5ad(folder / "senoscore.h5ad")
    adata.X[3, 4] = np.nextafter(adata.X[3, 4], np.float32(np.inf))
    adata.obs["t_state"] = adata.obs["t_state"].cat.reorder_categories(
        adata.obs["t_state"].cat.categories[::-1]
    )
    write_h5ad(adata, tmp_path / "senoscore.h5ad")
    for path in folder.glob("*.tsv"):
        more = b" " if path.name == "donors.tsv" else b""
        (tmp_path / path.name).write_bytes(path.read_bytes() + more)
    assert differing(outputs(tmp_path), found) == ["X", "donors.tsv", "obs/t_state"]

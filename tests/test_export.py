"""`senoscore export`: the data set as it was, with the calls in its obs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

import senoscore as sn
from senoscore.cli import main
from senoscore.errors import InputDataError
from senoscore.export import export
from senoscore.simulate import simulate

pytestmark = pytest.mark.filterwarnings("ignore::senoscore.errors.SenoscoreWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with columns of names that are ours, scored."""
    folder = tmp_path_factory.mktemp("export")
    cohort = simulate(n_cells=300, n_genes=3000, seed=4)
    cohort.obs["lineage"] = pd.Categorical(np.where(np.arange(300) % 2, "mine", None))
    cohort.obs["original_lineage"] = np.arange(300.0)
    cohort.write_h5ad(folder / "cohort.h5ad", compression="gzip")
    sn.analyse(folder / "cohort.h5ad", out=folder / "results", report=False)
    return folder


def stored(path: Path) -> dict[str, Any]:
    """The stored bytes of every data set outside obs, chunk by chunk."""
    found: dict[str, Any] = {}

    def look(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and not name.startswith("obs/"):
            if node.chunks is None:
                found[name] = node[()].tobytes() if node.dtype != object else node[()]
            else:
                chunks = range(node.id.get_num_chunks())
                at = [node.id.get_chunk_info(k).chunk_offset for k in chunks]
                found[name] = [node.id.read_direct_chunk(offset) for offset in at]

    with h5py.File(path) as file:
        file.visititems(look)
    return found


def test_the_copy_is_the_file_with_the_calls(run: Path) -> None:
    before = (run / "cohort.h5ad").read_bytes()
    assert main(["export", str(run / "results"), str(run / "out.h5ad")]) == 0
    assert (run / "cohort.h5ad").read_bytes() == before
    old, new = stored(run / "cohort.h5ad"), stored(run / "out.h5ad")
    assert old.keys() == new.keys()
    assert "X/data" in old
    for name, value in old.items():
        assert (
            np.array_equal(value, new[name])
            if isinstance(value, np.ndarray)
            else (value == new[name])
        ), name
    made, scored = ad.read_h5ad(run / "out.h5ad"), ad.read_h5ad(run / "results/senoscore.h5ad")
    pd.testing.assert_frame_equal(made.obs, scored.obs)
    original = ad.read_h5ad(run / "cohort.h5ad").obs
    pd.testing.assert_series_equal(
        made.obs["original_original_lineage"], original["lineage"], check_names=False
    )
    pd.testing.assert_series_equal(made.obs["original_lineage"], original["original_lineage"])
    assert list(made.obs["t_state"].cat.categories) == list(sn.keys.T_STATES)


def test_a_file_of_old_makes_gets_its_columns(run: Path, tmp_path: Path) -> None:
    with h5py.File(run / "cohort.h5ad") as file, h5py.File(tmp_path / "old.h5ad", "w") as old:
        for key in file:
            if key != "obs":
                file.copy(key, old)
        names = np.asarray(file["obs/_index"][()], dtype="S40")
        old["obs"] = np.rec.fromarrays([names, np.arange(300)], names="index,number")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s = sn.analyse(
            tmp_path / "old.h5ad", out=tmp_path / "results", report=False,
        )  # fmt: skip
        export(tmp_path / "results", tmp_path / "out.h5ad")
        made = ad.read_h5ad(tmp_path / "out.h5ad")
    assert list(made.obs["number"]) == list(range(300))
    assert made.obs["t_state"].astype(str).tolist() == s.obs["t_state"].astype(str).tolist()


def test_what_cannot_be_exported_is_said(run: Path, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(InputDataError, match="is not there: name the results folder"):
        export(tmp_path, tmp_path / "out.h5ad")
    with pytest.raises(InputDataError, match="is the data set itself"):
        export(run / "results", run / "cohort.h5ad")
    with pytest.raises(InputDataError, match="say where it is"):
        export(run / "results", tmp_path / "out.h5ad", source=tmp_path / "gone.h5ad")
    other = ad.read_h5ad(run / "cohort.h5ad")
    other.obs["more"] = 1
    other.obs = other.obs[["more", *other.obs.columns[:-1]]]
    other.write_h5ad(tmp_path / "other.h5ad")
    other[::-1].copy().write_h5ad(tmp_path / "turned.h5ad")
    for name in ("other", "turned"):
        with pytest.raises(InputDataError, match="other cells or columns"):
            export(run / "results", tmp_path / "out.h5ad", source=tmp_path / f"{name}.h5ad")
    (tmp_path / "other.zarr").mkdir()
    with pytest.raises(InputDataError, match="only h5ad files are exported"):
        export(run / "results", tmp_path / "out.h5ad", source=tmp_path / "other.zarr")
    assert not (tmp_path / "out.h5ad").exists()
    assert main(["export", str(tmp_path), "out.h5ad"]) == 2
    assert capsys.readouterr().err.count("\n") == 1

"""Smoothing over neighbours: against a loop, within lineages only, and no call depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from senoscore import keys, smoothing
from senoscore.errors import InputDataError


def case(seed: int = 0, n: int = 60) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3))
    z[rng.random(z.shape) < 0.1] = np.nan
    graph = sparse.random(n, n, 0.1, format="csr", rng=rng)
    return z, graph, rng.integers(-1, 3, n)


def slow(z: np.ndarray, graph: sparse.spmatrix, codes: np.ndarray) -> np.ndarray:
    dense = graph.toarray()
    out = np.full(z.shape, np.nan)
    for i in range(len(z)):
        near = [i] + [
            j for j in range(len(z)) if j != i and dense[i, j] != 0 and codes[j] == codes[i]
        ]
        for s in range(z.shape[1]):
            if np.isfinite(z[i, s]):
                out[i, s] = np.nanmean(z[near, s])
    return out


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_mean_over_a_cell_and_its_neighbours_of_the_same_lineage(seed: int) -> None:
    z, graph, codes = case(seed)
    np.testing.assert_allclose(smoothing.smooth(z, graph, codes), slow(z, graph, codes), atol=1e-6)


def test_the_order_of_cells_changes_no_bit() -> None:
    z, graph, codes = case()
    order = np.random.default_rng(1).permutation(len(z))
    moved = smoothing.smooth(z[order], graph[order][:, order], codes[order])
    np.testing.assert_array_equal(moved, smoothing.smooth(z, graph, codes)[order])


def test_neighbours_in_an_embedding_are_the_nearest_of_the_lineage() -> None:
    rng = np.random.default_rng(0)
    embedding, codes = rng.normal(size=(80, 4)), rng.integers(-1, 2, 80)
    embedding[3] = np.nan
    graph = smoothing.nearest(embedding, codes, 5).toarray()
    for i in np.flatnonzero(codes >= 0):
        if i == 3:
            assert not graph[i].any()
            continue
        others = [j for j in np.flatnonzero(codes == codes[i]) if j not in (i, 3)]
        near = sorted(others, key=lambda j: float(((embedding[i] - embedding[j]) ** 2).sum()))
        assert set(np.flatnonzero(graph[i])) - {i} == set(near[:5])
    assert not graph[codes < 0].any()


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    adata = ad.AnnData(np.ones((4, 2)), obsm={"X_pca": np.ones((4, 2))})
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path)
    codes = np.zeros(4, np.int64)
    for source in (adata, path):
        assert smoothing.read_neighbours(source, "obsm/X_pca", codes, 2).shape == (4, 4)
        with pytest.raises(InputDataError, match="X_pca"):
            smoothing.read_neighbours(source, "obsm/X_umap", codes, 2)
        with pytest.raises(InputDataError, match="has nothing"):
            smoothing.read_neighbours(source, "obsp/connectivities", codes, 2)
        with pytest.raises(InputDataError, match="name an embedding"):
            smoothing.read_neighbours(source, "X_pca", codes, 2)


@pytest.mark.filterwarnings("ignore")
def test_a_run_reports_it_apart_and_calls_nothing_from_it() -> None:
    import senoscore as sn
    from senoscore.simulate import simulate

    adata = simulate(n_cells=600, n_genes=3000, seed=1)
    rng = np.random.default_rng(0)
    adata.obsm["X_mine"] = rng.normal(size=(adata.n_obs, 3))
    plain = sn.analyse(adata)
    smoothed = sn.analyse(
        adata, settings={"call": {"smooth": "obsm/X_mine", "smooth_neighbors": 5}}
    )
    assert keys.OBSM_Z_SMOOTHED not in plain.obsm
    table = smoothed.obsm[keys.OBSM_Z_SMOOTHED]
    assert "t_axis_exhaustion" in table
    t = (smoothed.obs["lineage"] == "T").to_numpy()
    assert table["t_axis_exhaustion"][t].std() < smoothed.to_df()["t_axis_exhaustion"][t].std()
    for column in ("t_state", "t_state_rule", "senescence_call"):
        assert smoothed.obs[column].equals(plain.obs[column])
    np.testing.assert_array_equal(smoothed.layers["pvalue"], plain.layers["pvalue"])

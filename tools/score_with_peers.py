#!/usr/bin/env python
"""Score the cells of an h5ad file with SenePy or DeepScence, for ``make_validation.py``.

    python score_with_peers.py {senepy,deepscence} in.h5ad out.tsv

Runs in the environment of that package, without senoscore. ``X`` holds counts (or TPM), ``obs`` a
column ``is_t``. Writes one row per cell: for each method of the package its score, and its call where
the authors give a rule; notes are lines that begin with ``#``.
"""

from __future__ import annotations

import sys
import types
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc

Found = tuple[pd.DataFrame, list[str]]


def senepy(data: ad.AnnData) -> Found:
    """The universal signature, and that of blood T cells within the T cells.

    A cell is called above the mean plus three standard deviations, the rule its users apply to its scores; the package itself has none.
    """
    import senepy as sp

    hubs = sp.load_hubs(species="Human", sig_type="hubs")
    hubs.merge_hubs(hubs.metadata, new_name="universal", calculate_thresh=True, p_thres=0.01)
    by_type = sp.load_hubs(species="Human", sig_type="cell_type")
    # in bulk every gene is detected everywhere: whether it is detected says nothing
    bulk = bool(data.n_obs < 100)
    if bulk:
        sc.pp.normalize_total(data)
        sc.pp.log1p(data)
    everywhere, t = np.ones(data.n_obs, bool), data.obs["is_t"].to_numpy(bool)
    out, notes = pd.DataFrame(index=data.obs_names), []
    sets = [("SenePy universal", hubs.hubs["universal"], everywhere)]
    if t.any():
        sets.append(("SenePy blood T cell", by_type.hubs[("blood", "t cell")], t))
    for name, hub, cells in sets:
        measured = sum(gene in data.var_names for gene, _ in hub)
        notes.append(f"{name}: {measured} of {len(hub)} genes measured")
        score = np.full(data.n_obs, np.nan)
        found = sp.score_hub(data[cells].copy(), hub, binarize=not bulk, verbose=False)
        score[cells] = np.asarray(found, float)
        called = np.full(data.n_obs, np.nan)
        called[cells] = score[cells] >= np.nanmean(score) + 3 * np.nanstd(score, ddof=1)
        out[f"{name}|score"], out[f"{name}|called"] = score, called
    return out, notes


def deepscence(data: ad.AnnData) -> Found:
    """Score and call of DeepScence, without its denoising.

    It imports DCA, which asks for tensorflow < 2.5 and has no build for this Python; an empty module
    takes its place, and ``denoise=False`` leaves the step out.
    """
    import scipy as sp
    import scipy.sparse  # DeepScence takes sp.sparse for granted

    stub = types.ModuleType("dca.api")
    stub.dca = None  # type: ignore[attr-defined]
    sys.modules["dca"], sys.modules["dca.api"] = types.ModuleType("dca"), stub
    from DeepScence.api import DeepScence

    assert sp.sparse is scipy.sparse
    notes = ["DeepScence: without DCA's denoising (denoise=False)"]
    names = data.obs_names
    try:
        got = DeepScence(data.copy(), denoise=False, binarize=True)
    except Exception as error:  # noqa: BLE001 its rule may fail where the score does not
        notes.append(f"DeepScence: no calls, its rule failed ({type(error).__name__}: {error})")
        got = DeepScence(data.copy(), denoise=False, binarize=False)
    out = pd.DataFrame(index=names)
    out["DeepScence|score"] = got.obs["ds"].reindex(names)
    if "binary" in got.obs:
        out["DeepScence|called"] = got.obs["binary"].reindex(names).astype(float)
    return out, notes


def main() -> None:
    warnings.simplefilter("ignore")
    peer, source, target = sys.argv[1:]
    found, notes = {"senepy": senepy, "deepscence": deepscence}[peer](ad.read_h5ad(source))
    with open(target, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.writelines(f"# {' '.join(note.split())}\n" for note in notes)
        found.to_csv(file, sep="\t")


if __name__ == "__main__":
    main()

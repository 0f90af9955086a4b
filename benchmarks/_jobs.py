"""What is measured, one job per process: ``python _jobs.py NAME FILE FOLDER``.

A job prepares its input, then times the one call that is compared, and prints what it found as one
line of JSON. The process around it is watched by `run.py`.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

N_SETS = 20
N_NULL = 200
# rows that a peer can do in a minute or two and some gigabytes; the rest is scaled, and said so
CELLS = {"rank": 20_000, "ulm": 5_000, "matched": 5_000}


class Missing(Exception):
    """A peer that is not installed."""


def timed(function: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    value = function()
    return {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}, value


def installed(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise Missing(f"{name} is not installed") from None


# ---------------------------------------------------------------------------------------------
# inputs


def some_cells(path: Path, n: int) -> Any:
    """The first n cells in memory, without the genes that none of them has."""
    import anndata
    import numpy as np

    backed = anndata.read_h5ad(path, backed="r")
    adata = backed[: min(n, backed.n_obs)].to_memory()
    backed.file.close()
    return adata[:, np.asarray(adata.X.getnnz(axis=0)) > 0].copy()


def signatures(names: Any) -> dict[str, list[str]]:
    """The first 20 shipped signatures of which five genes are there, in UCell's notation."""
    from senoscore.signatures import read_signatures

    there = set(names)
    found = {
        name: [g.symbol + "-" * (g.direction < 0) for g in s.voting() if g.symbol in there]
        for name, s in read_signatures().default().items()
    }
    return dict([(k, v) for k, v in found.items() if len(v) >= 5][:N_SETS])


def set_index(adata: Any) -> Any:
    from senoscore.kernels.sets import make_set_index

    place = {gene: i for i, gene in enumerate(adata.var_names)}
    sets = [
        ([place[g.rstrip("-")] for g in genes], [-1 if g[-1] == "-" else 1 for g in genes])
        for genes in signatures(adata.var_names).values()
    ]
    return make_set_index(sets)


def up_only(adata: Any) -> dict[str, list[str]]:
    """AUCell, ULM and scDRS know no down genes."""
    ups = {k: [g for g in v if g[-1] != "-"] for k, v in signatures(adata.var_names).items()}
    return {k: v for k, v in ups.items() if v}


def up_index(adata: Any) -> Any:
    from senoscore.kernels.sets import make_set_index

    place = {gene: i for i, gene in enumerate(adata.var_names)}
    return make_set_index([([place[g] for g in genes], 1) for genes in up_only(adata).values()])


def normalised(adata: Any) -> Any:
    import scanpy

    scanpy.pp.normalize_total(adata, target_sum=1e4)
    scanpy.pp.log1p(adata)
    return adata


def keep(folder: Path, name: str, values: Any) -> None:
    import numpy as np

    np.save(folder / f"{name}.npy", np.asarray(values, np.float64))


# ---------------------------------------------------------------------------------------------
# reading


def read_h5ad(path: Path, folder: Path) -> dict[str, Any]:
    import anndata

    spent, adata = timed(lambda: anndata.read_h5ad(path))
    return {**spent, "cells": adata.n_obs, "genes": adata.n_vars, "values": int(adata.X.nnz)}


def inflate(path: Path, folder: Path, threads: int) -> dict[str, Any]:
    """The limit: every chunk of the matrix inflated, and nothing else done."""
    import h5py
    from isal import isal_zlib

    places = []
    with h5py.File(path) as file:
        for name in ("data", "indices", "indptr"):
            vector = file["X"][name]
            each = (vector.id.get_chunk_info(i) for i in range(vector.id.get_num_chunks()))
            size = vector.chunks[0] * vector.dtype.itemsize
            places += [(chunk.byte_offset, chunk.size, size) for chunk in each]
    handle = os.open(path, os.O_RDONLY)

    def one(place: tuple[int, int, int]) -> int:
        offset, stored, size = place
        return len(isal_zlib.decompress(os.pread(handle, stored, offset), bufsize=size))

    def all_of_them() -> int:
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(one, places, chunksize=16))

    spent, total = timed(all_of_them)
    os.close(handle)
    return {**spent, "bytes": total}


def blocks(path: Path, folder: Path, threads: int) -> dict[str, Any]:
    from senoscore.io.blocks import open_blocks

    def read() -> int:
        with open_blocks(path) as source:
            return sum(len(block.data) for block in source.iter_blocks(threads=threads))

    read()  # whatever is compiled
    spent, values = timed(read)
    return {**spent, "values": values}


# ---------------------------------------------------------------------------------------------
# scores


def scanpy_all(path: Path, folder: Path) -> dict[str, Any]:
    """What a notebook does: quality metrics, normalise, log, one score_genes per signature."""
    import anndata
    import scanpy

    adata = anndata.read_h5ad(path)
    sets = up_only(adata)

    def work() -> None:
        adata.var["mt"] = adata.var_names.str.startswith("MT-")
        scanpy.pp.calculate_qc_metrics(adata, qc_vars=["mt"], inplace=True)
        normalised(adata)
        for name, genes in sets.items():
            scanpy.tl.score_genes(adata, genes, score_name=name)

    return {**timed(work)[0], "cells": adata.n_obs}


def pyucell(path: Path, folder: Path, n_jobs: int) -> dict[str, Any]:
    package = installed("pyucell")
    adata = some_cells(path, CELLS["rank"])
    sets = signatures(adata.var_names)
    package.compute_ucell_scores(adata[:500].copy(), sets, n_jobs=n_jobs)  # its workers, warm
    spent, _ = timed(lambda: package.compute_ucell_scores(adata, sets, n_jobs=n_jobs))
    keep(folder, "pyucell", adata.obs[[f"{name}_UCell" for name in sets]])
    return {**spent, "cells": adata.n_obs}


def ucell(path: Path, folder: Path, threads: int) -> dict[str, Any]:
    from senoscore.kernels import ranks

    adata = some_cells(path, CELLS["rank"])
    x, index = adata.X, set_index(adata)
    run = functools.partial(ranks.ucell, x.indptr, x.indices, x.data, x.shape[1], index)
    keep(folder, "ucell", run())
    return {**median_of(lambda: run(threads=threads)), "cells": adata.n_obs}


def aucell(path: Path, folder: Path, threads: int) -> dict[str, Any]:
    import numpy as np

    from senoscore.kernels import ranks

    adata = some_cells(path, CELLS["rank"])
    x, index = adata.X, up_index(adata)
    run = functools.partial(ranks.aucell, x.indptr, x.indices, x.data, x.shape[1], index)
    # decoupler draws one order of tied genes; in that order the scores are the same
    n = x.shape[1]
    order = np.random.default_rng(0).choice(np.arange(n), n, replace=False)
    keep(folder, "aucell", run(tie_order=order))
    return {**median_of(lambda: run(threads=threads)), "cells": adata.n_obs}


def median_of(function: Callable[[], Any], n: int = 7) -> dict[str, float]:
    """For calls of a fraction of a second: the median of several in the process, after one more."""
    function()
    spent = [timed(function)[0] for _ in range(n)]
    return {key: sorted(each[key] for each in spent)[n // 2] for key in ("seconds", "cpu")}


def decoupler(path: Path, folder: Path, method: str) -> dict[str, Any]:
    import pandas as pd

    package = installed("decoupler")
    adata = some_cells(path, CELLS["ulm" if method == "ulm" else "rank"])
    sets = up_only(adata)
    net = pd.DataFrame(
        [(name, gene) for name, genes in sets.items() for gene in genes],
        columns=["source", "target"],
    )
    if method == "ulm":
        normalised(adata)
    run = functools.partial(getattr(package.mt, method), net=net, tmin=1)
    run(adata[:200].copy())  # compiled code
    spent, _ = timed(lambda: run(adata, empty=False))
    keep(folder, f"decoupler_{method}", adata.obsm[f"score_{method}"][list(sets)])
    return {**spent, "cells": adata.n_obs}


def scdrs(path: Path, folder: Path) -> dict[str, Any]:
    package = installed("scdrs")
    adata = normalised(some_cells(path, CELLS["matched"]))
    sets = up_only(adata)

    def work() -> None:
        package.preprocess(adata)
        for genes in sets.values():
            package.score_cell(adata, genes, n_ctrl=N_NULL, ctrl_match_key="mean_var")

    return {**timed(work)[0], "cells": adata.n_obs}


def matched(path: Path, folder: Path, threads: int) -> dict[str, Any]:
    """All cells as one group, as scDRS has them: controls, null sets, z and p."""
    import senoscore as sn

    adata = some_cells(path, CELLS["matched"])
    sets = up_only(adata)
    run = functools.partial(sn.tl.score, adata, sets, groupby=None, n_null=N_NULL, min_coverage=0)
    return {**median_of(lambda: run(threads=threads), 3), "cells": adata.n_obs}


def differ(path: Path, folder: Path) -> dict[str, Any]:
    """The largest difference from each original that ran."""
    import numpy as np

    pairs = {"ucell": "pyucell", "aucell": "decoupler_aucell"}
    return {
        ours: float(np.abs(np.load(folder / f"{ours}.npy") - np.load(there)).max())
        for ours, theirs in pairs.items()
        if (there := folder / f"{theirs}.npy").exists() and (folder / f"{ours}.npy").exists()
    }


JOBS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "read_h5ad": read_h5ad,
    "inflate 1": functools.partial(inflate, threads=1),
    "inflate 2": functools.partial(inflate, threads=2),
    "blocks 1": functools.partial(blocks, threads=1),
    "blocks 2": functools.partial(blocks, threads=2),
    "ucell 1": functools.partial(ucell, threads=1),
    "ucell 2": functools.partial(ucell, threads=2),
    "aucell 1": functools.partial(aucell, threads=1),
    "aucell 2": functools.partial(aucell, threads=2),
    "matched 1": functools.partial(matched, threads=1),
    "matched 2": functools.partial(matched, threads=2),
    "scanpy": scanpy_all,
    "pyucell": functools.partial(pyucell, n_jobs=1),
    "pyucell 2": functools.partial(pyucell, n_jobs=2),
    "decoupler aucell": functools.partial(decoupler, method="aucell"),
    "decoupler ulm": functools.partial(decoupler, method="ulm"),
    "scdrs": scdrs,
    "differ": differ,
}


def main() -> int:
    name, path, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    warnings.simplefilter("ignore")
    try:
        found = JOBS[name](path, folder)
    except Missing as error:
        found = {"skipped": str(error)}
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

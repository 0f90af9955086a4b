"""The calls in a copy of the data set: columns of obs added, everything else as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senoscore.errors import InputDataError
from senoscore.inputs import read_frame
from senoscore.io.artefacts import atomic_path
from senoscore.io.h5 import safe_h5_open

if TYPE_CHECKING:
    import h5py
    import pandas as pd


def export(directory: str | Path, out: str | Path, *, source: str | Path | None = None) -> None:
    """Copy the data set of a finished run and add what the run says of each cell to its obs.

    The file is copied as it is, so that matrices are neither decoded nor encoded; columns that senoscore
    writes are then added to obs. A column of the file that has the name of one of them stays as
    ``original_<name>``, as in ``senoscore.h5ad``. Nothing else changes, so that the copy opens
    wherever the file did, as in the CELLxGENE explorer.

    Parameters
    ----------
    directory
        ``results/<dataset>``.
    out
        The ``.h5ad`` file to write.
    source
        The data set; None takes the path the run was started with.

    Raises
    ------
    InputDataError
        There is no finished run, the data set is not found, is no h5ad file, or has other cells.
    """
    from anndata.io import read_elem

    scored = Path(directory) / "senoscore.h5ad"
    if not scored.is_file():
        raise InputDataError(f"{scored} is not there: name the results folder of one data set")
    with safe_h5_open(scored) as file:
        ours = read_frame(file, "obs", read_elem)
    if source is None:
        facts = Path(directory) / "stages" / "facts.json"
        source = json.loads(facts.read_text("utf-8")).get("path") if facts.is_file() else None
    path = Path(source or "")
    if not source or not path.exists():
        raise InputDataError(
            f"the data set scored in {directory} is not at {str(path)!r} any more: say where it is "
            "(source)"
        )
    if Path(out).exists() and path.samefile(out):
        raise InputDataError(f"{str(out)!r} is the data set itself: name another file to write")
    if path.is_dir() or path.suffix == ".zip":
        raise InputDataError(f"{str(path)!r} is a zarr store: only h5ad files are exported")
    with safe_h5_open(path, everything=True) as root:
        if root.name != "/":
            raise InputDataError(f"{str(path)!r} is a MuData file: only h5ad files are exported")
        theirs = read_frame(root, "obs", read_elem)
    # obs of a run is the file's own columns, in their order, and then those of the run
    kept = list(map(str, ours.columns[: theirs.shape[1]]))
    like = len(kept) == theirs.shape[1] and all(map(str.endswith, kept, map(str, theirs.columns)))
    if not (like and theirs.index.equals(ours.index)):
        raise InputDataError(
            f"{str(path)!r} has other cells or columns than the run in {directory} found: name the file "
            "that was scored"
        )
    import h5py

    with atomic_path(out) as part:
        shutil.copyfile(path, part)
        with h5py.File(part, "r+") as file:
            _add_columns(file, theirs, ours)


def _add_columns(file: h5py.File, theirs: pd.DataFrame, ours: pd.DataFrame) -> None:
    from anndata.io import write_elem

    obs: Any = file["obs"]
    if "column-order" not in obs.attrs:  # one array of records, as before anndata 0.7
        write_elem(file, "obs", ours)
        return
    kept = [str(name) for name in ours.columns[: theirs.shape[1]]]
    added = [str(name) for name in ours.columns[theirs.shape[1] :]]
    for old, new in zip(map(str, theirs.columns), kept, strict=True):
        if old != new:
            obs.move(old, new)
    for name in added:
        write_elem(obs, name, ours[name].values, dataset_kwargs={"compression": "gzip"})
    obs.attrs["column-order"] = [*kept, *added]

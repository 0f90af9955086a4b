"""The artefacts of a data set, read once, and refused where they are of two runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from senoscore import keys, plots
from senoscore.errors import InputDataError
from senoscore.io.artefacts import read_npz
from senoscore.markers import order_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy import sparse


@dataclass(frozen=True)
class Artefacts:
    """What a data set's folder holds, read once."""

    directory: Path
    s: AnnData
    facts: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    panel: tuple[sparse.csr_matrix, list[str], NDArray[np.float64]] | None

    def table(self, name: str) -> pd.DataFrame | None:
        """A table with at least one row, else None."""
        found = self.tables.get(name)
        return found if found is not None and len(found) else None

    def obs(self, column: str) -> NDArray[np.object_]:
        """A column of obs as objects; None everywhere where the column is absent."""
        if column not in self.s.obs:
            return np.full(self.s.n_obs, None, dtype=object)
        values = self.s.obs[column].astype(object)
        return np.asarray(values.where(values.notna(), None), dtype=object)

    @property
    def passed(self) -> NDArray[np.bool_]:
        """Cells that passed quality control."""
        return np.asarray(self.s.obs[keys.OBS_QC_PASS], dtype=bool)


def read_artefacts(directory: str | Path) -> Artefacts:
    """Read a data set's folder, and refuse files that are not of one run.

    Cells are taken in an order of their own: a picture hides the points it draws first, and a file's order is
    often that of its samples.

    Raises
    ------
    InputDataError
        If `senoscore.h5ad` is missing, or a table does not have the cells it should have.
    """
    folder = Path(directory)
    s = _read_scores(folder / "senoscore.h5ad")
    facts_file = folder / "stages" / "facts.json"
    facts = json.loads(facts_file.read_text("utf-8")) if facts_file.is_file() else plots.facts_of(s)
    tables = {path.name: _read_tsv(path) for path in sorted(folder.glob("*.tsv"))}
    limits = folder / "stages" / "qc_limits.tsv"
    if limits.is_file():
        tables["stages/qc_limits.tsv"] = _read_tsv(limits)
    order = order_of(s.obs_names)
    panel = _read_panel(folder / "stages", s.n_obs)
    if panel is not None:
        panel = (panel[0][order], panel[1], panel[2][order])
    found = Artefacts(folder, s[order].copy(), facts, tables, panel)
    states = found.obs(keys.OBS_T_STATE)
    for state in ("exhausted", "senescent"):
        name = f"t_cells_{state}.tsv"
        expected = int(np.isin(states, [state, "both"]).sum())
        if name in tables and len(tables[name]) != expected:
            raise InputDataError(
                f"{folder / name} lists {len(tables[name]):,} cells, senoscore.h5ad has "
                f"{expected:,} in this state: they are of two runs; run the stage 'call' again"
            )
    return found


def _read_scores(path: Path) -> AnnData:
    """The score space without what no picture needs (raw scores, unadjusted p-values)."""
    import h5py
    from anndata import AnnData
    from anndata.io import read_elem

    if not path.is_file():
        raise InputDataError(f"{path} is missing: run the stage 'call' of this data set first")
    with h5py.File(path, "r") as file:
        layers = {}
        if keys.LAYER_PADJ in file.get("layers", {}):
            layers[keys.LAYER_PADJ] = read_elem(file["layers"][keys.LAYER_PADJ])
        return AnnData(
            X=read_elem(file["X"]),
            obs=read_elem(file["obs"]),
            var=read_elem(file["var"]),
            uns=read_elem(file["uns"]) if "uns" in file else {},
            obsm=read_elem(file["obsm"]) if "obsm" in file else {},
            layers=layers,
        )


def _read_tsv(path: Path) -> pd.DataFrame:
    """A table as `write_tsv` writes it: NA is the only missing value, names stay text."""
    text = {
        "term",
        "level",
        "reference",
        "state",
        "call",
        "flipped_to",
        "unit",
        "measure",
        "protein",
        "antibody",
        "reason",
        "status",
        "compared_with",
        "name",
        "design",
        "donor",
        "lineage",
        "subset",
        "sample",
        "metric",
        "cell",
        "signature",
        "note",
        "label",
    }
    try:
        header = pd.read_csv(path, sep="\t", nrows=0)
        return pd.read_csv(
            path, sep="\t", keep_default_na=False, na_values=["NA"],
            dtype={c: str for c in header.columns if c in text},
        )  # fmt: skip
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def _read_panel(
    stages: Path, n_obs: int
) -> tuple[sparse.csr_matrix, list[str], NDArray[np.float64]] | None:
    """Counts of the marker genes as quality control left them, whole or in shards; None if gone."""
    from scipy import sparse

    from senoscore.streaming import Panel

    files = [stages / "qc.npz"] if (stages / "qc.npz").is_file() else sorted(
        stages.glob("qc-*of*.npz"), key=lambda p: int(p.stem.split("-")[1].split("of")[0])
    )  # fmt: skip
    blocks, totals, symbols = [], [], []
    for file in files:
        part = read_npz(file)
        if "panel_codes" not in part:
            return None
        symbols = [str(v) for v in part["panel_genes"]]
        blocks.append(Panel.from_arrays(part, "panel").columns())
        totals.append(np.asarray(part["metrics"][:, 0], np.float64))
    if not blocks or sum(b.shape[0] for b in blocks) != n_obs:
        return None
    return sparse.vstack(blocks, format="csr"), symbols, np.concatenate(totals)


def counted(values: Iterable[Any], names: Sequence[str]) -> pd.DataFrame:
    """How often each value occurs, most frequent first, empty and missing ones left out."""
    series = pd.Series([v for v in values if v not in (None, "")], dtype=object)
    counts = series.value_counts(sort=False)
    frame = pd.DataFrame(
        {names[0]: [str(v) for v in counts.index], names[1]: counts.to_numpy(dtype=np.int64)}
    )
    order = np.lexsort((frame[names[0]].to_numpy(dtype=str), -frame[names[1]].to_numpy()))
    return frame.iloc[order].reset_index(drop=True)


def fact_value(found: Artefacts, name: str) -> Any:
    entry = found.facts.get(name)
    return entry.get("value") if isinstance(entry, Mapping) else entry


def donors_of(found: Artefacts) -> list[str]:
    """Donors of the donor table; empty where the file names none."""
    from senoscore.donors import ALL_DONORS

    table = found.table("donors.tsv")
    if table is None or "donor" not in table:
        return []
    return [d for d in dict.fromkeys(table["donor"].astype(str)) if d != ALL_DONORS]


def has_embedding(found: Artefacts) -> bool:
    return plots.embedding_key(found.s) is not None


def is_scored(found: Artefacts, name: str) -> bool:
    """Whether a signature has a value in any cell."""
    return name in found.s.var_names and bool(np.isfinite(plots.z_of(found.s, name)).any())


def why_not(found: Artefacts, name: str) -> str:
    var = found.s.var
    if name not in var.index:
        return "it was not among the signatures to score"
    reason = str(var.loc[name, "reason"]) if "reason" in var else ""
    return reason or "no cell in which it is valid"

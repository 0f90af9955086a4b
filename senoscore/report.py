"""The HTML report of one data set, and the summary over all: tables, pictures, and what they mean.

Nothing is computed here but counts: every number comes from the artefacts of earlier stages, and a
report whose files do not belong together is refused. The page stands alone: no script, no address
of another machine, pictures inside. Equal artefacts give equal bytes.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import numpy as np
import pandas as pd

from senoscore import keys, plots
from senoscore.errors import InputDataError
from senoscore.io.artefacts import atomic_path, dataset_dir, read_npz, write_tsv
from senoscore.plots import LINEAGE_NAMES, clean_label, percent

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure
    from numpy.typing import NDArray
    from scipy import sparse

__all__ = ["build_report", "build_summary", "summary_page"]

logger = logging.getLogger(__name__)

MAX_ROWS: Final = 200
MAX_SVG: Final = 250_000
_WIDTH: Final = 4.9  # inches: at this width the words of a picture can be read on a phone


# --------------------------------------------------------------------------------------------
# what a page is made of


@dataclass(frozen=True)
class Table:
    """A table as it is shown: every cell is text by now."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture inside the page, with the words that stand for it and the words below it."""

    uri: str
    width: int
    height: int
    alt: str
    caption: str


@dataclass
class Page:
    """All that the template sees."""

    title: str
    values: dict[str, Any] = field(default_factory=dict)


_HEADINGS: Final[Mapping[str, str]] = {
    "donor": "donor",
    "lineage": "lineage",
    "subset": "subset",
    "lineage_subset": "subset",
    "n_cells": "cells",
    "n_qc_pass": "passed quality control",
    "mean_z": "mean z",
    "mean_z_low": "from",
    "mean_z_high": "to",
    "n_senescent": "senescent",
    "n_indeterminate": "indeterminate",
    "frac_senescent": "share senescent",
    "frac_senescent_low": "from",
    "frac_senescent_high": "to",
    "n_t_exhausted": "exhausted",
    "frac_t_exhausted": "share exhausted",
    "frac_t_exhausted_low": "from",
    "frac_t_exhausted_high": "to",
    "n_t_senescent": "senescent",
    "frac_t_senescent": "share senescent",
    "frac_t_senescent_low": "from",
    "frac_t_senescent_high": "to",
    "n_t_both": "both",
    "n_t_senescent_like": "senescent_like",
    "n_t_cycling": "cycling",
    "n_t_neither": "neither",
    "n_t_indeterminate": "indeterminate",
    "pvalue": "p",
    "padj": "adjusted p",
    "note": "remark",
    "n_genes": "genes that vote",
    "n_found": "found",
    "coverage": "share of weight found",
    "genes_missing": "not found",
    "genes_used": "used",
    "reason": "why not scored",
    "depth_stratum": "depth stratum",
    "depth_median": "median depth",
    "n_sets": "random sets",
    "spearman_z_depth": "Spearman's rho of z and depth",
    "low": "lower limit",
    "high": "upper limit",
    "n_failed": "outside",
}


def heading(column: str) -> str:
    """The words over a column: `fpr_0.05` becomes "false positives at p ≤ 0.05"."""
    if column.startswith("fpr_"):
        return f"false positives at p ≤ {column[4:]}"
    if column.startswith("se_"):
        return "± se"
    return _HEADINGS.get(column, column.replace("_", " "))


def cell_text(value: Any, column: str = "") -> str:
    r"""One value of a table as text; the column's name says what it is.

    Examples
    --------
    >>> [cell_text(v, c) for v, c in ((1234, "n_cells"), (0.034, "frac_senescent"), (2.0, "z"))]
    ['1,234', '3.4\xa0%', '2.00']
    >>> cell_text(float("nan")), cell_text(3e-7, "pvalue"), cell_text(float("-inf"), "low")
    ('–', '3.0e-07', 'none')
    """
    if value is None or value is pd.NA:
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    if isinstance(value, (float, np.floating)):
        return _number_text(float(value), column)
    return clean_label(value, limit=2000) if str(value) else ""


def _number_text(number: float, column: str) -> str:
    if np.isnan(number):
        return "–"
    if np.isinf(number):
        return "none"
    if column.startswith(("frac_", "fpr_", "se_")) or column == "coverage":
        return percent(number, 1.0) if number else "0\N{NO-BREAK SPACE}%"
    if column.startswith("n_") or column == "depth_stratum":
        return f"{number:,.0f}"
    if column in ("pvalue", "padj", "p"):
        return f"{number:.3f}" if number >= 0.001 else f"{number:.1e}"
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.2f}" if abs(number) >= 0.01 or number == 0 else f"{number:.1e}"


def table_of(
    frame: pd.DataFrame,
    caption: str,
    *,
    columns: Sequence[str] | None = None,
    headings: Mapping[str, str] | None = None,
    note: str = "",
    file: str = "",
    folded: bool = False,
    max_rows: int = MAX_ROWS,
) -> Table:
    """A frame as a table of the page; a long one is cut, and says where the rest is."""
    shown = [c for c in (columns or list(frame.columns)) if c in frame.columns]
    numeric = tuple(
        c == "share"
        or (
            pd.api.types.is_numeric_dtype(frame[c].dtype)
            and not pd.api.types.is_bool_dtype(frame[c].dtype)
        )
        for c in shown
    )
    rows = tuple(
        tuple(cell_text(value, name) for value, name in zip(row, shown, strict=True))
        for row in frame[shown].head(max_rows).itertuples(index=False, name=None)
    )
    parts = [note] if note else []
    if len(frame) > max_rows:
        parts.append(f"The first {max_rows:,} of {len(frame):,} rows.")
    if file:
        parts.append(f"Full table: {file}.")
    words = dict(headings or {})
    return Table(
        caption,
        tuple(words.get(c, heading(c)) for c in shown),
        rows,
        numeric,
        " ".join(parts),
        folded,
    )


# --------------------------------------------------------------------------------------------
# pictures


def picture(
    draw: Callable[[MplFigure], object],
    *,
    alt: str,
    caption: str,
    width: float = _WIDTH,
    height: float = 4.0,
) -> Picture:
    """Draw on a figure of its own and put it into the page: SVG where small, else PNG."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    options: dict[Any, Any] = {
        "svg.hashsalt": "senoscore",
        "svg.fonttype": "none",
        "text.parse_math": False,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "path.simplify": True,
    }
    with plots.plain_style(), mpl.rc_context(options), warnings.catch_warnings():
        # a label in a script that the drawing font lacks: the browser has the glyphs
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        _settle(figure)
        svg = io.BytesIO()
        figure.savefig(svg, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
        content, kind = svg.getvalue(), "svg+xml"
        if len(content) > MAX_SVG:
            png = io.BytesIO()
            figure.savefig(png, format="png", dpi=170, metadata={"Software": None})
            content, kind = png.getvalue(), "png"
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return Picture(uri, round(96 * width), round(96 * height), alt, caption)


def _settle(figure: MplFigure) -> None:
    """Lay the figure out, and round: the solver's last digits differ from run to run."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        place = ax.get_position(original=True)
        ax.set_position([round(float(v), 5) for v in place.bounds])


def _single(draw: Callable[[Axes], object]) -> Callable[[MplFigure], object]:
    return lambda figure: draw(figure.subplots())


# --------------------------------------------------------------------------------------------
# reading the artefacts


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
    found = Artefacts(folder, s, facts, tables, _read_panel(folder / "stages", s.n_obs))
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
    text = {"donor", "lineage", "subset", "sample", "metric", "cell", "signature", "note", "label"}
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

    files = [stages / "qc.npz"] if (stages / "qc.npz").is_file() else sorted(
        stages.glob("qc-*of*.npz"), key=lambda p: int(p.stem.split("-")[1].split("of")[0])
    )  # fmt: skip
    blocks, totals, symbols = [], [], []
    for file in files:
        part = read_npz(file)
        if "panel_genes" not in part:
            return None
        symbols = [str(v) for v in part["panel_genes"]]
        blocks.append(
            sparse.csr_matrix(
                (part["panel_data"], part["panel_indices"], part["panel_indptr"]),
                shape=tuple(int(v) for v in part["panel_shape"]),
            )
        )
        totals.append(np.asarray(part["metrics"][:, 0], np.float64))
    if not blocks or sum(b.shape[0] for b in blocks) != n_obs:
        return None
    return sparse.vstack(blocks, format="csr"), symbols, np.concatenate(totals)


# --------------------------------------------------------------------------------------------
# sections of the page: each returns the values its part of the template prints

STATE_MEANING: Final[Mapping[str, str]] = {
    "exhausted": "The exhaustion programme stands out. Not given to regulatory T cells.",
    "senescent": (
        "The surface phenotype of senescence stands out, and so does at least one supporting arm: "
        "cell-cycle arrest, lost T-cell-receptor signalling, or SASP."
    ),
    "both": "Exhausted and senescent by the two rules above: the two states can coexist.",
    "senescent_like": (
        "The surface phenotype alone (CD27 and CD28 lost; KLRG1, CD57, CD16 gained). The ordinary "
        "TEMRA cell looks the same, so this is not called senescent."
    ),
    "cycling": "S or G2M programme: a dividing cell is not senescent.",
    "neither": "Deep enough to have been called, and no programme stands out.",
    "indeterminate": (
        "Cannot be judged: too few counts for a programme to be seen, a doublet, genes missing, or "
        "failed quality control. It does not mean healthy."
    ),
}
_KINDS: Final = {"exhausted": ("progenitor", "terminal"), "senescent": ("sasp_high", "nk_like")}
_FACT_TITLES: Final[Mapping[str, str]] = {
    "counts": "Raw counts",
    "expression": "Values used",
    "scale": "Their scale",
    "x_scale": "Scale of X",
    "gene_names": "Gene names",
    "gene_kind": "Kind of gene id",
    "organism": "Organism",
    "cell_type": "Cell types",
    "cell_type_fine": "Finer cell types",
    "cell_type_ontology": "Ontology terms",
    "cluster": "Clusters",
    "donor": "Donors",
    "sample": "Samples",
    "condition": "Condition",
    "age": "Age",
    "is_primary_data": "Primary data",
    "suspension_type": "Cells or nuclei",
    "embeddings": "Embeddings",
    "protein": "Protein",
    "storage": "Storage",
    "nnz": "Stored values",
    "file_bytes": "File size (bytes)",
}


def _counted(values: Iterable[Any], names: Sequence[str]) -> pd.DataFrame:
    """How often each value occurs, most frequent first, empty and missing ones left out."""
    series = pd.Series([v for v in values if v not in (None, "")], dtype=object)
    counts = series.value_counts(sort=False)
    frame = pd.DataFrame(
        {names[0]: [str(v) for v in counts.index], names[1]: counts.to_numpy(dtype=np.int64)}
    )
    order = np.lexsort((frame[names[0]].to_numpy(dtype=str), -frame[names[1]].to_numpy()))
    return frame.iloc[order].reset_index(drop=True)


def _fact_value(found: Artefacts, name: str) -> Any:
    entry = found.facts.get(name)
    return entry.get("value") if isinstance(entry, Mapping) else entry


def _donor_names(found: Artefacts) -> list[str]:
    """Donors of the donor table; empty where the file names none."""
    from senoscore.donors import ALL_DONORS

    table = found.table("donors.tsv")
    if table is None or "donor" not in table:
        return []
    return [d for d in dict.fromkeys(table["donor"].astype(str)) if d != ALL_DONORS]


def _file(found: Artefacts) -> dict[str, Any]:
    rows = []
    for name, title in _FACT_TITLES.items():
        entry = found.facts.get(name)
        if not isinstance(entry, Mapping):
            continue
        value = entry.get("value")
        if isinstance(value, list | tuple):
            value = ", ".join(str(v) for v in value) or None
        text = "not found" if value is None else cell_text(value)
        rows.append((title, text, str(entry.get("how", ""))))
    return {
        "facts": Table(
            "All that was found, and how",
            ("", "found", "how"),
            tuple(rows),
            (False, False, False),
            folded=True,
        ),
        "n_vars": int(found.facts.get("n_vars") or 0),
        "n_obs": int(found.facts.get("n_obs") or found.s.n_obs),
        "expression": _fact_value(found, "expression"),
        "scale": str(_fact_value(found, "scale") or "unknown").replace("_", " "),
        "organism": _fact_value(found, "organism"),
        "notes": [str(note) for note in found.facts.get("notes", [])],
        "gene_notes": str(found.s.uns.get(keys.UNS, {}).get("gene_notes", "")),
    }


def _quality(found: Artefacts, *, figures: bool) -> dict[str, Any]:
    reasons = [
        part for text in found.obs(keys.OBS_QC_REASON) if text for part in str(text).split("; ")
    ]
    limits = found.table("stages/qc_limits.tsv")
    if limits is None:
        stored = found.s.uns.get(keys.UNS, {}).get("qc_limits")
        limits = stored if isinstance(stored, pd.DataFrame) and len(stored) else None
    doublets = found.obs("doublet_mixed_lineage")
    measured = [
        m
        for m in ("total_counts", "n_genes_by_counts", "pct_counts_mt")
        if m in found.s.obs and found.s.obs[m].notna().any()
    ]
    made = None
    if figures and measured:
        sample = _sample_key(found)
        rows = 1 if sample is None else min(plots.MAX_GROUPS, found.s.obs[sample].nunique())

        def draw(figure: MplFigure) -> object:
            axes = figure.subplots(len(measured), 1, squeeze=False).ravel()
            return plots.qc(found.s, groupby=sample, metrics=measured, limits=limits, ax=list(axes))

        made = picture(
            draw,
            height=len(measured) * (0.75 + 0.28 * max(1, rows)),
            alt=f"Distribution of {', '.join(plots.METRIC_NAMES[m] for m in measured)}, one row "
            f"per sample; {int((~found.passed).sum()):,} dropped cells as dots.",
            caption="Each shape is the distribution over the cells of one sample, its tick the "
            "median. Orange dots are cells that failed quality control, black bars the limits. "
            "A cell can fail by another measure than the one shown.",
        )
    return {
        "n": found.s.n_obs,
        "n_passed": int(found.passed.sum()),
        "n_doublets": int(sum(v is True for v in doublets)),
        "has_doublets": "doublet_mixed_lineage" in found.s.obs,
        "reasons": table_of(
            _counted(reasons, ("reason", "n_cells")),
            "Why cells were dropped",
            headings={"reason": "reason"},
            note="A cell can have several reasons.",
        ),
        "limits": None
        if limits is None
        else table_of(limits, "Limits in force", folded=True, file="stages/qc_limits.tsv"),
        "figure": made,
    }


def _sample_key(found: Artefacts) -> str | None:
    for name in ("sample", "donor"):
        value = _fact_value(found, name)
        if isinstance(value, str) and value in found.s.obs:
            return value
    return None


def _lineages(found: Artefacts, *, figures: bool) -> dict[str, Any]:
    lineage, subset = found.obs(keys.OBS_LINEAGE), found.obs(keys.OBS_LINEAGE_SUBSET)
    source = found.obs(keys.OBS_LINEAGE_SOURCE)
    rows = []
    for name in keys.LINEAGES:
        here = lineage == name
        if here.any():
            kinds = _counted(subset[here], ("subset", "n"))
            text = ", ".join(
                f"{clean_label(k, limit=30)} {n:,}"
                for k, n in zip(kinds["subset"].head(8), kinds["n"].head(8), strict=True)
            )
            rows.append(
                (LINEAGE_NAMES[name], int(here.sum()), int((here & found.passed).sum()), text)
            )
    nowhere = int(sum(v is None for v in lineage))
    frame = pd.DataFrame(rows, columns=["lineage", "n_cells", "n_qc_pass", "subsets"])
    labels = found.table("labels.tsv")
    pictures = []
    if figures and rows:
        key = plots.group_key(found.s, None, *(n for n in ("donor", "sample")))
        groups = 1 if key is None else min(plots.MAX_GROUPS, found.s.obs[key].nunique()) + 1
        pictures.append(
            picture(
                _single(lambda ax: plots.lineages(found.s, ax=ax)),
                height=1.5 + 0.27 * groups,
                alt="Share of each lineage, one bar per donor or sample.",
                caption="One bar per donor (or sample): which share of its cells belongs to "
                "each lineage. The number beside a bar is its cells. Shares depend on how the "
                "sample was sorted and digested as much as on biology.",
            )
        )
        if _has_embedding(found):
            pictures.append(
                picture(
                    _single(lambda ax: plots.embedding(found.s, color=keys.OBS_LINEAGE, ax=ax)),
                    height=4.6,
                    alt="The file's own embedding, coloured by lineage.",
                    caption="The embedding that came with the file, coloured by lineage: a "
                    "lineage scattered over the map hints at wrong labels.",
                )
            )
    return {
        "table": table_of(frame, "Lineages", headings={"subsets": "subsets (cells)"}),
        "nowhere": nowhere,
        "sources": [
            (str(k), int(n))
            for k, n in _counted(source, ("s", "n")).itertuples(index=False, name=None)
        ],
        "labels": None
        if labels is None
        else table_of(labels, "How the file's labels were read", folded=True, file="labels.tsv"),
        "pictures": pictures,
    }


def _has_embedding(found: Artefacts) -> bool:
    return plots.embedding_key(found.s) is not None


def _scored(found: Artefacts, name: str) -> bool:
    """Whether a signature has a value in any cell."""
    return name in found.s.var_names and bool(np.isfinite(plots.z_of(found.s, name)).any())


def _why_not(found: Artefacts, name: str) -> str:
    var = found.s.var
    if name not in var.index:
        return "it was not among the signatures to score"
    reason = str(var.loc[name, "reason"]) if "reason" in var else ""
    return reason or "no cell in which it is valid"


def _scores(found: Artefacts, *, figures: bool) -> dict[str, Any]:
    s, fdr = found.s, plots.fdr_of(found.s)
    lineage = found.obs(keys.OBS_LINEAGE)
    rows = []
    for name in (str(v) for v in s.var_names):
        z, padj = plots.z_of(s, name), plots.padj_of(s, name)
        for kind in keys.LINEAGES:
            n = int((np.isfinite(z) & (lineage == kind)).sum())
            if n:
                called = (
                    int(((padj <= fdr) & (lineage == kind)).sum()) if padj is not None else None
                )
                rows.append((name, kind, n, called, percent(called or 0, n)))
    frame = pd.DataFrame(rows, columns=["signature", "lineage", "n_cells", "n_called", "share"])
    pictures = []
    if figures:
        roles = s.var["role"].astype(str) if "role" in s.var else pd.Series("", index=s.var.index)
        for role_names, alt, caption in (
            (
                [str(n) for n in s.var_names if roles[n] == "lineage"],
                "Distribution of each lineage's own senescence and exhaustion scores.",
                "Each shape is the distribution of a score over the cells of one lineage. 0 is "
                "what random genes of the same abundance give, the unit their standard "
                "deviation; black dots are cells called at the false-discovery rate of the "
                "settings.",
            ),
            (
                [str(n) for n in s.var_names if roles[n] == "axis"],
                "Distribution of the axes of the T-cell verdict and of the confounders.",
                "The axes of the T-cell verdict, and the programmes that can be mistaken for "
                "senescence: division, interferon and handling stress. A sample high in these "
                "calls for caution.",
            ),
        ):
            shown = [n for n in role_names if _scored(found, n)]
            if shown:
                pictures.append(_score_picture(s, shown, alt=alt, caption=caption))
    return {
        "fdr": f"{100 * fdr:g}\N{NO-BREAK SPACE}%",
        "table": table_of(
            frame,
            "Every signature in every lineage it is valid in",
            headings={"n_cells": "cells scored", "n_called": "called", "share": "share"},
            folded=True,
            max_rows=400,
        ),
        "pictures": pictures,
        "any": bool(len(frame)),
        "has_p": keys.LAYER_PADJ in s.layers and bool(len(frame)),
    }


def _score_picture(s: AnnData, names: list[str], *, alt: str, caption: str) -> Picture:
    codes, _ = plots.group_labels(s, keys.OBS_LINEAGE)
    rows = [
        len({int(c) for c in np.unique(codes[np.isfinite(plots.z_of(s, n))]) if c >= 0})
        for n in names
    ]
    heights = [0.72 + 0.27 * r for r in rows]

    def draw(figure: MplFigure) -> object:
        axes = figure.subplots(len(names), 1, squeeze=False, height_ratios=heights).ravel()
        return plots.scores(s, names, ax=list(axes))

    return picture(draw, height=sum(heights), alt=alt, caption=caption)


# --- T cells


def _t_cells(found: Artefacts, *, figures: bool) -> dict[str, Any]:
    from senoscore import calling

    is_t = found.obs(keys.OBS_LINEAGE) == "T"
    state, subset = found.obs(keys.OBS_T_STATE), found.obs(keys.OBS_T_SUBSET)
    good = is_t & found.passed
    n_good = int(good.sum())
    rows = [
        (
            name,
            int((is_t & (state == name)).sum()),
            int((good & (state == name)).sum()),
            percent(int((good & (state == name)).sum()), n_good),
        )
        for name in keys.T_STATES
    ]
    states = pd.DataFrame(rows, columns=["state", "n_cells", "n_qc_pass", "share"])
    subsets = sorted({str(v) for v in subset[is_t] if v})
    cross = pd.DataFrame(
        [
            (
                name,
                int((good & (subset == name)).sum()),
                *(int((good & (subset == name) & (state == k)).sum()) for k in keys.T_STATES),
            )
            for name in subsets
        ],
        columns=["T-cell subset", "n_qc_pass", *keys.T_STATES],
    )
    rules = _counted(
        [
            f"{a}\t{b}"
            for a, b in zip(state[is_t], found.obs(keys.OBS_T_STATE_RULE)[is_t], strict=True)
        ],
        ("both", "n_cells"),
    )
    parts = [t.split("\t", 1) for t in rules["both"]]
    rules = pd.DataFrame(
        {
            "state": [p[0] for p in parts],
            "rule": [p[1] for p in parts],
            "n_cells": rules["n_cells"],
        }
    )
    unscored = [
        (label, _why_not(found, name))
        for label, name in (
            ("exhaustion", calling.AXIS_SIGNATURES["exhaustion"][0]),
            ("the surface phenotype of senescence", calling.PHENOTYPE),
            *((f"the {arm} arm", name) for arm, name in calling.SUPPORT_ARMS.items()),
        )
        if not _scored(found, name)
    ]
    pictures = []
    if figures and is_t.any():
        drawn = int(
            (
                is_t
                & np.isfinite(found.s.obs["T_exhaustion"].to_numpy(dtype=np.float64))
                & np.isfinite(found.s.obs["T_senescence"].to_numpy(dtype=np.float64))
            ).sum()
        )
        if drawn:
            pictures.append(
                picture(
                    _single(lambda ax: plots.t_states(found.s, ax=ax)),
                    height=5.2,
                    alt="Map of T cells by exhaustion and senescence score: "
                    + ", ".join(f"{r[0]} {r[1]:,}" for r in rows)
                    + ".",
                    caption="Each dot is a T cell: exhaustion to the right, senescence upwards, "
                    "in standard deviations of random genes. Beyond a dashed line the axis is "
                    "significant by itself. Colours show the verdict, which also weighs the arms, "
                    "division and depth; they need not end at the lines.",
                )
            )
        if _has_embedding(found):
            pictures.append(
                picture(
                    _single(lambda ax: plots.embedding(found.s, color=keys.OBS_T_STATE, ax=ax)),
                    height=4.8,
                    alt="The file's own embedding, T cells coloured by state.",
                    caption="Where the called T cells lie on the file's own embedding; cells "
                    "that are no T cells are light grey. Cells of one state need not lie "
                    "together, since embeddings follow the strongest programmes, not these.",
                )
            )
    return {
        "n": int(is_t.sum()),
        "n_passed": n_good,
        "meanings": [(r[0], plots.T_STATE_COLORS[r[0]], STATE_MEANING[r[0]]) for r in rows],
        "counts": {r[0]: r[1] for r in rows},
        "passed": {r[0]: r[2] for r in rows},
        "states": table_of(
            states,
            "T cells by state",
            headings={"n_cells": "T cells", "share": "share of these"},
        ),
        "cross": table_of(cross, "By subset, cells that passed quality control")
        if len(cross)
        else None,
        "rules": table_of(rules, "Which rule decided, for how many cells", folded=True),
        "unscored": unscored,
        "pictures": pictures,
    }


def _marker_picture(found: Artefacts, state: str) -> Picture | None:
    if found.panel is None or not (found.obs(keys.OBS_LINEAGE) == "T").any():
        return None
    organism = str(_fact_value(found, "organism") or "human")
    groups = plots.marker_groups(state, organism=organism)
    n_rows = sum(map(len, groups.values())) + 0.9 * len(groups)
    panel = found.panel
    return picture(
        _single(lambda ax: plots.markers(found.s, panel, state=state, genes=groups, ax=ax)),
        height=1.2 + 0.2 * n_rows,
        alt=f"Dot plot of the markers of {state} T cells in every T-cell state.",
        caption="Columns are T-cell states with their numbers of cells, rows genes; ↓ marks "
        "genes that the state is expected to lose. The larger a dot, the more cells have at "
        "least one count; the darker, the higher the mean. In a column of few cells a dot says "
        "little. Genes of the voting groups made the call, so that they must differ; the other "
        "groups are the independent look.",
    )


def _t_state_section(found: Artefacts, state: str, *, figures: bool) -> dict[str, Any]:
    """What the exhausted and the senescent section have in common."""
    is_t = found.obs(keys.OBS_LINEAGE) == "T"
    states, subset = found.obs(keys.OBS_T_STATE), found.obs(keys.OBS_T_SUBSET)
    good = is_t & found.passed
    here = np.isin(states, [state, "both"])
    rows = []
    for name in sorted({str(v) for v in subset[is_t] if v}):
        n = int((good & (subset == name)).sum())
        alone = int(((states == state) & (subset == name)).sum())
        two = int(((states == "both") & (subset == name)).sum())
        rows.append((name, n, alone, two, percent(alone + two, n)))
    by_subset = pd.DataFrame(rows, columns=["T-cell subset", "n_qc_pass", state, "both", "share"])
    donors = found.table("donors.tsv")
    by_donor = None
    if donors is not None and _donor_names(found):
        own = donors[donors["lineage"].astype(str) == "T"]
        by_donor = table_of(
            own,
            f"{state.capitalize()} T cells by donor",
            columns=[
                "donor", "n_cells", "n_qc_pass", f"n_t_{state}", "n_t_both", f"frac_t_{state}",
                f"frac_t_{state}_low", f"frac_t_{state}_high", "note",
            ],
            note=f"Share: cells called {state} (without both) of the donor's T cells that passed "
            "quality control, with the interval of that share. It says how well this donor's "
            "cells determine the share, not how much donors differ.",
            file="donors.tsv",
        )  # fmt: skip
    listed = found.table(f"t_cells_{state}.tsv")
    kinds = _counted(found.obs("t_substate")[here], ("kind", "n_cells"))
    kinds = kinds[kinds["kind"].isin(_KINDS[state])].reset_index(drop=True)
    axis = {"exhausted": "T_exhaustion", "senescent": "T_senescence"}[state]
    return {
        "state": state,
        "n": int((states == state).sum()),
        "n_both": int((states == "both").sum()),
        "n_passed": int(good.sum()),
        "share": percent(int((states == state).sum()), int(good.sum())),
        "rules": table_of(
            _counted(found.obs(keys.OBS_T_STATE_RULE)[here], ("rule", "n_cells")),
            "Which rule fired",
        )
        if here.any()
        else None,
        "substates": table_of(
            kinds, "Progenitor or terminal" if state == "exhausted" else "Which side"
        )
        if len(kinds)
        else None,
        "by_subset": table_of(
            by_subset,
            f"{state.capitalize()} T cells by subset",
            headings={"share": f"{state} or both"},
        )
        if here.any()
        else None,
        "by_donor": by_donor if here.any() else None,
        "cells": None
        if listed is None
        else table_of(
            listed,
            "The cells themselves, strongest first",
            columns=[
                "cell",
                keys.OBS_T_STATE,
                "t_substate",
                keys.OBS_T_SUBSET,
                axis,
                "T_cytotoxic",
                "T_interferon",
                "T_stress",
                "total_counts",
                keys.OBS_T_STATE_RULE,
            ],
            file=f"t_cells_{state}.tsv",
            folded=True,
            max_rows=25,
        ),  # fmt: skip
        "warnings": _warnings_of_state(found, state),
        "markers": _marker_picture(found, state) if figures else None,
    }


def _warnings_of_state(found: Artefacts, state: str) -> list[str]:
    from senoscore import calling

    names = (
        (*calling.AXIS_SIGNATURES["exhaustion"], calling.PROGENITOR, calling.TERMINAL)
        if state == "exhausted"
        else (calling.PHENOTYPE, *calling.SUPPORT_ARMS.values())
    )
    var = found.s.var
    texts = [
        (str(var.loc[n, "title"]) or n, str(var.loc[n, "warning"]))
        for n in names
        if n in var.index and "warning" in var and str(var.loc[n, "warning"])
    ]
    return [f"{title}: {text}" for title, text in texts]


# --- other lineages, donors, what the scores rest on


def _other_lineages(found: Artefacts) -> list[dict[str, Any]]:
    from senoscore import calling

    lineage = found.obs(keys.OBS_LINEAGE)
    call, rule = found.obs(keys.OBS_SENESCENCE_CALL), found.obs("senescence_rule")
    table = found.table("lineages.tsv")
    parts = []
    for name in keys.LINEAGES:
        here = lineage == name
        if name == "T" or not here.any():
            continue
        good = here & found.passed
        signatures = [n for n in calling.OTHER_LINEAGES.get(name, ()) if n in found.s.var.index]
        own = None
        if table is not None and "lineage" in table:
            row = table[table["lineage"].astype(str) == name]
            if len(row):
                own = {str(k): v for k, v in row.iloc[0].items()}
        interval = ""
        if own is not None and np.isfinite(float(own.get("frac_senescent_low", np.nan))):
            low, high = (cell_text(float(own[f"frac_senescent_{e}"]), "frac_") for e in
                         ("low", "high"))  # fmt: skip
            interval = f"{low} to {high}"
        parts.append(
            {
                "name": name,
                "title": LINEAGE_NAMES[name],
                "n": int(here.sum()),
                "n_passed": int(good.sum()),
                "senescent": int((good & (call == "senescent")).sum()),
                "not_senescent": int((good & (call == "not_senescent")).sum()),
                "indeterminate": int((good & (call == "indeterminate")).sum()),
                "share": percent(int((good & (call == "senescent")).sum()), int(good.sum())),
                "interval": interval,
                "weak": name in calling.LOW_CONFIDENCE,
                "signatures": [
                    {
                        "name": n,
                        "title": str(found.s.var.loc[n, "title"]),
                        "scored": _scored(found, n),
                        "reason": _why_not(found, n),
                        "warning": str(found.s.var.loc[n, "warning"]),
                        "found": int(found.s.var.loc[n, "n_found"]),
                        "genes": int(found.s.var.loc[n, "n_genes"]),
                    }
                    for n in signatures
                ],
                "rules": table_of(
                    _counted(rule[here], ("rule", "n_cells")), "Which rule decided", folded=True
                ),
            }
        )
    return parts


def _donors(found: Artefacts, *, figures: bool) -> dict[str, Any]:
    names = _donor_names(found)
    table = found.table("donors.tsv")
    shown = [
        "donor", "lineage", "n_cells", "n_qc_pass", "n_senescent", "frac_senescent",
        "frac_senescent_low", "frac_senescent_high", "n_indeterminate", "mean_z", "mean_z_low",
        "mean_z_high", "note",
    ]  # fmt: skip
    made = None
    conditions = _conditions(found)
    if figures and names and table is not None:
        rows = table[table["lineage"].astype(str) == "T"]
        if len(rows) and rows["frac_t_exhausted"].notna().any():
            made = picture(
                _single(lambda ax: plots.burden(table, condition=conditions, ax=ax)),
                height=1.2 + 0.3 * min(60, rows["donor"].nunique()),
                alt="Share of exhausted and of senescent T cells, one row per donor.",
                caption="One row per donor: the share of its T cells called exhausted and "
                "senescent, with 95 % intervals. Compare donors, not cells: cells of one donor "
                "are not independent.",
            )
    pooled = found.table("pooled.tsv")
    return {
        "names": names,
        "n": len(names),
        "conditions": sorted(set(conditions.values())),
        "figure": made,
        "table": None
        if table is None
        else table_of(
            table, "Donors by lineage", columns=shown, file="donors.tsv", folded=len(table) > 30
        ),
        "pooled": None if pooled is None else _pooled(pooled),
    }


def _pooled(pooled: pd.DataFrame) -> Table:
    from senoscore import calling
    from senoscore.donors import SENESCENCE_OF

    wanted = {*calling.AXIS_SIGNATURES["exhaustion"], *SENESCENCE_OF.values(), calling.PHENOTYPE,
              *calling.SUPPORT_ARMS.values()}  # fmt: skip
    return table_of(
        pooled[pooled["signature"].isin(wanted)],
        "Cells of one donor and subset taken together",
        note="All cells of a donor's subset summed into one profile and scored like a cell: many "
        "times more power than single cells, but blind to which cells carry the programme.",
        file="pooled.tsv",
        folded=True,
    )


def _conditions(found: Artefacts) -> dict[str, str]:
    """Donor → condition, where every donor has one."""
    donor, condition = _fact_value(found, "donor"), _fact_value(found, "condition")
    if not (isinstance(donor, str) and isinstance(condition, str)):
        return {}
    if donor not in found.s.obs or condition not in found.s.obs:
        return {}
    pairs = found.s.obs[[donor, condition]].astype(object).dropna().drop_duplicates()
    if pairs[donor].duplicated().any():
        return {}
    return {str(a): str(b) for a, b in pairs.itertuples(index=False, name=None)}


def _targets(found: Artefacts) -> Table | None:
    table = found.table("targets.tsv")
    if table is None:
        return None
    return table_of(
        table, "Targets of senolytic and senomorphic strategies", file="targets.tsv",
        folded=len(table) > 30,
    )  # fmt: skip


def _coverage(found: Artefacts, *, figures: bool) -> dict[str, Any]:
    var = found.s.var.copy()
    frame = var.rename_axis("signature").reset_index()
    scored = var["status"].astype(str) == "scored"
    made = None
    if figures and len(var):
        made = picture(
            _single(lambda ax: plots.coverage(found.s, ax=ax)),
            height=0.9 + 0.2 * min(80, len(var)),
            alt=f"Coverage of {len(var)} signatures; {int(scored.sum())} are scored.",
            caption="How much of each signature's voting weight the file measures. Grey: not "
            "scored. Dashed: the least that is asked for. Beside the bars: genes found of genes "
            "that vote.",
        )
    return {
        "n": len(var),
        "n_scored": int(scored.sum()),
        "figure": made,
        "table": table_of(
            frame,
            "Every signature: what was found and what was not",
            columns=[
                "signature",
                "lineages",
                "n_genes",
                "n_found",
                "coverage",
                "status",
                "reason",
                "genes_used",
                "genes_missing",
                "warning",
            ],
            file="coverage.tsv",
            folded=True,
        ),  # fmt: skip
    }


def _calibration(found: Artefacts, *, figures: bool) -> dict[str, Any]:
    table = found.table("calibration.tsv")
    if table is None:
        return {"table": None, "figure": None, "depth": None}
    depth = table.drop_duplicates("lineage") if "spearman_z_depth" in table else None
    made = None
    if figures:

        def draw(figure: MplFigure) -> object:
            axes = figure.subplots(2, 1, height_ratios=[1.1, 1.0])
            return plots.calibration(table, ax=list(axes))

        made = picture(
            draw,
            height=6.0,
            alt="False-positive rate of random gene sets by depth and lineage, and observed "
            "against nominal p-values.",
            caption="Random gene sets that were held back, scored as if they were signatures. "
            "Above: share with p ≤ 0.05 at each depth; it should be 5 % (dashed), bars are two "
            "standard errors. Below: observed against nominal p at .05, .01 and .001; honest "
            "p-values lie on the dashed line, above it they call too much.",
        )
    return {
        "figure": made,
        "table": table_of(
            table, "Lineage by depth", file="calibration.tsv", folded=True, max_rows=100
        ),
        "depth": None
        if depth is None
        else table_of(
            depth,
            "Do scores follow depth?",
            columns=["lineage", "n_sets", "spearman_z_depth"],
            note="Mean over random sets of the correlation between z and depth. Near 0: deep "
            "cells do not score higher just for being deep.",
        ),  # fmt: skip
    }


def _provenance(found: Artefacts) -> dict[str, Any]:
    from senoscore.settings import default_settings

    stored = found.s.uns.get(keys.UNS, {})
    defaults = default_settings()
    rows = []
    for section, values in plots.settings_of(found.s).items():
        if not isinstance(values, Mapping):
            continue
        for key, value in values.items():
            usual = defaults.get(section, {}).get(key)
            changed = "yes" if _plain(value) != _plain(usual) else ""
            rows.append((f"{section}.{key}", _setting_text(value), changed))
    versions = stored.get("versions")
    if isinstance(versions, str):
        versions = json.loads(versions)
    return {
        "version": str(stored.get("version", "unknown")),
        "versions": sorted((str(k), str(v)) for k, v in versions.items())
        if isinstance(versions, Mapping)
        else [],
        "input": str(stored.get("input", "") or found.facts.get("path", "")),
        "sha256": str(stored.get("input_sha256", "")),
        "settings": Table(
            "Settings",
            ("setting", "value", "changed from default"),
            tuple(rows),
            (False, False, False),
            folded=True,
        ),  # fmt: skip
        "files": [name for name in found.tables if "/" not in name],
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _setting_text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value) or "–"
    return str(value)


# --------------------------------------------------------------------------------------------
# the answer in words


def _headline(
    found: Artefacts, t: Mapping[str, Any], others: Sequence[Mapping[str, Any]]
) -> list[str]:
    sentences = []
    if not t["n"]:
        sentences.append(
            f"No T cell was found among {found.s.n_obs:,} cells: T-cell exhaustion and senescence "
            "cannot be judged in this file."
        )
    elif not t["n_passed"]:
        sentences.append(f"None of {t['n']:,} T cells passed quality control: none can be judged.")
    else:
        passed, n = t["passed"], t["n_passed"]

        def share(state: str) -> str:
            return f"{passed[state]:,} ({percent(passed[state], n)})"

        sentences.append(
            f"Of {n:,} T cells that passed quality control, {share('exhausted')} are called "
            f"exhausted, {share('senescent')} senescent and {share('both')} both."
        )
        if passed["senescent_like"]:
            sentences.append(
                f"{share('senescent_like')} carry the surface phenotype of senescence without "
                "further support; ordinary TEMRA cells look the same."
            )
        if passed["indeterminate"]:
            sentences.append(f"{share('indeterminate')} cannot be judged.")
    found_elsewhere = [
        f"{p['senescent']:,} of {p['n_passed']:,} {p['title']}" for p in others if p["senescent"]
    ]
    if found_elsewhere:
        sentences.append(f"Called senescent in other lineages: {', '.join(found_elsewhere)}.")
    elif others:
        sentences.append("No cell of another lineage is called senescent.")
    return sentences


def _cautions(found: Artefacts, t: Mapping[str, Any], donors: Mapping[str, Any]) -> list[str]:
    """What must not be read into the numbers of this file."""
    texts = []
    if not found.s.layers or not np.isfinite(np.asarray(found.s.X)).any():
        reasons = _counted(found.s.var.get("reason", pd.Series(dtype=object)), ("reason", "n"))
        why = f": {reasons['reason'].iloc[0]}" if len(reasons) else ""
        texts.append(f"No signature could be scored{why}.")
    elif t["n"]:
        texts += [
            f"{label[0].upper()}{label[1:]} is not scored ({why}): cells cannot be called by it."
            for label, why in t["unscored"]
        ]
    if t["n_passed"]:
        share = t["passed"]["indeterminate"] / t["n_passed"]
        if share >= 0.2:
            texts.append(
                f"{percent(t['passed']['indeterminate'], t['n_passed'])} of the T cells are "
                "indeterminate: “not called” must not be read as “not senescent” or “not "
                "exhausted”."
            )
        for state in ("exhausted", "senescent"):
            if not t["counts"][state] and not t["counts"]["both"] and share < 1:
                texts.append(
                    f"No T cell is called {state}. No single cell stands out at this "
                    "false-discovery rate; that does not show that there are none."
                )
    if not donors["names"]:
        texts.append(
            "The file names no donors. Cells of one person are not independent, so groups cannot "
            "be compared."
        )
    elif donors["n"] < 3:
        word = "one donor" if donors["n"] == 1 else f"{donors['n']} donors"
        texts.append(f"Only {word}: what is seen here may be this person's, not the condition's.")
    if _fact_value(found, "suspension_type") == "nucleus":
        texts.append("These are nuclei: markers whose RNA is mostly outside the nucleus are low.")
    return texts


def _tiles(found: Artefacts, t: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    tiles = [
        (f"{found.s.n_obs:,}", "cells", ""),
        (f"{int(found.passed.sum()):,}", "passed quality control", ""),
        (f"{t['n']:,}", "T cells", ""),
    ]
    if t["n"]:
        tiles += [
            (f"{t['counts'][name]:,}", name.replace("_", "-"), plots.T_STATE_COLORS[name])
            for name in ("exhausted", "senescent", "both", "senescent_like", "indeterminate")
        ]
    return tiles


def build_report(directory: str | Path, *, title: str | None = None, figures: bool = True) -> None:
    """Write ``report.html`` beside the artefacts of one data set.

    Parameters
    ----------
    directory
        ``results/<dataset>``: holds `senoscore.h5ad`, the tables and `stages/`. A table that is
        missing leaves its section out.
    title
        Heading of the page; by default the folder's name.
    figures
        Whether to draw pictures.

    Raises
    ------
    InputDataError
        If `senoscore.h5ad` is missing, or a table is of another run.
    """
    folder = Path(directory)
    found = read_artefacts(folder)
    t = _t_cells(found, figures=figures)
    others = _other_lineages(found)
    donors = _donors(found, figures=figures)
    values = {
        "dataset": folder.resolve().name,
        "headline": _headline(found, t, others),
        "cautions": _cautions(found, t, donors),
        "tiles": _tiles(found, t),
        "file": _file(found),
        "quality": _quality(found, figures=figures),
        "lineages": _lineages(found, figures=figures),
        "scores": _scores(found, figures=figures),
        "t": t,
        "exhausted": _t_state_section(found, "exhausted", figures=figures),
        "senescent": _t_state_section(found, "senescent", figures=figures),
        "others": others,
        "donors": donors,
        "targets": _targets(found),
        "coverage": _coverage(found, figures=figures),
        "calibration": _calibration(found, figures=figures),
        "provenance": _provenance(found),
    }
    _write(
        folder / "report.html",
        "report.html.j2",
        title=title or f"Senescence and exhaustion in {folder.resolve().name}",
        **values,
    )


def build_summary(
    results: str | Path, datasets: Sequence[str], *, title: str | None = None
) -> None:
    """Write ``summary.tsv`` and ``summary.html`` over data sets that were analysed.

    Parameters
    ----------
    results
        The folder that holds the data sets' folders.
    datasets
        Ids of the data sets, in the order to show them.
    title
        Heading of the page.

    Raises
    ------
    InputDataError
        If a data set has no ``lineages.tsv``.
    ConfigError
        If an id could lead out of the folder.
    """
    from senoscore.summary import summarise

    folder = Path(results)
    table = summarise([dataset_dir(folder, name) for name in datasets])
    write_tsv(table, folder / "summary.tsv")
    summary_page(table, folder / "summary.html", title=title)


def summary_page(table: pd.DataFrame, path: str | Path, *, title: str | None = None) -> None:
    """Write the page of a summary table; reports are linked where they lie beside it."""
    target = Path(path)
    numbers = table.copy()
    for column in numbers.columns:
        if column.startswith(("n_", "frac_", "mean_")):
            numbers[column] = pd.to_numeric(numbers[column], errors="coerce")
    datasets = [str(d) for d in dict.fromkeys(numbers["dataset"])]
    t_rows = numbers[numbers["lineage"] == "T"].drop_duplicates("dataset").set_index("dataset")
    wanted = ["n_qc_pass", *(f"n_t_{s}" for s in keys.T_STATES)]
    counts = {
        name: t_rows.loc[name, wanted].to_numpy(dtype=np.float64)
        if name in t_rows.index
        else np.full(len(wanted), np.nan)
        for name in datasets
    }
    frame = pd.DataFrame(
        np.vstack(list(counts.values())), columns=["n_qc_pass", *keys.T_STATES]
    ).assign(dataset=datasets)
    shown = [
        "dataset", "lineage", "n_cells", "n_qc_pass", "n_senescent", "frac_senescent",
        "frac_senescent_low", "frac_senescent_high", "n_indeterminate", "note",
    ]  # fmt: skip
    _write(
        target,
        "summary.html.j2",
        title=title or "Senescence and exhaustion over all data sets",
        n=len(datasets),
        figure=_summary_picture(frame) if frame["n_qc_pass"].gt(0).any() else None,
        rows=[
            {
                "name": name,
                "link": f"./{quote(name)}/report.html"
                if (target.parent / name / "report.html").is_file()
                else "",
                "cells": tuple("–" if np.isnan(v) else f"{v:,.0f}" for v in counts[name]),
            }
            for name in datasets
        ],
        states=keys.T_STATES,
        without_t=[name for name in datasets if name not in t_rows.index],
        lineages=table_of(
            numbers,
            "Every lineage of every data set",
            columns=shown,
            file="summary.tsv",
            folded=len(numbers) > 40,
            max_rows=1000,
        ),  # fmt: skip
    )


def _summary_picture(frame: pd.DataFrame, *, limit: int = 60) -> Picture:
    """T-cell states of each data set, as shares of its T cells that passed quality control."""
    rows = frame[frame["n_qc_pass"] > 0].head(limit)
    more = int((frame["n_qc_pass"] > 0).sum()) - len(rows)
    return picture(
        _single(lambda ax: plots.state_bars(rows, label="dataset", ax=ax)),
        height=1.5 + 0.27 * len(rows),
        alt=f"T-cell states of {len(rows)} data sets as shares of their T cells.",
        caption="One bar per data set: the states of its T cells that passed quality control; "
        "their number stands beside the bar. Data sets differ in tissue, depth and sorting: a "
        "large indeterminate share means shallow data, not healthy donors."
        + (f" The first {limit}; {more:,} more are in the table." if more else ""),
    )


def _write(path: Path, template: str, **values: Any) -> None:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("senoscore", "templates"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["thousands"] = lambda n: f"{int(n):,}"
    text = environment.get_template(template).render(**values)
    with atomic_path(path) as part:
        part.write_bytes(text.encode("utf-8", "replace"))

"""What a page is made of: tables, pictures, and the template that holds them."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from senoscore import plots
from senoscore.io.artefacts import atomic_path
from senoscore.plots import clean_label, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure


MAX_ROWS: Final = 200


MAX_SVG: Final = 250_000


WIDTH: Final = 4.9  # inches: at this width the words of a picture can be read on a phone


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
    "frac_exhausted_with_senescence": "of the exhausted, carry senescence",
    "frac_exhausted_with_senescence_low": "from",
    "frac_exhausted_with_senescence_high": "to",
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
    >>> [cell_text(0.007, c) for c in ("se_0.05", "se_spearman_z_depth")]
    ['0.7\xa0%', '0.007']
    >>> cell_text(float("nan")), cell_text(3e-7, "pvalue"), cell_text(float("-inf"), "low")
    ('–', '3.0e-07', 'none')
    """
    if value is None or value is pd.NA:
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)) and not _is_share(column):
        return f"{int(value):,}"
    if isinstance(value, (int, np.integer, float, np.floating)):
        return _number_text(float(value), column)
    return clean_label(value, limit=2000) if str(value) else ""


def _is_share(column: str) -> bool:
    """`se_0.05` is the error of a share, `se_spearman_z_depth` that of a correlation."""
    error = column.startswith("se_") and column[3:4].isdigit()
    return column.startswith(("frac_", "fpr_")) or column == "coverage" or error


def _number_text(number: float, column: str) -> str:
    if np.isnan(number):
        return "–"
    if np.isinf(number):
        return "none"
    if _is_share(column):
        return percent(number, 1.0) if number else "0\N{NO-BREAK SPACE}%"
    if column.startswith("n_") or column == "depth_stratum":
        return f"{number:,.0f}"
    if column in ("pvalue", "padj", "p"):
        return f"{number:.3f}" if number >= 0.001 else f"{number:.1e}"
    if abs(number) >= 100:
        return f"{number:,.0f}"
    if abs(number) >= 0.01 or number == 0:
        return f"{number:.2f}"
    return f"{number:.3f}" if abs(number) >= 0.0005 else f"{number:.0e}"


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


def picture(
    draw: Callable[[MplFigure], object],
    *,
    alt: str,
    caption: str,
    width: float = WIDTH,
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
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        place = ax.get_position(original=True)
        ax.set_position(Bbox.from_bounds(*(round(float(v), 5) for v in place.bounds)))


def single(draw: Callable[[Axes], object]) -> Callable[[MplFigure], object]:
    return lambda figure: draw(figure.subplots())


def write_page(path: Path, template: str, **values: Any) -> None:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("senoscore", "templates"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["thousands"] = lambda n: f"{int(n):,}"
    text = environment.get_template(template).render(**values)
    with atomic_path(path) as part:
        part.write_bytes(text.encode("utf-8", "replace"))

"""Writes the report of a data set and the summary over all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from senoscore import keys, plots
from senoscore.io.artefacts import dataset_dir, write_tsv
from senoscore.report._agreement import agreement_section
from senoscore.report._answer import cautions, headline, tiles
from senoscore.report._artefacts import read_artefacts
from senoscore.report._page import Picture, picture, single, table_of, write_page
from senoscore.report._protein import protein_section
from senoscore.report._sections import (
    calibration_section,
    call_warning,
    certificate_section,
    comparisons_section,
    coverage_section,
    donors_section,
    file_section,
    further_tables,
    lineages_section,
    other_lineages_section,
    provenance_section,
    quality_section,
    rule_lines,
    scores_section,
    support_of_others,
    targets_table,
)
from senoscore.report._tcells import t_cells_section, t_state_section


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
    t = t_cells_section(found, figures=figures)
    others = other_lineages_section(found)
    donors = donors_section(found, figures=figures)
    values = {
        "dataset": folder.resolve().name,
        "headline": headline(found, t, others),
        "cautions": cautions(found, t, donors),
        "tiles": tiles(found, t),
        "file": file_section(found),
        "quality": quality_section(found, figures=figures),
        "lineages": lineages_section(found, figures=figures),
        "scores": scores_section(found, figures=figures),
        "t": t,
        "exhausted": t_state_section(found, "exhausted", figures=figures),
        "senescent": t_state_section(found, "senescent", figures=figures),
        "others": others,
        "support": support_of_others(found),
        "donors": donors,
        "targets": targets_table(found),
        "further": further_tables(found),
        "comparisons": comparisons_section(found, figures=figures),
        "rule": rule_lines(found),
        "t_warning": call_warning(found, "T"),
        "certificate": certificate_section(found),
        "protein": protein_section(found, figures=figures),
        "agreement": agreement_section(found, figures=figures),
        "coverage": coverage_section(found, figures=figures),
        "calibration": calibration_section(found, figures=figures),
        "provenance": provenance_section(found),
    }
    write_page(
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
    write_page(
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
        single(lambda ax: plots.state_bars(rows, label="dataset", ax=ax)),
        height=1.5 + 0.27 * len(rows),
        alt=f"T-cell states of {len(rows)} data sets as shares of their T cells.",
        caption="One bar per data set: the states of its T cells that passed quality control; "
        "their number stands beside the bar. Data sets differ in tissue, depth and sorting: a "
        "large indeterminate share means shallow data or unmeasured genes, not healthy donors."
        + (f" The first {limit}; {more:,} more are in the table." if more else ""),
    )

"""The other sections of the report: each function returns what its part of the template prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from senoscore import keys, plots
from senoscore.plots import LINEAGE_NAMES, clean_label, percent

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure

from senoscore.report._artefacts import (
    Artefacts,
    counted,
    donors_of,
    fact_value,
    has_embedding,
    is_scored,
    why_not,
)
from senoscore.report._page import Picture, Table, cell_text, picture, single, table_of

MAX_SAMPLES: Final = 12
# the words of `lineage_source`
_SOURCES: Final[Mapping[str, str]] = {
    "ontology": "the file's ontology terms",
    "label": "the file's labels",
    "fine_label": "its finer labels",
    "markers": "marker genes",
}
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


def file_section(found: Artefacts) -> dict[str, Any]:
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
        "expression": fact_value(found, "expression"),
        "scale": str(fact_value(found, "scale") or "unknown").replace("_", " "),
        "organism": fact_value(found, "organism"),
        "notes": [str(note) for note in found.facts.get("notes", [])],
        "gene_notes": _sentence(str(found.s.uns.get(keys.UNS, {}).get("gene_notes", ""))),
    }


def _sentence(text: str) -> str:
    return text if not text or text.rstrip().endswith((".", "!", "?")) else f"{text.rstrip()}."


def quality_section(found: Artefacts, *, figures: bool) -> dict[str, Any]:
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
        rows = 1 if sample is None else min(MAX_SAMPLES, found.s.obs[sample].nunique())

        def draw(figure: MplFigure) -> object:
            axes = figure.subplots(len(measured), 1, squeeze=False).ravel()
            return plots.qc(
                found.s,
                groupby=sample,
                metrics=measured,
                limits=limits,
                max_groups=MAX_SAMPLES,
                ax=list(axes),
            )

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
        "has_doublets": "doublet_mixed_lineage" in found.s.obs and plots.has_counts(found.s),
        "has_counts": plots.has_counts(found.s) and bool(measured),
        "reasons": table_of(
            counted(reasons, ("reason", "n_cells")),
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
        value = fact_value(found, name)
        if isinstance(value, str) and value in found.s.obs:
            return value
    return None


def lineages_section(found: Artefacts, *, figures: bool) -> dict[str, Any]:
    lineage, subset = found.obs(keys.OBS_LINEAGE), found.obs(keys.OBS_LINEAGE_SUBSET)
    # of T cells what their genes resolve where the label leaves it open, as in the sections on T cells
    t_subset = found.obs(keys.OBS_T_SUBSET)
    subset = np.where([name is None for name in t_subset], subset, t_subset)
    source = found.obs(keys.OBS_LINEAGE_SOURCE)
    rows = []
    for name in keys.LINEAGES:
        here = lineage == name
        if here.any():
            kinds = counted(subset[here], ("subset", "n"))
            text = ", ".join(
                f"{clean_label(k, limit=30)} {n:,}"
                for k, n in zip(kinds["subset"].head(8), kinds["n"].head(8), strict=True)
            )
            rows.append(
                (LINEAGE_NAMES[name], int(here.sum()), int((here & found.passed).sum()), text)
            )
    has_lineage = np.array([v is not None for v in lineage], dtype=bool)
    nowhere = int((~has_lineage).sum())
    frame = pd.DataFrame(rows, columns=["lineage", "n_cells", "n_qc_pass", "subsets"])
    labels = found.table("labels.tsv")
    pictures = []
    if figures and rows:
        key = plots.group_key(found.s, None, *(n for n in ("donor", "sample")))
        groups = 1 if key is None else min(plots.MAX_GROUPS, found.s.obs[key].nunique()) + 1
        pictures.append(
            picture(
                single(lambda ax: plots.lineages(found.s, ax=ax)),
                height=1.5 + 0.27 * groups,
                alt="Share of each lineage, one bar per donor or sample.",
                caption="One bar per donor (or sample): which share of its cells belongs to "
                "each lineage. The number beside a bar is its cells. Shares depend on how the "
                "sample was sorted and digested as much as on biology.",
            )
        )
        if has_embedding(found):
            pictures.append(
                picture(
                    single(lambda ax: plots.embedding(found.s, color=keys.OBS_LINEAGE, ax=ax)),
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
            (_SOURCES.get(str(k), str(k)), int(n))
            for k, n in counted(source[has_lineage], ("s", "n")).itertuples(index=False, name=None)
        ],
        "labels": None
        if labels is None
        else table_of(labels, "How the file's labels were read", folded=True, file="labels.tsv"),
        "pictures": pictures,
    }


def scores_section(found: Artefacts, *, figures: bool) -> dict[str, Any]:
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
            shown = [n for n in role_names if is_scored(found, n)]
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


def signature_facts(found: Artefacts, name: str) -> dict[str, Any]:
    """What is said about one signature beside its numbers."""
    row = found.s.var.loc[name]
    return {
        "name": name,
        "title": str(row["title"]),
        "scored": is_scored(found, name),
        "reason": why_not(found, name),
        "warning": str(row["warning"]),
        "found": int(row["n_found"]),
        "genes": int(row["n_genes"]),
    }


def support_of_others(found: Artefacts) -> dict[str, Any] | None:
    """The signature that must agree before a cell of another lineage is called."""
    from senoscore import calling

    return signature_facts(found, calling.CORE) if calling.CORE in found.s.var.index else None


def other_lineages_section(found: Artefacts) -> list[dict[str, Any]]:
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
        own_signature = calling.OTHER_LINEAGES.get(name, "")
        signatures = [own_signature] if own_signature in found.s.var.index else []
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
                "warning": call_warning(found, name),
                "signatures": [signature_facts(found, n) for n in signatures],
                "rules": table_of(
                    counted(rule[here], ("rule", "n_cells")), "Which rule decided", folded=True
                ),
            }
        )
    return parts


def call_warning(found: Artefacts, lineage: str) -> str:
    """What else a senescence call of a lineage may mean, as the run wrote it beside its cells."""
    texts = found.obs("senescence_warning")[found.obs(keys.OBS_LINEAGE) == lineage]
    return " ".join(sorted({str(text) for text in texts if text}))


def rule_lines(found: Artefacts) -> list[str]:
    """The rule of the calls in words, with the run's thresholds, line by line."""
    text = str(found.s.uns.get(keys.UNS, {}).get("rule", ""))
    return [line.strip() for line in text.split("\n") if line.strip()]


def donors_section(found: Artefacts, *, figures: bool) -> dict[str, Any]:
    names = donors_of(found)
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
                single(lambda ax: plots.burden(table, condition=conditions, ax=ax)),
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
            table,
            "Donors by lineage" if names else "All cells by lineage",
            columns=shown if names else shown[1:],
            file="donors.tsv",
            folded=len(table) > 30,
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
    donor, condition = fact_value(found, "donor"), fact_value(found, "condition")
    if not (isinstance(donor, str) and isinstance(condition, str)):
        return {}
    if donor not in found.s.obs or condition not in found.s.obs:
        return {}
    pairs = found.s.obs[[donor, condition]].astype(object).dropna().drop_duplicates()
    if pairs[donor].duplicated().any():
        return {}
    return {str(a): str(b) for a, b in pairs.itertuples(index=False, name=None)}


def targets_table(found: Artefacts) -> Table | None:
    table = found.table("targets.tsv")
    if table is None:
        return None
    return table_of(
        table, "Targets of senolytic and senomorphic strategies", file="targets.tsv",
        folded=len(table) > 30,
    )  # fmt: skip


_SHOWN_ELSEWHERE: Final = (
    "calibration.tsv", "coverage.tsv", "donors.tsv", "labels.tsv", "lineages.tsv", "pooled.tsv",
    "t_cells_exhausted.tsv", "t_cells_senescent.tsv",
    "certificate.tsv", "targets.tsv", "agreement.tsv",
    "protein_audit.tsv",
)  # fmt: skip


def further_tables(found: Artefacts) -> list[Table]:
    """Tables that no section knows, as they are."""
    return [
        table_of(table, name, file=name, folded=True)
        for name, table in found.tables.items()
        if name not in _SHOWN_ELSEWHERE
        and "/" not in name
        and len(table)
        and not _is_comparison(table)
    ]


def _is_comparison(table: pd.DataFrame) -> bool:
    return {"term", "level", "reference", "measure", "effect", "padj"} <= set(table.columns)


def comparisons_section(found: Artefacts, *, figures: bool) -> list[dict[str, Any]]:
    """Comparisons of conditions and ages, wherever the folder has one; those made, and pictures."""
    return [
        {
            "n_made": int(table["effect"].notna().sum()),
            "n_found": int((table["padj"] <= 0.05).sum()),
            "reasons": [str(note) for note in table["note"].dropna().unique() if note][:3]
            if "note" in table
            else [],
            "figures": _forests(table) if figures else [],
            "table": table_of(
                table.sort_values("pvalue", kind="stable", na_position="last"),
                "Conditions and ages compared",
                columns=[
                    "term", "level", "reference", "lineage", "measure", "name", "effect",
                    "effect_low", "effect_high", "unit", "pvalue", "padj", "n_donors",
                    "n_donors_reference", "note",
                ],
                headings={"n_donors": "donors", "n_donors_reference": "donors of reference",
                          "effect_low": "from", "effect_high": "to", "padj": "false-discovery rate"},
                file=name,
                folded=len(table) > 40,
            ),
        }
        for name, table in found.tables.items()
        if len(table) and _is_comparison(table)
    ]  # fmt: skip


def _forests(table: pd.DataFrame, limit: int = 15) -> list[Picture]:
    """Per unit the effects with the smallest p, with their intervals."""
    made = []
    for unit in dict.fromkeys(table.loc[table["effect"].notna(), "unit"].astype(str)):
        of = table[(table["unit"].astype(str) == unit) & table["effect"].notna()]
        rows = of.sort_values("pvalue", kind="stable").head(limit)
        made.append(
            picture(
                single(partial(_forest, rows, unit)),
                height=0.9 + 0.4 * len(rows),
                alt=f"Effects in {unit} with their intervals, {len(rows)} of {len(of)}.",
                caption=f"Effects in {unit}: the {len(rows)} of {len(of)} with the smallest p, each "
                "with its confidence interval. Filled: false-discovery rate at most 5 %. They were "
                "chosen for their p: the filled ones are likely smaller than they look here.",
            )
        )
    return made


def _forest(rows: pd.DataFrame, unit: str, ax: Axes) -> None:
    place = np.arange(len(rows))
    effect, low, high = (
        rows[c].to_numpy(np.float64) for c in ("effect", "effect_low", "effect_high")
    )
    found = rows["padj"].to_numpy(np.float64) <= 0.05
    ax.axvline(0, color="#000000", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.hlines(place, low, high, color="#777777", linewidth=1.2)
    colors = np.where(found, "#0072B2", "#FFFFFF")
    ax.scatter(effect, place, s=26, c=colors, edgecolor="#333333", linewidth=0.6, zorder=3)
    plots.write_y(
        ax,
        [
            # of two lines, so that neither has to be cut to what says nothing
            plots.clean_label(f"{lineage} {name}", limit=46)
            + "\n"
            + plots.clean_label(f"{level or term}, {measure.replace('_', ' ')}", limit=46)
            for term, level, lineage, name, measure in zip(
                *(rows[c].astype(str) for c in ("term", "level", "lineage", "name", "measure")),
                strict=True,
            )
        ],
    )
    ax.set_xlabel(plots.clean_label(f"effect ({unit})"), parse_math=False)


def coverage_section(found: Artefacts, *, figures: bool) -> dict[str, Any]:
    var = found.s.var.copy()
    frame = var.rename_axis("signature").reset_index()
    scored = var["status"].astype(str) == "scored"
    made = None
    decisive = var["role"].astype(str).isin(["axis", "arm", "lineage", "user"])
    names = [str(n) for n in var.index[decisive]]
    if figures and names:
        made = picture(
            single(lambda ax: plots.coverage(found.s, signatures=names, ax=ax)),
            height=0.9 + 0.2 * min(80, len(names)),
            alt=f"Coverage of the {len(names)} signatures that take part in calls.",
            caption="How much of the voting weight the file measures, for the signatures that "
            "take part in calls. Grey: not scored. Dashed: the least that is asked for. Beside "
            "the bars: genes found of genes that vote. The table holds all signatures.",
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


def certificate_section(found: Artefacts) -> dict[str, Any]:
    """What became of the calls when cells lost molecules."""
    table = found.table("certificate.tsv")
    if table is None:
        return {"sentences": [], "table": None}
    from senoscore.certificate import ALL_CALLS, sentences

    return {
        "sentences": sentences(table),
        "table": table_of(
            table[table["n_cells"] > 0],
            f"Call by call (the rows “{ALL_CALLS}” hold every call but indeterminate)",
            columns=[
                "depth", "lineage", "call", "state", "n_cells", "n_kept", "n_indeterminate",
                "n_flipped", "flipped_to",
            ],
            headings={"n_kept": "stand", "n_indeterminate": "become indeterminate",
                      "n_flipped": "change", "flipped_to": "into"},
            file="certificate.tsv",
            folded=True,
        ),
    }  # fmt: skip


def calibration_section(found: Artefacts, *, figures: bool) -> dict[str, Any]:
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
            "standard errors; depth is counts, or genes where the file has no counts. Below: observed against nominal p from .5 to .0001; honest "
            "p-values lie on the dashed line, above it they call too much.",
        )
    return {
        "figure": made,
        "table": table_of(
            table,
            "Lineage by depth",
            file="calibration.tsv",
            folded=True,
            max_rows=100,
            columns=[
                c
                for c in table
                if not str(c).startswith(("spearman", "se_")) or c in ("se_0.05", "se_0.01")
            ],
        ),
        "depth": None
        if depth is None
        else table_of(
            depth,
            "Do scores follow depth?",
            columns=["lineage", "n_sets", "spearman_z_depth", "se_spearman_z_depth"],
            note="Mean over random sets of the correlation between z and depth. Near 0: deep "
            "cells do not score higher just for being deep.",
        ),  # fmt: skip
    }


def provenance_section(found: Artefacts) -> dict[str, Any]:
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

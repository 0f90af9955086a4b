"""The answer in words: first sentences, what must not be read into them, the large numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from senoscore import keys, plots
from senoscore.plots import percent
from senoscore.report._artefacts import Artefacts, fact_value


def headline(
    found: Artefacts, t: Mapping[str, Any], others: Sequence[Mapping[str, Any]]
) -> list[str]:
    sentences = []
    if not t["n"]:
        sentences.append(
            f"No T cell was identified among {found.s.n_obs:,} cells: T-cell exhaustion and senescence "
            "cannot be judged in this file."
        )
    elif not t["n_passed"]:
        sentences.append(f"None of {t['n']:,} T cells passed quality control: none can be judged.")
    else:
        passed, n = t["passed"], t["n_passed"]

        def share(state: str) -> str:
            return f"{passed[state]:,} ({percent(passed[state], n)})" if passed[state] else "none"

        sentences.append(
            f"{n:,} T cells passed quality control. Called exhausted: {share('exhausted')}. "
            f"Called senescent: {share('senescent')}. Both: {share('both')}."
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
    elif any(p["not_senescent"] for p in others):
        sentences.append("No cell of another lineage is called senescent.")
    elif others:
        sentences.append("No cell of another lineage could be judged.")
    return sentences


def cautions(found: Artefacts, t: Mapping[str, Any], donors: Mapping[str, Any]) -> list[str]:
    """What must not be read into the numbers of this file."""
    texts = []
    lost = sum(v is None for v in found.obs(keys.OBS_LINEAGE))
    if lost >= 0.2 * found.s.n_obs:
        texts.append(
            f"{lost:,} of {found.s.n_obs:,} cells have no lineage: neither labels nor markers say "
            "what they are, so that they are not scored. Name the column of cell types in the "
            "config (dataset.cell_type) if there is one."
        )
    if not np.isfinite(np.asarray(found.s.X)).any():
        reasons = {str(r) for r in found.s.var.get("reason", ()) if r}
        texts.append(
            f"No signature could be scored: {next(iter(reasons))}."
            if len(reasons) == 1
            else "No signature could be scored; the section on signatures says why for each."
        )
    elif t["n"]:
        texts += [
            f"{label[0].upper()}{label[1:]} is not scored: {why}. No cell can be called by it."
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
        nothing = [
            state
            for state, axis in (
                ("exhausted", "the exhaustion axis"),
                ("senescent", "the senescence axis"),
            )
            if not t["counts"][state]
            and not t["counts"]["both"]
            and share < 1
            and axis not in {label for label, _ in t["unscored"]}
        ]
        if nothing:
            texts.append(
                f"No T cell is called {' or '.join(nothing)}: none stands out at this "
                "false-discovery rate. That does not show that there are none."
            )
    if not donors["names"]:
        texts.append(
            "The file names no donors. Cells of one person are not independent, so groups cannot "
            "be compared."
        )
    elif donors["n"] < 3:
        word = "one donor" if donors["n"] == 1 else f"{donors['n']} donors"
        texts.append(f"Only {word}: what is seen here may be the donor, not the condition.")
    if fact_value(found, "suspension_type") == "nucleus":
        texts.append("These are nuclei: markers whose RNA is mostly outside the nucleus are low.")
    return texts


def tiles(found: Artefacts, t: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    tiles = [
        (f"{found.s.n_obs:,}", "cells", ""),
        (f"{int(found.passed.sum()):,}", "passed quality control", ""),
        (f"{t['n_passed']:,}", "T cells that passed", ""),
    ]
    if t["n"]:
        tiles += [
            (f"{t['passed'][name]:,}", name.replace("_", "-"), plots.T_STATE_COLORS[name])
            for name in ("exhausted", "senescent", "both", "senescent_like", "indeterminate")
        ]
    return tiles

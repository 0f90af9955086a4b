"""The sections on T cells: all states, then the exhausted and the senescent by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from senoscore import keys, plots
from senoscore.plots import percent
from senoscore.report._artefacts import (
    Artefacts,
    counted,
    donors_of,
    fact_value,
    has_embedding,
    is_scored,
    why_not,
)
from senoscore.report._page import Picture, cell_text, picture, single, table_of

STATE_MEANING: Final[Mapping[str, str]] = {
    "exhausted": "The exhaustion programme stands out. Not given to regulatory T cells.",
    "senescent": (
        "The senescence axis stands out, the surface phenotype with it, and the supporting arms "
        "(cell-cycle arrest, lost T-cell-receptor signalling, SASP) say so too."
    ),
    "both": "Exhausted and senescent by the two rules above: the two states can coexist.",
    "senescent_like": (
        "The surface phenotype (CD27 and CD28 lost; KLRG1, CD57, CD16 gained) without that "
        "support. The ordinary TEMRA cell looks the same, so this is not called senescent."
    ),
    "cycling": "S or G2M programme: a dividing cell is not senescent.",
    "neither": "Deep enough to have been called, and no programme stands out.",
    "indeterminate": (
        "Cannot be judged: too few counts for a programme to be seen, a doublet, genes missing, or "
        "failed quality control. It does not mean healthy."
    ),
}


_CARRYING: Final = "frac_exhausted_with_senescence"
_KINDS: Final = {"exhausted": ("progenitor", "terminal"), "senescent": ("sasp_high", "nk_like")}


def _subset_name(name: str) -> str:
    return "T (subset not resolved)" if name == "T" else name


def t_cells_section(found: Artefacts, *, figures: bool) -> dict[str, Any]:
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
                _subset_name(name),
                int((good & (subset == name)).sum()),
                *(int((good & (subset == name) & (state == k)).sum()) for k in keys.T_STATES),
            )
            for name in subsets
        ],
        columns=["T-cell subset", "n_qc_pass", *keys.T_STATES],
    )
    rules = counted(
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
        (label, why_not(found, name))
        for label, name in (
            ("the exhaustion axis", calling.AXIS_SIGNATURES["exhaustion"][0]),
            ("the senescence axis", calling.AXIS_SIGNATURES["senescence"][0]),
            ("the surface phenotype of senescence", calling.PHENOTYPE),
            *((f"the {arm} arm", name) for arm, name in calling.SUPPORT_ARMS.items()),
        )
        if not is_scored(found, name)
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
                    single(lambda ax: plots.t_states(found.s, ax=ax)),
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
        if has_embedding(found):
            pictures.append(
                picture(
                    single(lambda ax: plots.embedding(found.s, color=keys.OBS_T_STATE, ax=ax)),
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
        "arms_lost": [label for label, _ in unscored if label.endswith(" arm")],
        "n_arms": len(calling.SUPPORT_ARMS),
        "pictures": pictures,
    }


def _marker_picture(found: Artefacts, state: str) -> Picture | None:
    if found.panel is None or not (found.obs(keys.OBS_LINEAGE) == "T").any():
        return None
    organism = str(fact_value(found, "organism") or "human")
    groups = plots.marker_groups(state, organism=organism)
    n_rows = sum(map(len, groups.values())) + 0.9 * len(groups)
    panel = found.panel
    return picture(
        single(lambda ax: plots.markers(found.s, panel, state=state, genes=groups, ax=ax)),
        height=1.2 + 0.2 * n_rows,
        alt=f"Dot plot of the markers of {state} T cells in every T-cell state.",
        caption="Columns are T-cell states with their numbers of cells, rows genes; ↓ marks "
        "genes that the state is expected to lose. The larger a dot, the more cells have at "
        "least one count; the darker, the higher the mean. In a column of few cells a dot says "
        "little. Genes of the voting groups made the call, so that they must differ; the other "
        "groups are the independent look.",
    )


def _carrying(found: Artefacts) -> dict[str, Any] | None:
    """Of the exhausted T cells the share that carries senescence too, called or not."""
    table = found.table("lineages.tsv")
    if table is None or _CARRYING not in table:
        return None
    own = table[table["lineage"].astype(str) == "T"]
    if not len(own) or not np.isfinite(own[_CARRYING].iloc[0]):
        return None
    ends = {"share": _CARRYING, "low": f"{_CARRYING}_low", "high": f"{_CARRYING}_high"}
    texts = {name: cell_text(own[column].iloc[0], column) for name, column in ends.items()}
    return {"some": bool(own[_CARRYING].iloc[0] > 0), **texts}


def t_state_section(found: Artefacts, state: str, *, figures: bool) -> dict[str, Any]:
    """What the exhausted and the senescent section have in common."""
    from senoscore import calling

    is_t = found.obs(keys.OBS_LINEAGE) == "T"
    states, subset = found.obs(keys.OBS_T_STATE), found.obs(keys.OBS_T_SUBSET)
    good = is_t & found.passed
    here = np.isin(states, [state, "both"])
    rows = []
    for name in sorted({str(v) for v in subset[is_t] if v}):
        n = int((good & (subset == name)).sum())
        alone = int(((states == state) & (subset == name)).sum())
        two = int(((states == "both") & (subset == name)).sum())
        rows.append((_subset_name(name), n, alone, two, percent(alone + two, n)))
    by_subset = pd.DataFrame(rows, columns=["T-cell subset", "n_qc_pass", state, "both", "share"])
    donors = found.table("donors.tsv")
    by_donor = None
    carrying = [f"{_CARRYING}{end}" for end in ("", "_low", "_high") if state == "exhausted"]
    if donors is not None and donors_of(found):
        own = donors[donors["lineage"].astype(str) == "T"]
        by_donor = table_of(
            own,
            f"{state.capitalize()} T cells by donor",
            columns=[
                "donor", "n_cells", "n_qc_pass", f"n_t_{state}", "n_t_both", f"frac_t_{state}",
                f"frac_t_{state}_low", f"frac_t_{state}_high", *carrying, "note",
            ],
            note=f"Share: cells called {state} (without both) of the donor's T cells that passed "
            "quality control, with the interval of that share. It says how well this donor's "
            "cells determine the share, not how much donors differ.",
            file="donors.tsv",
        )  # fmt: skip
    deciding = calling.AXIS_SIGNATURES["exhaustion" if state == "exhausted" else "senescence"]
    blocked = next((why_not(found, n) for n in deciding if not is_scored(found, n)), "")
    listed = found.table(f"t_cells_{state}.tsv")
    kinds = counted(found.obs("t_substate")[here], ("kind", "n_cells"))
    kinds = kinds[kinds["kind"].isin(_KINDS[state])].reset_index(drop=True)
    axis = {"exhausted": "T_exhaustion", "senescent": "T_senescence"}[state]
    return {
        "state": state,
        "n": int((states == state).sum()),
        "n_both": int((states == "both").sum()),
        "n_passed": int(good.sum()),
        "share": percent(int((states == state).sum()), int(good.sum())),
        "carrying": _carrying(found),
        "rules": table_of(
            counted(found.obs(keys.OBS_T_STATE_RULE)[here], ("rule", "n_cells")),
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
        "blocked": blocked,
        "warnings": _warnings_of_state(found, state),
        "markers": _marker_picture(found, state) if figures else None,
    }


def _warnings_of_state(found: Artefacts, state: str) -> list[str]:
    from senoscore import calling

    names = (
        (*calling.AXIS_SIGNATURES["exhaustion"], calling.PROGENITOR, calling.TERMINAL)
        if state == "exhausted"
        else (
            *calling.AXIS_SIGNATURES["senescence"],
            calling.PHENOTYPE,
            *calling.SUPPORT_ARMS.values(),
        )
    )
    var = found.s.var
    texts = [
        (str(var.loc[n, "title"]) or n, str(var.loc[n, "warning"]))
        for n in names
        if n in var.index and "warning" in var and str(var.loc[n, "warning"])
    ]
    return [f"{title}: {text}" for title, text in texts]

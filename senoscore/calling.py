"""From scores to calls: the T-cell verdict and the senescence calls of the other lineages.

Everything here works on tables of z and adjusted p-values, one row per cell. A call is a rule that
can be printed; `t_state_rule` prints the one that fired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2

from senoscore import keys
from senoscore.adjust import Adjust, Curve, Thresholds, adjust_among
from senoscore.settings import CallSettings

# axis -> signatures; the z of an axis of several signatures is the largest of them
AXIS_SIGNATURES: Final[Mapping[str, tuple[str, ...]]] = {
    "senescence": ("t_discriminating_senescence_only",),
    "exhaustion": ("t_axis_exhaustion",),
    "cytotoxic": ("conf_temra_effector",),
    "proliferation": ("conf_proliferation_s", "conf_proliferation_g2m"),
    "interferon": ("conf_interferon",),
    "stress": ("conf_dissociation",),
}
PHENOTYPE: Final = "t_arm_phenotype"
SUPPORT_ARMS: Final[Mapping[str, str]] = {
    "arrest": "t_arm_arrest",
    "TCR-signalling loss": "t_arm_tcr_loss",
    "SASP": "t_arm_sasp",
}
# CDKN1A answers to interferon and to the stress of dissociation, cytokines to both: with those
# programmes on, these arms are no evidence
EXPLAINED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "arrest": ("interferon", "stress"),
    "SASP": ("interferon", "stress"),
    "TCR-signalling loss": (),
}
OTHER_LINEAGES: Final[Mapping[str, str]] = {
    "B": "b_senescence",
    "NK": "nk_senescence",
    "mono_mac": "macrophage_senescence",
    "neutrophil": "neutrophil_senescence",
    "DC": "dc_senescence",
    "other": "other_senescence",
}
# what the reviews give for these is mostly lost function and activation genes
LOW_CONFIDENCE: Final = ("neutrophil", "DC")
# ... and for DC only functions lost on stimulation, which resting cells do not show either way: the
# signature is reported and calls nothing
NEVER_CALLED: Final = ("DC",)
CORE: Final = "core_senescence"
NOMINAL: Final = 0.05
SUPPORT_NOMINAL: Final = 0.1
# z of the lost stemness programme (CCR7, LEF1, TCF7, BACH2, IL7R, FOXO1 down) below which a cell
# has kept it: a naive cell, not a senescent one
STEMNESS: Final = "stemness_loss"
KEPT: Final = -1.0
PROGENITOR, TERMINAL = "t_exhaustion_progenitor", "t_exhaustion_terminal"
PROMOTING, INHIBITING = "dual_tumour_promoting", "dual_tumour_inhibiting"
# T subsets whose ordinary programme looks like an arm or an axis
INNATE_LIKE: Final = "innate_like"
TREG: Final = "Treg"


@dataclass(frozen=True)
class Tables:
    """z and adjusted p of the cells, columns = signatures; a signature not scored is all NaN."""

    z: pd.DataFrame
    pvalue: pd.DataFrame
    padj: pd.DataFrame

    def __getitem__(self, signature: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if signature not in self.z:
            nothing = np.full(len(self.z), np.nan)
            return nothing, nothing
        return self.z[signature].to_numpy(np.float64), self.padj[signature].to_numpy(np.float64)

    def p(self, signature: str) -> NDArray[np.float64]:
        """p of one signature."""
        if signature not in self.pvalue:
            return np.full(len(self.z), np.nan)
        return np.asarray(self.pvalue[signature].to_numpy(np.float64))


def t_axes(tables: Tables, is_t: NDArray[np.bool_]) -> pd.DataFrame:
    """Z of the six axes, NaN outside T cells."""
    axes = {}
    for axis, signatures in AXIS_SIGNATURES.items():
        stacked = np.vstack([tables[s][0] for s in signatures])
        known = ~np.isnan(stacked).all(axis=0)
        value = np.full(len(is_t), np.nan)
        value[known] = np.nanmax(stacked[:, known], axis=0)
        value[~is_t] = np.nan
        axes[axis] = value
    return pd.DataFrame(axes, index=tables.z.index, columns=list(keys.AXES))


def _any_below(tables: Tables, axis: str, level: float) -> NDArray[np.bool_]:
    """Whether any signature of an axis is significant. NaN is not."""
    return np.asarray(np.logical_or.reduce([tables[s][1] <= level for s in AXIS_SIGNATURES[axis]]))


def _in_doubt(what: str, settings: CallSettings) -> str:
    return f"{what} at FDR {settings.doubt_fdr:g}, not at {settings.fdr:g}: neither called nor ruled out"


def support_padj(
    tables: Tables,
    candidates: NDArray[np.bool_],
    settings: CallSettings,
    adjust: Adjust = adjust_among,
) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    """Evidence of the support arms among the candidates.

    Fisher's combination of the p-values of the arms that nothing else explains (they share no
    gene, so that their nulls are independent), adjusted over the candidates alone (`adjust`).
    Returns padj and the name of the strongest arm.
    """
    n = len(candidates)
    p = np.full((len(SUPPORT_ARMS), n), np.nan)
    for k, (arm, signature) in enumerate(SUPPORT_ARMS.items()):
        own = tables.p(signature).copy()
        for axis in EXPLAINED_BY[arm]:
            own[_any_below(tables, axis, settings.fdr)] = np.nan
        p[k] = own
    p[:, ~candidates] = np.nan
    tested = (~np.isnan(p)).sum(axis=0)
    known = tested > 0
    combined = np.full(n, np.nan)
    combined[known] = chi2.sf(-2 * np.nansum(np.log(p[:, known]), axis=0), 2 * tested[known])
    arms = np.full(n, "", dtype=object)
    if known.any():
        arms[known] = np.asarray(list(SUPPORT_ARMS), dtype=object)[
            np.nanargmin(p[:, known], axis=0)
        ]
    q = adjust("support", combined)
    # where nearly all candidates are true the adjusted value of a middling p is small, too; the
    # candidates were selected by genes that include the arms', so some evidence is asked of each
    q[combined > SUPPORT_NOMINAL] = 1.0
    return q, arms


def t_states(
    tables: Tables,
    *,
    lineage: NDArray[np.object_],
    t_subset: NDArray[np.object_],
    qc_pass: NDArray[np.bool_],
    doublet: NDArray[np.bool_],
    powered: Mapping[str, NDArray[np.bool_]],
    settings: CallSettings,
    adjust: Adjust = adjust_among,
) -> pd.DataFrame:
    """The verdict for every T cell: one of seven states, and the rule that gave it.

    A *candidate* for senescence has the senescence axis significant (all its genes together), the
    phenotype arm at p <= .05, and has not kept the naive programme; it is senescent if the support
    arms (arrest, TCR-signalling loss, SASP) say so too. Order of the rules, the first that applies decides:

    1. failed quality control, or a mixed-lineage doublet: ``indeterminate``
    2. exhaustion axis significant (not in Treg, whose identity it resembles) and senescent: ``both``;
       exhaustion without senescence: ``exhausted``
    3. S or G2M programme significant: ``cycling``, which vetoes senescence
    4. candidate with support: ``senescent``; without, or phenotype arm significant alone, which is
       also the ordinary TEMRA cell: ``senescent_like`` (not in innate-like cells, whose ordinary
       phenotype it is)
    5. an axis could not be scored (genes not measured): ``indeterminate``
    6. nothing significant, and too shallow for it to have been: ``indeterminate``
    7. exhausted, a candidate, or the phenotype arm significant, all at `doubt_fdr` only:
       ``indeterminate``, for what cannot be called is not ruled out either
    8. ``neither``

    Parameters
    ----------
    powered
        Per axis (``exhaustion``, ``senescence``): whether a cell of this depth would have
        reached significance had it carried the programme.
    adjust
        How p-values among candidates are adjusted; a run's own way, unless its curves are held
        fixed (`adjust.Frozen`).

    Returns
    -------
    DataFrame
        ``t_state`` (categories `keys.T_STATES`, NaN outside T), ``t_state_rule``,
        ``t_substate`` (progenitor or terminal inside exhausted; sasp_high or nk_like inside
        senescent; else empty).
    """
    n = len(lineage)
    is_t = lineage == "T"
    treg, innate = t_subset == TREG, t_subset == INNATE_LIKE
    fdr = settings.fdr
    _, exhaustion_q = tables[AXIS_SIGNATURES["exhaustion"][0]]
    _, phenotype_q = tables[PHENOTYPE]
    valid = is_t & qc_pass & ~doublet
    exhausted = valid & (exhaustion_q <= fdr) & ~treg
    assessed = valid & ~innate & ~treg
    _, senescence_q = tables[AXIS_SIGNATURES["senescence"][0]]
    naive = tables[STEMNESS][0] <= KEPT
    eligible = assessed & (tables.p(PHENOTYPE) <= NOMINAL) & ~naive
    candidate = eligible & (senescence_q <= fdr)
    phenotype = (assessed & (phenotype_q <= fdr)) | candidate
    cycling = valid & _any_below(tables, "proliferation", fdr)
    support_q, arm = support_padj(tables, candidate, settings, adjust)
    senescent = candidate & (support_q <= settings.support_fdr) & ~cycling
    scored = ~np.isnan(exhaustion_q) & ~np.isnan(senescence_q)

    state = np.full(n, None, dtype=object)
    rule = np.full(n, "", dtype=object)

    def put(cells: NDArray[np.bool_], value: str, why: str | NDArray[np.object_]) -> None:
        free = cells & is_t & (rule == "")
        state[free] = value
        rule[free] = why[free] if isinstance(why, np.ndarray) else why

    with_arm = np.full(n, "", dtype=object)
    with_arm[senescent] = [
        f"senescence axis (FDR {fdr:g}), phenotype arm, support of {a}" for a in arm[senescent]
    ]
    both = with_arm.copy()
    both[senescent] = [f"exhaustion axis (FDR {fdr:g}), {w}" for w in with_arm[senescent]]
    put(~qc_pass, "indeterminate", "failed quality control")
    put(doublet, "indeterminate", "mixed-lineage doublet")
    put(exhausted & senescent, "both", both)
    put(exhausted & cycling, "exhausted", f"exhaustion axis (FDR {fdr:g}), cycling")
    put(
        exhausted & phenotype,
        "exhausted",
        f"exhaustion axis (FDR {fdr:g}); phenotype arm without support",
    )
    put(exhausted, "exhausted", f"exhaustion axis (FDR {fdr:g})")
    put(cycling, "cycling", f"S or G2M programme (FDR {fdr:g}) vetoes senescence")
    put(senescent, "senescent", with_arm)
    put(
        phenotype, "senescent_like",
        f"phenotype arm without support (FDR {fdr:g}): also the ordinary TEMRA cell",
    )  # fmt: skip
    put(~scored, "indeterminate", "an axis could not be scored")
    put(treg, "neither", "regulatory T cell: exhaustion and senescence not assessed")
    shallow = ~powered["exhaustion"] | (~powered["senescence"] & ~innate)
    put(shallow, "indeterminate", "too shallow for either programme to reach significance")
    doubt = settings.doubt_fdr
    doubtful = valid & ~treg & (exhaustion_q <= doubt)
    lean = (tables.p(PHENOTYPE) <= doubt) & ~naive
    doubtful |= assessed & ((phenotype_q <= doubt) | ((senescence_q <= doubt) & lean))
    put(doubtful, "indeterminate", _in_doubt("a programme", settings))
    put(
        innate,
        "neither",
        "innate-like T cell: phenotype arm not used, exhaustion axis not significant",
    )
    put(is_t, "neither", f"no programme significant (FDR {fdr:g})")

    substate = np.full(n, "", dtype=object)
    progenitor, terminal = tables[PROGENITOR][0], tables[TERMINAL][0]
    in_exhausted = (state == "exhausted") | (state == "both")
    split = in_exhausted & ~np.isnan(progenitor) & ~np.isnan(terminal)
    substate[split] = np.where(progenitor[split] > terminal[split], "progenitor", "terminal")
    promoting, inhibiting = tables[PROMOTING][0], tables[INHIBITING][0]
    in_senescent = (state == "senescent") & ~np.isnan(promoting) & ~np.isnan(inhibiting)
    substate[in_senescent] = np.where(
        promoting[in_senescent] > inhibiting[in_senescent], "sasp_high", "nk_like"
    )
    return pd.DataFrame(
        {
            keys.OBS_T_STATE: pd.Categorical(state, categories=list(keys.T_STATES)),
            keys.OBS_T_STATE_RULE: rule,
            "t_substate": substate,
        },
        index=tables.z.index,
    )


def senescence_calls(
    tables: Tables,
    *,
    lineage: NDArray[np.object_],
    t_state: pd.Series,
    qc_pass: NDArray[np.bool_],
    doublet: NDArray[np.bool_],
    powered: NDArray[np.bool_],
    settings: CallSettings,
    adjust: Adjust = adjust_among,
) -> pd.DataFrame:
    """senescent, not_senescent or indeterminate for every cell of every lineage.

    T cells follow their state. Other lineages: the lineage's own signature significant, no cycling
    programme, and support from core senescence (adjusted over the candidates, `adjust`). A
    signature without that support, or beside an interferon or stress response that explains it
    (CD38, CD40 and CDKN1A answer to both), leaves the cell ``indeterminate``, and so does one that
    is significant at `doubt_fdr` only.

    Returns
    -------
    DataFrame
        ``senescence_call`` (categories `keys.SENESCENCE_CALLS`, NaN for cells without a lineage)
        and ``senescence_rule``.
    """
    n = len(lineage)
    call = np.full(n, None, dtype=object)
    rule = np.full(n, "", dtype=object)
    state = t_state.astype(object).to_numpy()
    fdr = settings.fdr
    is_t = lineage == "T"
    call[is_t] = "not_senescent"
    call[is_t & np.isin(state, ["senescent", "both"])] = "senescent"
    call[is_t & (state == "indeterminate")] = "indeterminate"
    rule[is_t] = np.asarray([f"T-cell state {s}" for s in state[is_t]], dtype=object)
    cycling = _any_below(tables, "proliferation", fdr)
    explained = _any_below(tables, "interferon", fdr) | _any_below(tables, "stress", fdr)
    for name, signature in OTHER_LINEAGES.items():
        here = lineage == name
        if not here.any():
            continue
        _, q = tables[signature]
        positive = here & qc_pass & ~doublet & (q <= fdr)
        candidate = positive & ~cycling & ~explained
        support = adjust(f"{CORE} in {name}", np.where(candidate, tables.p(CORE), np.nan))
        weak = "; low-confidence signature" if name in LOW_CONFIDENCE else ""
        outcomes = (
            (~qc_pass, "indeterminate", "failed quality control"),
            (doublet, "indeterminate", "mixed-lineage doublet"),
            (np.isnan(q), "indeterminate", f"{signature} not scored"),
            (positive & cycling, "not_senescent", f"{signature}, but cycling"),
            (positive & explained, "indeterminate",
             f"{signature} beside an interferon or stress response"),
            (candidate & (name in NEVER_CALLED), "indeterminate",
             f"{signature} (FDR {fdr:g}): evidence too weak to call{weak}"),
            (candidate & (support <= settings.support_fdr), "senescent",
             f"{signature} (FDR {fdr:g}) with {CORE}{weak}"),
            (candidate, "indeterminate", f"{signature} (FDR {fdr:g}) without {CORE}{weak}"),
            (~powered, "indeterminate", f"too shallow for {signature} to reach significance"),
            (q <= settings.doubt_fdr, "indeterminate", _in_doubt(signature, settings)),
            (here, "not_senescent", f"{signature} not significant (FDR {fdr:g}){weak}"),
        )  # fmt: skip
        for cells, value, why in outcomes:
            free = cells & here & (rule == "")
            call[free] = value
            rule[free] = why
    return pd.DataFrame(
        {
            keys.OBS_SENESCENCE_CALL: pd.Categorical(call, categories=list(keys.SENESCENCE_CALLS)),
            "senescence_rule": rule,
        },
        index=tables.z.index,
    )


def subject(lineage: str) -> tuple[str, ...]:
    """The signatures that a call of this lineage is about."""
    if lineage == "T":
        return (*AXIS_SIGNATURES["exhaustion"], *AXIS_SIGNATURES["senescence"])
    return (OTHER_LINEAGES[lineage],) if lineage in OTHER_LINEAGES else ()


def deciding(lineage: str) -> tuple[str, ...]:
    """The signatures whose z or p-value can change the call of a cell of this lineage."""
    axes: tuple[str, ...] = ("proliferation", "interferon", "stress")
    if lineage == "T":
        axes = ("senescence", "exhaustion", *axes)
        own: tuple[str, ...] = (PHENOTYPE, STEMNESS, *SUPPORT_ARMS.values())
    else:
        own = (OTHER_LINEAGES[lineage], CORE)
    return (*(s for axis in axes for s in AXIS_SIGNATURES[axis]), *own)


def thresholds(tables: Tables, cells: pd.DataFrame, steps: Mapping[str, Curve]) -> Thresholds:
    """What p a call took among these cells; `steps` as an `adjust.Recorder` heard them."""
    lineage = np.asarray(cells[keys.OBS_LINEAGE].astype(object), dtype=object)
    wanted = {name: deciding(name) for name in keys.LINEAGES}
    return Thresholds.of(tables.pvalue, tables.padj, lineage, steps, wanted)


def verdicts(
    tables: Tables,
    cells: pd.DataFrame,
    powered: pd.DataFrame,
    *,
    settings: CallSettings,
    adjust: Adjust = adjust_among,
) -> pd.DataFrame:
    """Every call of every cell: `t_states` and `senescence_calls` side by side.

    Parameters
    ----------
    tables
        Scores.
    cells
        ``lineage``, ``t_subset``, ``qc_pass``, ``doublet_mixed_lineage``.
    powered
        Cells × signatures: would the programme have been seen at this cell's depth?
    settings
        Thresholds.
    adjust
        How p-values among candidates are adjusted.
    """

    def able(signatures: tuple[str, ...]) -> NDArray[np.bool_]:
        named = [s for s in signatures if s in powered]
        if not named:
            return np.zeros(len(cells), bool)
        return np.asarray(powered[named].to_numpy(bool).all(axis=1))

    lineage = np.asarray(cells[keys.OBS_LINEAGE].astype(object), dtype=object)
    qc_pass = cells[keys.OBS_QC_PASS].to_numpy(bool)
    doublet = cells["doublet_mixed_lineage"].to_numpy(bool)
    states = t_states(
        tables,
        lineage=lineage,
        t_subset=np.asarray(cells[keys.OBS_T_SUBSET].astype(object), dtype=object),
        qc_pass=qc_pass,
        doublet=doublet,
        powered={axis: able(AXIS_SIGNATURES[axis]) for axis in ("exhaustion", "senescence")},
        settings=settings,
        adjust=adjust,
    )
    own = np.zeros(len(cells), bool)
    for name, signature in OTHER_LINEAGES.items():
        own |= (lineage == name) & able((signature,))
    calls = senescence_calls(
        tables,
        lineage=lineage,
        t_state=states[keys.OBS_T_STATE],
        qc_pass=qc_pass,
        doublet=doublet,
        powered=own,
        settings=settings,
        adjust=adjust,
    )
    return pd.concat([states, calls], axis=1)

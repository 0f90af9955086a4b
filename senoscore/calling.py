"""From scores to calls: the T-cell verdict and the senescence calls of the other lineages.

Everything here works on tables of z and adjusted p-values, one row per cell. A call is a rule that
can be printed; `t_state_rule` prints the one that fired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

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
T_SUBSTATES: Final = ("", "progenitor", "terminal", "sasp_high", "nk_like")
INNATE_LIKE: Final = "innate_like"
TREG: Final = "Treg"


# one value per cell; a column with categories is compared by its codes
Labels: TypeAlias = pd.Series | pd.Categorical | NDArray[Any]


def among(labels: Labels, *values: str) -> NDArray[np.bool_]:
    """Whether each label is one of the values; a missing one is not."""
    hits = np.zeros(len(labels), bool)
    for value in values:
        hits |= np.asarray(labels == value, bool)
    return hits


class _Verdict:
    """Values and the rules that gave them: of the rules put, the first that applies to a cell."""

    def __init__(self, cells: NDArray[np.bool_], categories: tuple[str, ...]) -> None:
        self.free = cells.copy()
        self.categories = categories
        self.codes = np.full(len(cells), -1, np.int8)
        self.rules = np.zeros(len(cells), np.int16)
        self.texts = [""]

    def put(self, cells: NDArray[np.bool_], value: str, why: str) -> None:
        """Decide the cells that no rule has decided yet."""
        now = cells & self.free
        if why not in self.texts:
            self.texts.append(why)
        self.codes[now] = self.categories.index(value)
        self.rules[now] = self.texts.index(why)
        self.free &= ~now

    def of(self, *values: str) -> NDArray[np.bool_]:
        """The cells that have one of the values."""
        return np.isin(self.codes, [self.categories.index(value) for value in values])

    def values(self) -> pd.Categorical:
        return pd.Categorical.from_codes(self.codes, categories=list(self.categories))

    def why(self) -> pd.Categorical:
        return as_texts(self.rules, self.texts)


def as_texts(codes: NDArray[np.integer], texts: Sequence[str]) -> pd.Categorical:
    """A column of texts from codes into a small table of them: the texts that occur, sorted."""
    found = np.flatnonzero(np.bincount(codes, minlength=len(texts)))
    order = sorted(map(int, found), key=lambda k: texts[k])
    place = np.zeros(len(texts), np.int16)
    place[order] = np.arange(len(order))
    return pd.Categorical.from_codes(place[codes], categories=[texts[k] for k in order])


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
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Evidence of the support arms among the candidates.

    Fisher's combination of the p-values of the arms that nothing else explains (they share no
    gene, so that their nulls are independent), adjusted over the candidates alone (`adjust`).
    Returns padj and the place of the strongest arm in `SUPPORT_ARMS`, -1 for none.
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
    arms = np.full(n, -1)
    if known.any():
        arms[known] = np.nanargmin(p[:, known], axis=0)
    q = adjust("support", combined)
    # where nearly all candidates are true the adjusted value of a middling p is small, too; the
    # candidates were selected by genes that include the arms', so some evidence is asked of each
    q[combined > SUPPORT_NOMINAL] = 1.0
    return q, arms


def t_states(
    tables: Tables,
    *,
    lineage: Labels,
    t_subset: Labels,
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
    is_t = among(lineage, "T")
    treg, innate = among(t_subset, TREG), among(t_subset, INNATE_LIKE)
    fdr = settings.fdr
    _, exhaustion_q = tables[AXIS_SIGNATURES["exhaustion"][0]]
    _, phenotype_q = tables[PHENOTYPE]
    phenotype_p = tables.p(PHENOTYPE)
    valid = is_t & qc_pass & ~doublet
    exhausted = valid & (exhaustion_q <= fdr) & ~treg
    assessed = valid & ~innate & ~treg
    _, senescence_q = tables[AXIS_SIGNATURES["senescence"][0]]
    naive = tables[STEMNESS][0] <= KEPT
    eligible = assessed & (phenotype_p <= NOMINAL) & ~naive
    candidate = eligible & (senescence_q <= fdr)
    phenotype = (assessed & (phenotype_q <= fdr)) | candidate
    cycling = valid & _any_below(tables, "proliferation", fdr)
    support_q, arm = support_padj(tables, candidate, settings, adjust)
    senescent = candidate & (support_q <= settings.support_fdr) & ~cycling
    scored = ~np.isnan(exhaustion_q) & ~np.isnan(senescence_q)

    verdict = _Verdict(is_t, keys.T_STATES)
    put = verdict.put
    with_arm = [
        (senescent & (arm == k), f"senescence axis (FDR {fdr:g}), phenotype arm, support of {name}")
        for k, name in enumerate(SUPPORT_ARMS)
    ]
    put(~qc_pass, "indeterminate", "failed quality control")
    put(doublet, "indeterminate", "mixed-lineage doublet")
    for cells, why in with_arm:
        put(exhausted & cells, "both", f"exhaustion axis (FDR {fdr:g}), {why}")
    put(exhausted & cycling, "exhausted", f"exhaustion axis (FDR {fdr:g}), cycling")
    put(
        exhausted & phenotype,
        "exhausted",
        f"exhaustion axis (FDR {fdr:g}); phenotype arm without support",
    )
    put(exhausted, "exhausted", f"exhaustion axis (FDR {fdr:g})")
    put(cycling, "cycling", f"S or G2M programme (FDR {fdr:g}) vetoes senescence")
    for cells, why in with_arm:
        put(cells, "senescent", why)
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
    lean = (phenotype_p <= doubt) & ~naive
    doubtful |= assessed & ((phenotype_q <= doubt) | ((senescence_q <= doubt) & lean))
    put(doubtful, "indeterminate", _in_doubt("a programme", settings))
    put(
        innate,
        "neither",
        "innate-like T cell: phenotype arm not used, exhaustion axis not significant",
    )
    put(is_t, "neither", f"no programme significant (FDR {fdr:g})")

    progenitor, terminal = tables[PROGENITOR][0], tables[TERMINAL][0]
    promoting, inhibiting = tables[PROMOTING][0], tables[INHIBITING][0]
    in_exhausted, in_senescent = verdict.of("exhausted", "both"), verdict.of("senescent")
    substate = np.zeros(len(is_t), np.int8)
    # a comparison with NaN is false: cells without both scores have no substate
    substate[in_exhausted & (progenitor > terminal)] = 1
    substate[in_exhausted & (progenitor <= terminal)] = 2
    substate[in_senescent & (promoting > inhibiting)] = 3
    substate[in_senescent & (promoting <= inhibiting)] = 4
    return pd.DataFrame(
        {
            keys.OBS_T_STATE: verdict.values(),
            keys.OBS_T_STATE_RULE: verdict.why(),
            "t_substate": as_texts(substate, T_SUBSTATES),
        },
        index=tables.z.index,
    )


def senescence_calls(
    tables: Tables,
    *,
    lineage: Labels,
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
    known = [among(lineage, name) for name in ("T", *OTHER_LINEAGES)]
    verdict = _Verdict(np.logical_or.reduce(known), keys.SENESCENCE_CALLS)
    fdr = settings.fdr
    for state in keys.T_STATES:
        follows = {"both": "senescent", "senescent": "senescent", "indeterminate": "indeterminate"}
        verdict.put(
            known[0] & among(t_state, state),
            follows.get(state, "not_senescent"),
            f"T-cell state {state}",
        )
    cycling = _any_below(tables, "proliferation", fdr)
    explained = _any_below(tables, "interferon", fdr) | _any_below(tables, "stress", fdr)
    for here, (name, signature) in zip(known[1:], OTHER_LINEAGES.items(), strict=True):
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
            verdict.put(cells & here, value, why)
    return pd.DataFrame(
        {
            keys.OBS_SENESCENCE_CALL: verdict.values(),
            "senescence_rule": verdict.why(),
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
    wanted = {name: deciding(name) for name in keys.LINEAGES}
    return Thresholds.of(tables.pvalue, tables.padj, cells[keys.OBS_LINEAGE], steps, wanted)


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

    lineage = cells[keys.OBS_LINEAGE]
    qc_pass = cells[keys.OBS_QC_PASS].to_numpy(bool)
    doublet = cells["doublet_mixed_lineage"].to_numpy(bool)
    states = t_states(
        tables,
        lineage=lineage,
        t_subset=cells[keys.OBS_T_SUBSET],
        qc_pass=qc_pass,
        doublet=doublet,
        powered={axis: able(AXIS_SIGNATURES[axis]) for axis in ("exhaustion", "senescence")},
        settings=settings,
        adjust=adjust,
    )
    own = np.zeros(len(cells), bool)
    for name, signature in OTHER_LINEAGES.items():
        own |= among(lineage, name) & able((signature,))
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

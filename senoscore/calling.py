"""From scores to calls: the T-cell verdict and the senescence calls of the other lineages.

Everything here works on tables of z and adjusted p-values, one row per cell. A call is a rule that
can be printed; `t_state_rule` prints the one that fired.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import chdtrc

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
# the arms that are not what other cells or an answer to them bring
INTRINSIC: Final = [k for k, arm in enumerate(SUPPORT_ARMS) if arm != "SASP"]
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
WARNINGS: Final[Mapping[str, str]] = {
    "T": "The surface phenotype of senescence is also the ordinary TEMRA cell (CMV, age); without an "
    "arrest, TCR-signalling or SASP arm the cell is senescent_like and its call indeterminate.",
    "B": "Age-associated B cells: they also expand in lupus and other autoimmunity and in chronic "
    "infection; compare donors with these in mind.",
    "NK": "Called inside CD56dim only; CMV-adaptive NK cells look the same (nk_subset says which they "
    "are). Human only.",
    "mono_mac": "CD38 and CD40 answer to interferon and NF-kB, the secretome to infection: "
    "senescence_arms says which part a call stands on.",
    "neutrophil": "Low confidence: four voting genes, and neutrophils give little RNA in droplets. "
    "Circadian aged neutrophils (CXCR4 high, CD62L low) are another thing.",
    "DC": "Low confidence: the reviews name only functions lost on stimulation, so no cell is called.",
    "other": "Not an immune cell: core senescence with p53 targets or the NF-kB SASP; an acute p53 "
    "response looks the same.",
}
CORE: Final = "core_senescence"
# what a candidate of another lineage needs besides its own signature: Fisher's combination of these
OTHER_SUPPORT: Final[Mapping[str, Mapping[str, str]]] = {
    **{name: {CORE: CORE} for name in ("B", "NK", "mono_mac", "neutrophil", "DC")},
    "other": {"p53": "other_arm_p53", "NF-kB SASP": "sasp_core"},
}
# arms told apart in `senescence_arms`
SHOWN_ARMS: Final[Mapping[str, Mapping[str, str]]] = {
    "T": SUPPORT_ARMS,
    "mono_mac": {"CD38": "macrophage_arm_cd38", "SASP": "macrophage_arm_sasp"},
    "other": OTHER_SUPPORT["other"],
}
BRIGHT, ADAPTIVE = "conf_nk_cd56bright", "conf_cmv_adaptive_nk"
NK_SUBSETS: Final = ("CD56bright", "CD56dim", "CD56dim_adaptive")
# the lost stemness programme (CCR7, LEF1, TCF7, BACH2, IL7R, FOXO1 down): a cell that has kept it
# is naive, not senescent
STEMNESS: Final = "stemness_loss"
# ... and more to the point a cell that has what only naive and central memory cells have (CCR7, LEF1),
# or nothing of an effector: senescent T cells are late effectors
NAIVE: Final = "conf_naive"
EFFECTOR: Final = AXIS_SIGNATURES["cytotoxic"][0]
# RNA of another cell in the droplet brings TYROBP, CD16 and cytokines: no evidence then
FOREIGN: Final = ("conf_monocyte_ambient", "conf_nk_contamination")
# a name for all signatures that the verdict is read from
VERDICT: Final = "verdict"
PROGENITOR, TERMINAL = "t_exhaustion_progenitor", "t_exhaustion_terminal"
PROMOTING, INHIBITING = "dual_tumour_promoting", "dual_tumour_inhibiting"
# column beside the states that `senescence_calls` reads
SENESCENCE_OPEN: Final = "senescence_open"
# two lineages' markers in one droplet, and scrublet's prediction where it was asked for
DOUBLET_FLAGS: Final = ("doublet_mixed_lineage", "predicted_doublet")
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
    """A column of texts from codes into a table of them, -1 for none: the texts that occur, sorted."""
    categories = sorted({texts[k] for k in np.unique(codes[codes >= 0]).tolist()})
    place = {text: k for k, text in enumerate(categories)}
    # the last is what -1 finds
    found = np.asarray([*(place.get(text, -1) for text in texts), -1])
    return pd.Categorical.from_codes(found[codes], categories=categories)


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


def _any_below(tables: Tables, signatures: Sequence[str], level: float) -> NDArray[np.bool_]:
    """Whether any of these signatures is significant. NaN is not."""
    return np.asarray(np.logical_or.reduce([tables[s][1] <= level for s in signatures]))


def _axis_below(tables: Tables, axis: str, level: float) -> NDArray[np.bool_]:
    """Whether any signature of an axis is significant."""
    return _any_below(tables, AXIS_SIGNATURES[axis], level)


def _near(
    tables: Tables,
    signatures: Sequence[str],
    settings: CallSettings,
    *,
    shallow: NDArray[np.bool_] | bool = False,
) -> NDArray[np.bool_]:
    """Whether any of these signatures is as near to significance as cells of which half carry it.

    A bound on p itself keeps data without a carrier, where adjusted p-values say little, from
    doubting everything. In `shallow` cells it is the only bound: what a p-value is worth was learnt
    from cells of all depths, and a carrier with few counts rarely has a small one.
    """
    near = np.zeros(len(tables.z), bool)
    for s in signatures:
        near |= ((tables[s][1] <= settings.doubt_fdr) | shallow) & (tables.p(s) <= settings.doubt_p)
    return near


def _in_doubt(what: str, settings: CallSettings) -> str:
    return f"{what} at FDR {settings.doubt_fdr:g}, not at {settings.fdr:g}: neither called nor ruled out"


def fisher(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fisher's combination of the p-values of each column, those that are NaN left out.

    Examples
    --------
    >>> fisher(np.array([[0.1, 0.3], [0.1, np.nan]])).round(4).tolist()
    [0.0561, 0.3]
    """
    tested = (~np.isnan(p)).sum(axis=0)
    known = tested > 0
    combined = np.full(p.shape[1], np.nan)
    combined[known] = chdtrc(2 * tested[known], -2 * np.nansum(np.log(p[:, known]), axis=0))
    return combined


def support_arms(tables: Tables, settings: CallSettings) -> NDArray[np.float64]:
    """p of each support arm, NaN where an interferon or stress response explains it."""
    p = np.empty((len(SUPPORT_ARMS), len(tables.z)))
    for k, (arm, signature) in enumerate(SUPPORT_ARMS.items()):
        p[k] = tables.p(signature)
        for axis in EXPLAINED_BY[arm]:
            p[k, _axis_below(tables, axis, settings.fdr)] = np.nan
    return p


def support_padj(
    arms: NDArray[np.float64],
    candidates: NDArray[np.bool_],
    settings: CallSettings,
    adjust: Adjust = adjust_among,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Evidence of the support arms among the candidates.

    Fisher's combination of the p-values of the arms that nothing else explains (`support_arms`; they
    share no gene, so that their nulls are independent), adjusted over the candidates alone (`adjust`).
    Returns padj, p, and the place of the strongest arm in `SUPPORT_ARMS` (-1 for none).
    """
    combined = np.full(len(candidates), np.nan)
    combined[candidates] = fisher(arms[:, candidates])
    known = ~np.isnan(combined)
    strongest = np.full(len(candidates), -1)
    if known.any():
        strongest[known] = np.nanargmin(arms[:, known], axis=0)
    q = adjust("support", combined)
    # where nearly all candidates are true the adjusted value of a middling p is small, too; the
    # candidates were selected by genes that include the arms', so some evidence is asked of each
    q[combined > settings.part_p] = 1.0
    return q, combined, strongest


def t_states(
    tables: Tables,
    *,
    lineage: Labels,
    t_subset: Labels,
    qc_pass: NDArray[np.bool_],
    doublet: NDArray[np.bool_],
    powered: Mapping[str, NDArray[np.bool_]],
    shallow: NDArray[np.bool_] | bool = False,
    settings: CallSettings,
    adjust: Adjust = adjust_among,
) -> pd.DataFrame:
    """The verdict for every T cell: one of seven states, and the rule that gave it.

    `rule_text` is the rule in words, in the order in which it is applied.

    Parameters
    ----------
    powered
        Per axis (``exhaustion``, ``senescence``): whether a cell of this depth would have
        reached significance had it carried the programme.
    shallow
        Whether a cell is shallower than most of its lineage (`keys.SHALLOW`).
    adjust
        How p-values among candidates are adjusted; a run's own way, unless its curves are held
        fixed (`adjust.Frozen`).

    Returns
    -------
    DataFrame
        ``t_state`` (categories `keys.T_STATES`, NaN outside T), ``t_state_rule``,
        ``senescence_open`` (senescence was neither called nor ruled out), ``t_substate``
        (`T_SUBSTATES`: progenitor or terminal inside exhausted; sasp_high or nk_like inside
        senescent; else empty).
    """
    is_t = among(lineage, "T")
    treg, innate = among(t_subset, TREG), among(t_subset, INNATE_LIKE)
    fdr = settings.fdr
    _, exhaustion_q = tables[AXIS_SIGNATURES["exhaustion"][0]]
    _, senescence_q = tables[AXIS_SIGNATURES["senescence"][0]]
    _, phenotype_q = tables[PHENOTYPE]
    phenotype_p = tables.p(PHENOTYPE)
    valid = is_t & qc_pass & ~doublet
    scored = ~np.isnan(exhaustion_q) & ~np.isnan(senescence_q)
    assessed = valid & ~innate & ~treg
    naive = tables[STEMNESS][0] <= settings.kept_naive_z
    foreign = _any_below(tables, FOREIGN, fdr)

    exhausted = valid & (exhaustion_q <= fdr) & ~treg
    cycling = valid & _axis_below(tables, "proliferation", fdr)
    # a cell's two axes are a family: where one is significant the other is tested at the level that
    # is left to a selected cell (Benjamini and Bogomolov 2014)
    tested = valid & ~treg & scored
    selected = tested & (exhausted | (assessed & (senescence_q <= fdr)))
    scale = max(tested.sum(), 1) / max(selected.sum(), 1)
    second = np.where(exhausted & assessed, tables.p(AXIS_SIGNATURES["senescence"][0]), np.nan)
    axis = (senescence_q <= fdr) | (adjust("senescence of the exhausted", second, scale) <= fdr)
    # an exhausted cell need not be told from an ordinary TEMRA cell: less is asked of its phenotype
    part_p = np.where(exhausted, settings.lean_p, settings.part_p)
    showing = assessed & axis & (phenotype_p <= part_p) & ~naive
    # a naive cell beside an effector in the droplet, or too few counts to tell one from the other
    naive_too = tables.p(NAIVE) <= settings.naive_p
    no_effector = (tables.p(EFFECTOR) > settings.doubt_p) & (tables.p(STEMNESS) > settings.arm_p)
    candidate = showing & ~foreign & ~naive_too & ~no_effector
    phenotype = (assessed & (phenotype_q <= fdr)) | showing
    arms = support_arms(tables, settings)
    support_q, support_p, arm = support_padj(arms, candidate, settings, adjust)
    # ... and of its support where nearly all exhausted candidates have some; where their phenotype is
    # that of effector cells alone, hardly any does
    among_exhausted = adjust("support of the exhausted", np.where(exhausted, support_p, np.nan))
    support_q = np.fmin(support_q, among_exhausted)
    perhaps_cycling = valid & _near(tables, AXIS_SIGNATURES["proliferation"], settings)
    # a secretome alone is activation, infection, or the soup of the droplet (IL6, CXCL8)
    intrinsic = fisher(arms[INTRINSIC, :]) <= settings.doubt_p
    supported = candidate & (support_q <= settings.support_fdr) & intrinsic & ~cycling
    senescent = supported & ~perhaps_cycling
    second = np.where(senescent, tables.p(AXIS_SIGNATURES["exhaustion"][0]), np.nan)
    exhausted |= adjust("exhaustion of the senescent", second, scale) <= fdr
    # what a little more depth could have made of the cell
    perhaps_exhausted = _near(tables, AXIS_SIGNATURES["exhaustion"], settings, shallow=shallow)
    perhaps_exhausted &= valid & ~treg
    perhaps_candidate = _near(tables, AXIS_SIGNATURES["senescence"], settings, shallow=shallow)
    # a phenotype is lacking where it is as low as doubt is high: few counts show little of it
    perhaps_candidate &= assessed & ~naive & (phenotype_p <= 1 - settings.doubt_p)
    perhaps_phenotype = assessed & _near(tables, (PHENOTYPE,), settings, shallow=shallow)
    perhaps_showing = perhaps_candidate | perhaps_phenotype
    perhaps_supported = candidate & (support_p <= settings.lean_p)
    perhaps_senescent = phenotype & perhaps_candidate & (fisher(arms) <= settings.doubt_p)

    verdict = _Verdict(is_t, keys.T_STATES)
    put = verdict.put
    with_arm = [
        (senescent & (arm == k), f"senescence axis (FDR {fdr:g}), phenotype arm, support of {name}")
        for k, name in enumerate(SUPPORT_ARMS)
    ]
    put(~qc_pass, "indeterminate", "failed quality control")
    put(doublet, "indeterminate", "doublet, by mixed lineages or as predicted")
    for cells, why in with_arm:
        put(exhausted & cells, "both", f"exhaustion axis (FDR {fdr:g}), {why}")
    put(exhausted & cycling, "exhausted", f"exhaustion axis (FDR {fdr:g}), cycling")
    put(
        exhausted & phenotype,
        "exhausted",
        f"exhaustion axis (FDR {fdr:g}); phenotype arm without support",
    )
    put(exhausted, "exhausted", f"exhaustion axis (FDR {fdr:g})")
    put(
        cycling & perhaps_exhausted, "indeterminate",
        f"S or G2M programme (FDR {fdr:g}); {_in_doubt('exhaustion axis', settings)}",
    )  # fmt: skip
    put(cycling, "cycling", f"S or G2M programme (FDR {fdr:g}) vetoes senescence")
    for cells, why in with_arm:
        put(cells, "senescent", why)
    put(
        showing & foreign, "indeterminate",
        f"senescence axis (FDR {fdr:g}) beside RNA of a myeloid or NK cell: doublet or ambient",
    )  # fmt: skip
    put(
        showing & naive_too, "indeterminate",
        f"senescence axis (FDR {fdr:g}) beside a naive programme (p {settings.naive_p:g}): doublet",
    )  # fmt: skip
    put(
        showing & no_effector, "indeterminate",
        f"senescence axis (FDR {fdr:g}) without a trace of an effector cell",
    )  # fmt: skip
    put(
        supported, "indeterminate",
        f"senescence axis (FDR {fdr:g}) with support; {_in_doubt('S or G2M programme', settings)}",
    )  # fmt: skip
    put(
        perhaps_supported, "indeterminate",
        f"senescence axis (FDR {fdr:g}), phenotype arm; support at p {settings.lean_p:g}, not at "
        f"FDR {settings.support_fdr:g}: neither called nor ruled out",
    )  # fmt: skip
    put(
        perhaps_senescent, "indeterminate",
        f"phenotype arm (FDR {fdr:g}), support at p {settings.doubt_p:g}; "
        f"{_in_doubt('senescence axis', settings)}",
    )  # fmt: skip
    put(
        phenotype & perhaps_exhausted, "indeterminate",
        f"phenotype arm (FDR {fdr:g}); {_in_doubt('exhaustion axis', settings)}",
    )  # fmt: skip
    put(
        phenotype, "senescent_like",
        f"phenotype arm without support (FDR {fdr:g}): also the ordinary TEMRA cell",
    )  # fmt: skip
    put(~scored, "indeterminate", "an axis could not be scored")
    put(treg, "neither", "regulatory T cell: exhaustion and senescence not assessed")
    unseen = ~powered["exhaustion"] | (~powered["senescence"] & ~innate)
    put(unseen, "indeterminate", "too shallow for either programme to reach significance")
    doubtful = perhaps_exhausted | perhaps_showing | perhaps_cycling
    put(doubtful, "indeterminate", _in_doubt("a programme", settings))
    put(
        innate,
        "neither",
        "innate-like T cell: phenotype arm not used, exhaustion axis not significant",
    )
    put(is_t, "neither", f"no programme significant (FDR {fdr:g})")

    # senescence is neither called nor ruled out: its evidence is there without what completes it,
    # or it could not have been seen, or it was not asked for
    still_open = (phenotype | perhaps_showing | ~powered["senescence"]) & ~senescent & ~cycling
    still_open = is_t & (still_open | treg | innate)

    progenitor, terminal = tables[PROGENITOR][0], tables[TERMINAL][0]
    promoting, inhibiting = (tables.p(side) <= settings.arm_p for side in (PROMOTING, INHIBITING))
    in_exhausted, in_senescent = verdict.of("exhausted", "both"), verdict.of("senescent")
    substate = np.zeros(len(is_t), np.int8)
    # a comparison with NaN is false: cells without both scores have no substate
    substate[in_exhausted & (progenitor > terminal)] = 1
    substate[in_exhausted & (progenitor <= terminal)] = 2
    # any cytotoxic effector shows the second side: the first, where it shows, tells more
    substate[in_senescent & inhibiting] = 4
    substate[in_senescent & promoting] = 3
    return pd.DataFrame(
        {
            keys.OBS_T_STATE: verdict.values(),
            keys.OBS_T_STATE_RULE: verdict.why(),
            SENESCENCE_OPEN: still_open,
            "t_substate": as_texts(substate, T_SUBSTATES),
        },
        index=tables.z.index,
    )


def senescence_calls(
    tables: Tables,
    *,
    lineage: Labels,
    t_state: pd.Series,
    t_open: NDArray[np.bool_] | None = None,
    qc_pass: NDArray[np.bool_],
    doublet: NDArray[np.bool_],
    powered: NDArray[np.bool_],
    shallow: NDArray[np.bool_] | bool = False,
    settings: CallSettings,
    adjust: Adjust = adjust_among,
) -> pd.DataFrame:
    """senescent, not_senescent or indeterminate for every cell of every lineage.

    The same rule for all: without its evidence a cell is ``not_senescent`` only where the evidence
    would have been seen; evidence that is not complete leaves it ``indeterminate``. T cells follow
    their state, and are ``indeterminate`` where senescence was neither called nor ruled out
    (`t_open`, ``senescent_like`` among them). Other lineages: the lineage's own signature
    significant, no cycling programme, and support (`OTHER_SUPPORT`, adjusted over the candidates,
    `adjust`). A signature without that support, or beside an interferon or stress response that
    explains it (CD38, CD40 and CDKN1A answer to both), or beside RNA of a myeloid cell, leaves the
    cell ``indeterminate``, and so does one that is near significance only (`doubt_fdr`). NK cells are
    called inside CD56dim; dendritic cells are never called.

    Returns
    -------
    DataFrame
        ``senescence_call`` (categories `keys.SENESCENCE_CALLS`, NaN for cells without a lineage),
        ``senescence_rule``, ``senescence_arms`` (which parts show at `arm_p`, of cells whose own
        evidence is significant: `SHOWN_ARMS`), ``senescence_confidence`` (usual, low),
        ``senescence_warning`` (what else the call may mean), ``nk_subset`` (`NK_SUBSETS`, NaN
        outside NK cells).
    """
    known = {name: among(lineage, name) for name in ("T", *OTHER_LINEAGES)}
    of_lineage = np.logical_or.reduce(list(known.values()))
    verdict = _Verdict(of_lineage, keys.SENESCENCE_CALLS)
    fdr = settings.fdr
    showing = known["T"] & among(t_state, "senescent", "both", "senescent_like")
    for state in keys.T_STATES:
        cells = known["T"] & among(t_state, state)
        if state in ("senescent", "both"):
            verdict.put(cells, "senescent", f"T-cell state {state}")
        elif state in ("indeterminate", "senescent_like"):
            verdict.put(cells, "indeterminate", f"T-cell state {state}")
        else:
            if t_open is not None:
                why = f"T-cell state {state}; senescence neither called nor ruled out"
                verdict.put(cells & t_open, "indeterminate", why)
            verdict.put(cells, "not_senescent", f"T-cell state {state}")
    cycling = _axis_below(tables, "proliferation", fdr)
    explained = _axis_below(tables, "interferon", fdr) | _axis_below(tables, "stress", fdr)
    foreign = _any_below(tables, FOREIGN, fdr)
    bright = known["NK"] & (tables.p(BRIGHT) <= settings.arm_p)
    for name, signature in OTHER_LINEAGES.items():
        here = known[name]
        if not here.any():
            continue
        _, q = tables[signature]
        positive = here & qc_pass & ~doublet & (q <= fdr) & ~bright
        candidate = positive & ~cycling & ~explained & ~foreign
        candidate &= name not in NEVER_CALLED
        arms = OTHER_SUPPORT[name]
        p = fisher(np.vstack([np.where(candidate, tables.p(arm), np.nan) for arm in arms.values()]))
        support = adjust(f"support in {name}", p)
        showing |= positive
        told = " or ".join(arms)
        weak = "; low-confidence signature" if name in LOW_CONFIDENCE else ""
        outcomes = (
            (~qc_pass, "indeterminate", "failed quality control"),
            (doublet, "indeterminate", "doublet, by mixed lineages or as predicted"),
            (np.isnan(q), "indeterminate", f"{signature} not scored"),
            (here & (name in NEVER_CALLED), "indeterminate",
             f"{signature} names functions lost on stimulation: reported, calls nothing{weak}"),
            (bright, "indeterminate", "CD56bright: senescence is called inside CD56dim"),
            (positive & cycling, "not_senescent", f"{signature}, but cycling"),
            (positive & explained, "indeterminate",
             f"{signature} beside an interferon or stress response"),
            (positive & foreign, "indeterminate",
             f"{signature} beside RNA of a myeloid cell: doublet or ambient"),
            (candidate & (support <= settings.support_fdr), "senescent",
             f"{signature} (FDR {fdr:g}) with {told}{weak}"),
            (candidate, "indeterminate", f"{signature} (FDR {fdr:g}) without {told}{weak}"),
            (~powered, "indeterminate", f"too shallow for {signature} to reach significance"),
            (_near(tables, (signature,), settings, shallow=shallow), "indeterminate",
             _in_doubt(signature, settings)),
            (here, "not_senescent", f"{signature} not significant (FDR {fdr:g}){weak}"),
        )  # fmt: skip
        for cells, value, why in outcomes:
            verdict.put(cells & here, value, why)
    names = list(known)
    place = np.full(len(of_lineage), len(names))
    for k, cells in enumerate(known.values()):
        place[cells] = k
    subset = np.where(bright, 0, np.where(tables[ADAPTIVE][1] <= fdr, 2, 1))
    return pd.DataFrame(
        {
            keys.OBS_SENESCENCE_CALL: verdict.values(),
            "senescence_rule": verdict.why(),
            "senescence_arms": _arms_shown(tables, known, showing, settings.arm_p),
            "senescence_confidence": as_texts(
                place, [*("low" if n in LOW_CONFIDENCE else "usual" for n in names), ""]
            ),
            "senescence_warning": as_texts(place, [*(WARNINGS[n] for n in names), ""]),
            "nk_subset": pd.Categorical.from_codes(
                np.where(known["NK"], subset, -1), categories=list(NK_SUBSETS)
            ),
        },
        index=tables.z.index,
    )


def _arms_shown(
    tables: Tables,
    known: Mapping[str, NDArray[np.bool_]],
    showing: NDArray[np.bool_],
    level: float,
) -> pd.Categorical:
    """The names of a lineage's arms whose p is at most `level`, of the cells that show any evidence."""
    codes, texts = np.zeros(len(showing), np.int64), [""]
    for lineage, arms in SHOWN_ARMS.items():
        bits = np.zeros(len(showing), np.int64)
        for k, signature in enumerate(arms.values()):
            bits += (tables.p(signature) <= level) << k
        cells = showing & known[lineage] & (bits > 0)
        codes[cells] = bits[cells] + len(texts) - 1
        names = list(arms)
        texts += [
            "; ".join(name for k, name in enumerate(names) if mask >> k & 1)
            for mask in range(1, 2 ** len(names))
        ]
    return as_texts(codes, texts)


def rule_text(settings: CallSettings | None = None) -> str:
    """The whole rule in words, with its thresholds: what decides, in which order.

    Examples
    --------
    >>> print(rule_text().splitlines()[2])
    1. Failed quality control, or a doublet (mixed lineages, or predicted): indeterminate.
    """
    s = CallSettings() if settings is None else settings
    near = f"adjusted p <= {s.doubt_fdr:g} and p <= {s.doubt_p:g}"
    arms = ", ".join(SUPPORT_ARMS)
    rules = [
        "Failed quality control, or a doublet (mixed lineages, or predicted): indeterminate.",
        f"Exhaustion axis at adjusted p <= {s.fdr:g}, not in regulatory T cells: exhausted, or both if "
        "the cell is senescent by rule 5. A cell with one axis significant is called both if the other "
        f"is at p times m / r <= {s.fdr:g}, where of m cells tested r have an axis significant.",
        f"S or G2M programme at adjusted p <= {s.fdr:g}: cycling, which vetoes senescence; "
        "indeterminate if the exhaustion axis is near (rule 11).",
        "Regulatory T cells: neither, for neither programme is assessed. Innate-like ones are not assessed "
        "for senescence.",
        f"Senescent: senescence axis at adjusted p <= {s.fdr:g} (exhausted cells: rule 2), both parts of it "
        f"at p <= {s.part_p:g}, and nothing that speaks against it. The parts: the phenotype arm; support, "
        f"Fisher's combination of the arms ({arms}), also adjusted over such cells at <= "
        f"{s.support_fdr:g}; arrest and TCR-signalling loss without SASP at p <= {s.doubt_p:g}. Of exhausted "
        f"cells the phenotype arm at p <= {s.lean_p:g} is enough, and so is support of any p that is at <= "
        f"{s.support_fdr:g} adjusted over the exhausted among such cells. Beside an "
        f"interferon or stress response (adjusted p <= {s.fdr:g}) arrest and SASP are no support. "
        f"Against it: a lost stemness at or below z {s.kept_naive_z:g} (the naive programme "
        "is kept) rules it out; rules 6 and 7 leave it open.",
        "The axis and the phenotype arm, beside a myeloid or NK programme (adjusted p <= "
        f"{s.fdr:g}), beside a naive programme (p <= {s.naive_p:g}), or with neither effector genes "
        f"(p > {s.doubt_p:g}) nor a lost stemness (p > {s.arm_p:g}): indeterminate.",
        "Senescent but for an S or G2M programme that is near (rule 11): indeterminate. So are: the axis and "
        f"the phenotype arm with support at p <= {s.lean_p:g}; the phenotype arm at adjusted p <= {s.fdr:g} "
        f"with support at p <= {s.doubt_p:g} and an axis that is near; and the arm beside an exhaustion axis "
        "that is near.",
        "The axis and the phenotype arm, or the phenotype arm at adjusted p <= "
        f"{s.fdr:g}, else: senescent_like.",
        "An axis not scored: indeterminate.",
        f"Fewer than {s.power:.0%} of cells of this depth whose programme is on "
        f"at {s.on_cp10k:g} counts per 10,000 would show it at p <= {s.fdr:g}: indeterminate.".replace(
            "%", " %"
        ),
        f"Near a call: exhaustion, phenotype, S or G2M ({near}), or the senescence axis so with the "
        f"phenotype arm at p <= {1 - s.doubt_p:g}: indeterminate. For both axes and the phenotype p <= "
        f"{s.doubt_p:g} is enough in depth strata of less than {s.shallow:g} times the median counts of T cells.",
        "Else: neither.",
    ]
    others = [
        "T cells follow their state: senescent and both are senescent; senescent_like, what is near, what "
        "could not have been seen and what was not assessed are indeterminate; all others not_senescent.",
        f"Other lineages: own signature at adjusted p <= {s.fdr:g} and, adjusted over such cells, support "
        f"at <= {s.support_fdr:g} (core senescence; p53 targets or the NF-kB SASP in non-immune cells): "
        "senescent. Cycling: not_senescent. Beside an interferon, stress or myeloid programme, or without "
        f"support, or near ({near}; in depth strata of less than {s.shallow:g} times the median counts of "
        "the lineage the p-value is enough), or too shallow: indeterminate.",
        f"NK cells: inside CD56dim (CD56bright programme above p {s.arm_p:g}). Dendritic cells: never.",
    ]
    lines = ["State of a T cell, the first rule that applies:", ""]
    lines += [f"{k}. {rule}" for k, rule in enumerate(rules, 1)]
    lines += [
        "",
        "Exhausted cells are progenitor or terminal by the larger z; senescent cells sasp_high if the "
        f"tumour-promoting side is at p <= {s.arm_p:g}, else nk_like if the tumour-inhibiting side is.",
    ]
    lines += ["", "Senescence call of any cell:", ""]
    return "\n".join(lines + [f"- {rule}" for rule in others])


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
        own: tuple[str, ...] = (
            PHENOTYPE,
            STEMNESS,
            NAIVE,
            EFFECTOR,
            *SUPPORT_ARMS.values(),
            *FOREIGN,
        )
    else:
        own = (OTHER_LINEAGES[lineage], *OTHER_SUPPORT[lineage].values())
        own += (BRIGHT,) if lineage == "NK" else ()
        own += FOREIGN[:1] if lineage in ("B", "NK", "other") else ()
    return (*(s for axis in axes for s in AXIS_SIGNATURES[axis]), *own)


def verdict_signatures() -> tuple[str, ...]:
    """Every signature that a column of the verdict is read from: fewer, and the calls are the same."""
    read: list[str] = []
    for lineage in keys.LINEAGES:
        read += deciding(lineage)
        read += SHOWN_ARMS.get(lineage, {}).values()
    read += (s for names in AXIS_SIGNATURES.values() for s in names)
    read += (PROGENITOR, TERMINAL, PROMOTING, INHIBITING, *FOREIGN, BRIGHT, ADAPTIVE)
    return tuple(dict.fromkeys(read))


def with_verdict(names: str | Iterable[str]) -> list[str]:
    """Names of signatures; where `VERDICT` stands, those of the verdict."""
    each = [names] if isinstance(names, str) else names
    return [s for name in each for s in (verdict_signatures() if name == VERDICT else (name,))]


def thresholds(
    tables: Tables, cells: pd.DataFrame, steps: Mapping[str, Curve], *, threads: int = 1
) -> Thresholds:
    """What p a call took among these cells; `steps` as an `adjust.Recorder` heard them."""
    wanted = {name: deciding(name) for name in keys.LINEAGES}
    lineage = cells[keys.OBS_LINEAGE]
    return Thresholds.of(tables.pvalue, tables.padj, lineage, steps, wanted, threads=threads)


def is_doublet(cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Cells with any of the flags `DOUBLET_FLAGS`; a missing value is no flag."""
    found = np.zeros(len(cells), bool)
    for name in DOUBLET_FLAGS:
        if name in cells:
            found |= (cells[name] == 1).to_numpy(bool)
    return found


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
        ``lineage``, ``t_subset``, ``qc_pass``, and the flags of `DOUBLET_FLAGS` there are.
    powered
        Cells × signatures: would the programme have been seen at this cell's depth? (`power.powered`)
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

    def shallower(signatures: tuple[str, ...]) -> NDArray[np.bool_]:
        named = [s for s in signatures if s in powered]
        return np.asarray((powered[named] == keys.SHALLOW).any(axis=1), bool)

    lineage = cells[keys.OBS_LINEAGE]
    qc_pass = cells[keys.OBS_QC_PASS].to_numpy(bool)
    doublet = is_doublet(cells)
    states = t_states(
        tables,
        lineage=lineage,
        t_subset=cells[keys.OBS_T_SUBSET],
        qc_pass=qc_pass,
        doublet=doublet,
        powered={axis: able(AXIS_SIGNATURES[axis]) for axis in ("exhaustion", "senescence")},
        shallow=shallower(subject("T")),
        settings=settings,
        adjust=adjust,
    )
    own, few = np.zeros((2, len(cells)), bool)
    for name, signature in OTHER_LINEAGES.items():
        own |= among(lineage, name) & able((signature,))
        few |= among(lineage, name) & shallower((signature,))
    calls = senescence_calls(
        tables,
        lineage=lineage,
        t_state=states[keys.OBS_T_STATE],
        t_open=states.pop(SENESCENCE_OPEN).to_numpy(bool),
        qc_pass=qc_pass,
        doublet=doublet,
        powered=own,
        shallow=few,
        settings=settings,
        adjust=adjust,
    )
    return pd.concat([states, calls], axis=1)

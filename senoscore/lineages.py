"""Which immune lineage a cell belongs to: from its ontology term, its label, or its markers.

Three routes, in this order: the Cell Ontology id (``data/cell_ontology.tsv``), the author's label
(``data/label_synonyms.tsv``), and the markers of a cluster of cells (``data/lineage_markers.tsv``).
A label that names two lineages is ambiguous, a label that names none is unmapped; neither is
guessed. The lineages are those of :data:`senoscore.keys.LINEAGES`. A subset that is not known has
the name of its lineage (``T``, ``B``, ...).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from senoscore.keys import LINEAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

SOURCES: Final = ("ontology", "label", "fine_label", "ambiguous", "unmapped")
T_SUBSETS: Final = ("CD4", "CD8", "Treg", "innate_like", "other", "T")


class Verdict(NamedTuple):
    """What one label or ontology term says: a lineage (or ambiguous, unmapped) and a subset."""

    lineage: str
    subset: str


UNMAPPED: Final = Verdict("unmapped", "")
_DOUBLET: Final = Verdict("ambiguous", "doublet")


@dataclass(frozen=True)
class LabelMap:
    """Lineage of every cell, and the table of distinct labels behind it."""

    obs: pd.DataFrame
    """One row a cell: lineage, lineage_subset, t_subset, lineage_source (categorical)."""
    table: pd.DataFrame
    """One row per distinct combination: label, fine_label, ontology, lineage, subset, source,
    n_cells; most cells first."""

    @property
    def n_unresolved(self) -> int:
        """Cells whose label is ambiguous or unmapped."""
        return int(self.obs["lineage"].isna().sum())

    def unresolved(self) -> pd.DataFrame:
        """Return the rows of the table that name no single lineage."""
        return self.table[self.table["source"].isin(["ambiguous", "unmapped"])]


# --------------------------------------------------------------------------------------------
# shipped tables


def _read_rows(name: str) -> list[list[str]]:
    text = resources.files("senoscore").joinpath("data", name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    width = lines[0].count("\t") + 1
    return [(line.split("\t") + [""] * width)[:width] for line in lines[1:]]


@lru_cache(maxsize=1)
def _ontology() -> tuple[dict[str, Verdict], dict[str, Verdict]]:
    """Terms by id, and by normalised label or synonym where that is unique in lineage."""
    by_id: dict[str, Verdict] = {}
    by_name: dict[str, Verdict] = {}
    synonyms: dict[str, set[Verdict]] = {}
    for term, label, lineage, subset, alternatives in _read_rows("cell_ontology.tsv"):
        entry = Verdict(lineage, subset)
        by_id[term] = entry
        by_name.setdefault(normalise_label(label), entry)
        for name in alternatives.split("|"):
            if len(name) > 3:  # "NK", "PC" and the like are left to the reviewed table
                synonyms.setdefault(normalise_label(name), set()).add(entry)
    for name, entries in synonyms.items():
        if len(entries) == 1:
            by_name.setdefault(name, next(iter(entries)))
    return by_id, by_name


class _Rules(NamedTuple):
    exact: dict[str, Verdict]
    none: list[re.Pattern[str]]
    doublet: list[re.Pattern[str]]
    noise: list[re.Pattern[str]]
    lineage: list[tuple[re.Pattern[str], Verdict]]
    weak: list[tuple[re.Pattern[str], Verdict]]
    subset: list[tuple[re.Pattern[str], Verdict]]


@lru_cache(maxsize=1)
def _rules() -> _Rules:
    rules = _Rules({}, [], [], [], [], [], [])
    for kind, pattern, lineage, subset, _source in _read_rows("label_synonyms.tsv"):
        entry = Verdict(lineage, subset)
        if kind == "exact":
            rules.exact[pattern] = entry
        elif kind == "none":
            rules.none.append(re.compile(pattern))
        elif kind == "doublet":
            rules.doublet.append(re.compile(pattern))
        elif kind == "noise":
            rules.noise.append(re.compile(pattern))
        elif kind == "lineage":
            rules.lineage.append((re.compile(pattern), entry))
        elif kind == "weak":
            rules.weak.append((re.compile(pattern), entry))
        elif kind == "subset":
            rules.subset.append((re.compile(pattern), entry))
        else:
            raise AssertionError(f"label_synonyms.tsv: unknown kind {kind!r}")
    return rules


# --------------------------------------------------------------------------------------------
# one label

_GREEK: Final = {"α": "a", "β": "b", "γ": "g", "δ": "d", "ε": "e", "κ": "kappa", "λ": "lambda"}
# tumour / blood before the type, as in Zilionis 2019: tT cells, bNK cells, tMoMacDC
_TISSUE_PREFIX: Final = re.compile(
    r"^[tb](?=(?:[TBN](?=[\d\s]|$)|NK|PC\d|DC|pDC|Mo|Mac|Mast|CD4T|CD8T|Myeloid|Plasma|Neutro|Baso))"
)
_NEGATIVE: Final = re.compile(
    r"\b(cd\d+[a-z]?)(?:\s*[-–⁻](?=$|[\s,/)]|cd)|\s?-?neg(?:ative)?\b)", re.IGNORECASE
)
_CAMEL: Final = re.compile(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z][a-z])(?=[A-Z][a-z])")
_GLUED: Final = re.compile(r"\b(t|b|nk|nkt|pro b|pre b|dc|treg|plasma|mast)cells?\b")
_NO_WORD: Final = re.compile(r"[^a-z0-9/]+")
_TO_WORDS: Final = {i: " " for i in range(128) if _NO_WORD.match(chr(i))}
_CELLS: Final = re.compile(r"\bcells\b")
_GLUED_T: Final = re.compile(r"\b(cd[48])\s?t(?:cells?)?(\d*)\b")


@lru_cache(maxsize=65536)
def normalise_label(label: str) -> str:
    """Bring a label to lower-case words: no punctuation, no plus signs, no plural of "cells".

    A minus sign after a CD marker is kept as ``cd4neg``, and a slash as a word of its own.

    Examples
    --------
    >>> normalise_label("CD14+ Monocytes"), normalise_label("tNK cells"), normalise_label("γδT")
    ('cd14 monocytes', 'nk cell', 'gd t')
    """
    text = str(label).strip()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).strip()
        for greek, latin in _GREEK.items():
            text = text.replace(greek, latin)
    text = text.replace("gdT", "gd T")
    # an expression is tried only on a text that it can match: there are thousands of them
    lower = text.lower()
    if lower != text:
        text = _CAMEL.sub(" ", _TISSUE_PREFIX.sub("", text))
    if "cd" in lower:
        text = _NEGATIVE.sub(r"\1neg ", text)
    text = text.lower().replace("/", " / ").replace("positive", " ")
    text = text.translate(_TO_WORDS) if text.isascii() else _NO_WORD.sub(" ", text)
    text = " ".join(text.split())
    if "cell" in text:
        text = _GLUED.sub(r"\1 cell", text)
    if "cd" in text:
        text = _GLUED_T.sub(r"\1 t\2", text)
    if "cells" in text:
        text = _CELLS.sub("cell", text)
    return text.strip(" /")


@lru_cache(maxsize=65536)
def map_label(label: str) -> Verdict:
    """Lineage and subset that one label names.

    ``ambiguous`` is a label of two lineages, ``unmapped`` a label of none.

    Examples
    --------
    >>> map_label("CD14+ Monocytes")
    Verdict(lineage='mono_mac', subset='monocyte')
    >>> map_label("T/NK cells").lineage, map_label("Cluster 7").lineage
    ('ambiguous', 'unmapped')
    """
    text = normalise_label(label)
    rules = _rules()
    if not text or any(pattern.search(text) for pattern in rules.none):
        return UNMAPPED
    if any(pattern.search(text) for pattern in rules.doublet):
        return _DOUBLET
    if text in rules.exact:
        return rules.exact[text]
    term = _ontology()[1].get(text)
    if term is not None and term.subset != "other":
        return term
    for pattern in rules.noise:
        text = pattern.sub(" ", text)
    rest = text = " ".join(text.split())
    hits: list[Verdict] = []
    for pattern, entry in rules.lineage:
        shorter = pattern.sub(" ; ", rest)
        if shorter != rest:
            hits.append(entry)
            rest = shorter
    lineages = {entry.lineage for entry in hits}
    if len(lineages) > 1:
        return Verdict("ambiguous", "")
    if lineages:
        lineage = lineages.pop()
        for pattern, entry in rules.subset:
            if entry.lineage == lineage and pattern.search(text):
                return entry
        subsets = {entry.subset for entry in hits} - {lineage}
        return Verdict(lineage, subsets.pop() if len(subsets) == 1 else lineage)
    if term is not None:  # a tissue cell without a group of its own
        return term
    for pattern, entry in rules.weak:
        if pattern.search(text):
            return entry
    return UNMAPPED


def map_term(term: str) -> Verdict:
    """Lineage and subset of a Cell Ontology id (``CL:0000084``, also ``CL_0000084``).

    Examples
    --------
    >>> map_term("CL:0000786")
    Verdict(lineage='B', subset='plasma')
    """
    key = str(term).strip().replace("CL_", "CL:")
    return _ontology()[0].get(key, UNMAPPED)


# --------------------------------------------------------------------------------------------
# all cells


def label_codes(
    values: Sequence[object] | NDArray[Any] | pd.Series | None, n: int
) -> tuple[NDArray[np.int64], list[str]]:
    """Labels as positions in the distinct labels; -1 is missing, and so is every cell of None."""
    import pandas as pd

    if values is None:
        return np.full(n, -1, dtype=np.int64), []
    series = pd.Series(values)
    if len(series) != n:
        raise ValueError(f"labels of {n} cells and of {len(series)} cells do not go together")
    if isinstance(series.dtype, pd.CategoricalDtype):
        return series.cat.codes.to_numpy(np.int64), [str(c) for c in series.cat.categories]
    codes, uniques = pd.factorize(series, use_na_sentinel=True)
    return codes.astype(np.int64), [str(u) for u in uniques]


def _combine(
    term: Verdict | None, label: Verdict | None, fine: Verdict | None
) -> tuple[Verdict, str]:
    """One verdict from the three opinions on a cell: see :func:`map_labels`."""
    opinions = [
        (source, entry)
        for source, entry in (("ontology", term), ("label", label), ("fine_label", fine))
        if entry is not None
    ]
    if any(entry.subset == "doublet" for _, entry in opinions):
        return _DOUBLET, "ambiguous"
    named = [(source, entry) for source, entry in opinions if entry.lineage in LINEAGES]
    if not named:
        if any(entry.lineage == "ambiguous" for _, entry in opinions):
            return Verdict("ambiguous", ""), "ambiguous"
        return UNMAPPED, "unmapped"
    source, best = named[0]
    if best.subset in (best.lineage, "other"):
        for _, entry in named[1:]:
            if entry.lineage == best.lineage and entry.subset not in (entry.lineage, "other"):
                return entry, source
    if best == Verdict("T", "CD4"):  # a regulatory T cell is the finer name of a CD4 cell
        for _, entry in named[1:]:
            if entry == Verdict("T", "Treg"):
                return entry, source
    return best, source


def map_labels(
    labels: pd.Series | Sequence[object] | None,
    *,
    fine: pd.Series | Sequence[object] | None = None,
    ontology: pd.Series | Sequence[object] | None = None,
) -> LabelMap:
    """Lineage and subset of every cell from what its authors called it.

    The ontology term decides where it names one lineage, else the label, else the finer label.
    A subset left open by the one that decides is taken from the next that agrees on the lineage.
    If any of the three calls the cell a doublet, it stays ambiguous.

    Parameters
    ----------
    labels
        Cell-type label per cell; a Series keeps its index in the result.
    fine
        A second, finer label per cell.
    ontology
        Cell Ontology id per cell.

    Returns
    -------
    Lineage per cell (NaN where ambiguous or unmapped) and the table of distinct labels.

    Examples
    --------
    >>> found = map_labels(["tMoMacDC", "tMoMacDC", "B cells"], fine=["tMac3", "tMonoDC", None])
    >>> found.obs["lineage"].astype(object).tolist()
    ['mono_mac', nan, 'B']
    """
    import pandas as pd

    first = next((v for v in (labels, fine, ontology) if v is not None), None)
    if first is None:
        raise ValueError("map_labels needs labels, fine labels or ontology terms")
    n = len(first)
    index = next((v.index for v in (labels, fine, ontology) if isinstance(v, pd.Series)), None)
    main_codes, label_names = label_codes(labels, n)
    fine_codes, fine_names = label_codes(fine, n)
    term_codes, term_names = label_codes(ontology, n)
    key = ((main_codes + 1) * (len(fine_names) + 1) + fine_codes + 1) * (len(term_names) + 1)
    combos, inverse, counts = np.unique(
        key + term_codes + 1, return_inverse=True, return_counts=True
    )
    verdicts: list[tuple[Verdict, str]] = []
    named: list[tuple[str, str, str]] = []
    for combo in combos.tolist():
        rest, t = divmod(combo, len(term_names) + 1)
        a, b = divmod(rest, len(fine_names) + 1)
        term = term_names[t - 1] if t else ""
        label = label_names[a - 1] if a else ""
        finer = fine_names[b - 1] if b else ""
        named.append((label, finer, term))
        verdicts.append(
            _combine(
                map_term(term) if t else None,
                map_label(label) if a else None,
                map_label(finer) if b else None,
            )
        )
    table = pd.DataFrame(named, columns=["label", "fine_label", "ontology"])
    table["lineage"] = [v.lineage if v.lineage in LINEAGES else "" for v, _ in verdicts]
    table["subset"] = [v.subset for v, _ in verdicts]
    table["source"] = [source for _, source in verdicts]
    table["n_cells"] = counts
    obs = per_cell(
        [v.lineage if v.lineage in LINEAGES else None for v, _ in verdicts],
        [v.subset or None for v, _ in verdicts],
        [source for _, source in verdicts],
        inverse,
        index,
    )
    order = np.argsort(-counts, kind="stable")
    return LabelMap(obs, table.iloc[order].reset_index(drop=True))


def per_cell(
    lineage: Sequence[str | None],
    subset: Sequence[str | None],
    source: Sequence[str],
    inverse: NDArray[np.intp],
    index: pd.Index | None,
) -> pd.DataFrame:
    """Spread the verdicts of distinct groups over the cells, as categoricals."""
    import pandas as pd

    t_subset = [s if name == "T" else None for name, s in zip(lineage, subset, strict=True)]

    def spread(values: Sequence[str | None], categories: Iterable[str]) -> pd.Categorical:
        codes = pd.Categorical(list(values), categories=list(categories)).codes
        return pd.Categorical.from_codes(codes[inverse], categories=list(categories))

    return pd.DataFrame(
        {
            "lineage": spread(lineage, LINEAGES),
            "lineage_subset": spread(subset, sorted({s for s in subset if s})),
            "t_subset": spread(t_subset, T_SUBSETS),
            "lineage_source": spread(source, [*SOURCES, "markers"]),
        },
        index=index if index is not None else pd.RangeIndex(len(inverse)),
    )


# --------------------------------------------------------------------------------------------
# marker genes, for `senoscore.markers`


class Marker(NamedTuple):
    """One row of ``data/lineage_markers.tsv`` for one organism."""

    kind: str
    lineage: str
    subset: str
    gene: str
    level: float
    weight: float
    exclusive: bool


@lru_cache(maxsize=4)
def read_markers(organism: str | None) -> tuple[Marker, ...]:
    """The marker genes of an organism; of human where it is not known."""
    found = []
    for kind, lineage, subset, human, mouse, level, weight, exclusive, _ in _read_rows(
        "lineage_markers.tsv"
    ):
        gene = mouse if organism == "mouse" else human
        if gene:
            found.append(
                Marker(kind, lineage, subset, gene, float(level), float(weight), exclusive == "yes")
            )
    return tuple(found)


T_GENES: Final = {
    "human": ("CD4", "CD8A", "CD8B", "FOXP3", "IL2RA", "CTLA4", "TRDC", "TRGC1", "TRGC2", "TRDV1",
              "TRDV2", "SLC4A10", "TRAV1-2", "KLRB1", "TRAC", "TRBC1", "TRBC2"),
    "mouse": ("Cd4", "Cd8a", "Cd8b1", "Foxp3", "Il2ra", "Ctla4", "Trdc", "Trgc1", "Trgc2", "Trdv4",
              "Trdv1", "Slc4a10", "Trav1", "Klrb1c", "Trac", "Trbc1", "Trbc2"),
}  # fmt: skip


def marker_genes(organism: str | None) -> list[str]:
    """Symbols of every gene by which lineages and T-cell subsets are told apart, sorted."""
    names = {marker.gene for marker in read_markers(organism)}
    names.update(T_GENES["mouse" if organism == "mouse" else "human"])
    return sorted(names)

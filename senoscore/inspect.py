"""What a single-cell file holds, found from its structure and from small samples of its matrix.

:func:`inspect_file` answers the questions every later stage has (where are the counts, what is X,
which columns are the cell types, the donors, the condition) without loading the matrix. Each
answer is a :class:`Fact`: a value, and in words how it was found. What is missing is a sentence in
``Facts.notes`` that says what it costs.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping as MappingABC
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from senoscore._columns import Column, FrameTable, GroupTable, Table, as_text, attr_text, is_array
from senoscore._scales import LOG_SCALES, SCALES, GroupMatrix, Matrix, MemoryMatrix, Scale, classify
from senoscore.errors import InputDataError
from senoscore.io.h5 import (
    PROTEIN_MODALITIES,
    UnreadableMatrixError,
    matrix_header,
    matrix_keys,
    matrix_node,
    modalities,
    safe_h5_open,
)
from senoscore.keys import LINEAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fact:
    """One thing known about a file, and how it is known."""

    value: Any
    how: str

    def __bool__(self) -> bool:
        return self.value is not None


@dataclass(frozen=True)
class Facts:
    """Everything later stages need to know about a file before they read it."""

    path: str
    n_obs: int
    n_vars: int
    counts: Fact
    expression: Fact
    scale: Fact
    x_scale: Fact
    gene_names: Fact
    gene_kind: Fact
    organism: Fact
    cell_type: Fact
    cell_type_fine: Fact
    cell_type_ontology: Fact
    cluster: Fact
    donor: Fact
    sample: Fact
    condition: Fact
    age: Fact
    is_primary_data: Fact
    suspension_type: Fact
    embeddings: Fact
    protein: Fact
    storage: Fact
    nnz: Fact
    file_bytes: Fact
    notes: tuple[str, ...]

    @property
    def matrix(self) -> str | None:
        """Key of the matrix to score: the counts, or else logged values; None if there is neither."""
        key: str | None = self.counts.value or self.expression.value
        return key

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; :meth:`from_dict` is the way back."""
        result: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Fact):
                value = {"value": value.value, "how": value.how}
            elif isinstance(value, tuple):
                value = list(value)
            result[field.name] = value
        return result

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Facts:
        """Rebuild Facts from :meth:`to_dict`."""
        made: dict[str, Any] = {}
        for field in fields(cls):
            if field.name not in data:
                raise InputDataError(f"facts: {field.name!r} is missing; inspect the file again")
            value = data[field.name]
            if isinstance(value, MappingABC):
                value = Fact(value["value"], value["how"])
            elif field.name == "notes":
                value = tuple(value)
            made[field.name] = value
        return cls(**made)

    def describe(self) -> str:
        """Return the text that ``senoscore inspect`` prints."""
        lines = [
            self.path or "AnnData in memory",
            f"{self.n_obs:,} cells x {self.n_vars:,} genes",
            "",
        ]
        width = max(len(title) for _, title in _TITLES)
        for name, title in _TITLES:
            fact: Fact = getattr(self, name)
            value = fact.value
            if isinstance(value, list):
                value = ", ".join(str(item) for item in value) or None
            elif isinstance(value, int) and not isinstance(value, bool):
                value = f"{value:,}"
            shown = "-" if value is None else str(value)
            lines.append(f"{title:<{width}}  {shown}" + (f"  ({fact.how})" if fact.how else ""))
        if self.notes:
            lines += ["", "Notes", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines)


_TITLES: Final = (
    ("counts", "raw counts"),
    ("expression", "expression"),
    ("scale", "its scale"),
    ("x_scale", "X holds"),
    ("gene_names", "gene names"),
    ("gene_kind", "gene ids"),
    ("organism", "organism"),
    ("cell_type", "cell types"),
    ("cell_type_fine", "finer types"),
    ("cell_type_ontology", "ontology terms"),
    ("cluster", "clusters"),
    ("donor", "donor"),
    ("sample", "sample"),
    ("condition", "condition"),
    ("age", "age"),
    ("is_primary_data", "primary data"),
    ("suspension_type", "suspension"),
    ("embeddings", "embeddings"),
    ("protein", "protein"),
    ("storage", "storage"),
    ("nnz", "stored values"),
    ("file_bytes", "file size"),
)

# --------------------------------------------------------------------------------------------
# stores: a file or an AnnData, seen the same way


class _Store:
    """The parts of one data set that inspection looks at."""

    path: str
    file_bytes: int | None
    obs: Table
    var: Table
    raw_var: Table | None
    obsm: list[str]
    keys: list[str]
    """The matrices, as ``X``, ``raw.X``, ``layers/NAME``."""
    modalities: Sequence[str] = ()
    """Of a MuData file, the one that is looked at among them."""

    def matrix(self, key: str) -> Matrix:
        raise NotImplementedError

    def obsm_shape(self, key: str) -> tuple[int, ...]:
        raise NotImplementedError

    def obsm_columns(self, key: str) -> list[str]:
        raise NotImplementedError

    def uns(self, key: str) -> Any:
        """Return a small value of uns (text, number, list of text) or None."""
        raise NotImplementedError

    def uns_keys(self) -> list[str]:
        raise NotImplementedError


class _GroupStore(_Store):
    def __init__(self, root: Any, path: Path) -> None:
        self._root: Any = root
        self.path = str(path)
        self.file_bytes = _size(path)
        keys = list(root.keys())
        for part in ("obs", "var"):
            if part not in keys:
                raise InputDataError(_not_anndata(path, keys, part))
        self.obs, self.var = GroupTable(root, "obs"), GroupTable(root, "var")
        self._path = path
        self.modalities = modalities(root)
        self.keys = matrix_keys(root)
        raw_var = next((name for name in ("raw/var", "raw.var") if name in root), None)
        if "raw.X" in self.keys and raw_var is None:
            raise InputDataError("raw.X has no var beside it: its genes are not named")
        self.raw_var = None if raw_var is None else GroupTable(root, raw_var)
        obsm: Any = root["obsm"] if "obsm" in keys else None
        self._obsm: Any = obsm
        if obsm is None:
            self.obsm = []
        elif is_array(obsm):  # anndata 0.6: one array of records
            self.obsm = list(obsm.dtype.names or ())
        else:
            self.obsm = list(obsm.keys())

    def matrix(self, key: str) -> Matrix:
        header = matrix_header(self._root, key, self._path)
        return GroupMatrix(matrix_node(self._root, key, self._path), header)

    def obsm_shape(self, key: str) -> tuple[int, ...]:
        if is_array(self._obsm):
            return (self.obs.n, *self._obsm.dtype[key].shape)
        node = self._obsm[key]
        if is_array(node):
            if node.dtype.names:
                return (int(node.shape[0]), len(node.dtype.names))
            return tuple(int(v) for v in node.shape)
        if "shape" in node.attrs:
            return tuple(int(v) for v in node.attrs["shape"])
        return (self.obs.n, len(self.obsm_columns(key)))

    def obsm_columns(self, key: str) -> list[str]:
        if is_array(self._obsm):
            return []
        node = self._obsm[key]
        if is_array(node):
            return list(node.dtype.names or ())
        if attr_text(node, "encoding-type") == "dataframe":
            return GroupTable(self._root, f"obsm/{key}").names
        return []

    def uns_keys(self) -> list[str]:
        uns = self._root.get("uns")
        return [] if uns is None or is_array(uns) else list(uns.keys())

    def uns(self, key: str) -> Any:
        uns = self._root.get("uns")
        if uns is None or is_array(uns) or key not in uns:
            return None
        node = uns[key]
        if not is_array(node) or int(np.prod(node.shape)) > 10_000:
            return None
        value = np.asarray(node[()])
        if value.dtype.kind in "OSUT":
            text = [str(v) for v in as_text(np.atleast_1d(value))]
            return text[0] if value.ndim == 0 or len(text) == 1 else text
        return value.item() if value.size == 1 else None


class _AnnDataStore(_Store):
    def __init__(self, adata: AnnData) -> None:
        self._adata = adata
        self.path = str(adata.filename or "")
        self.file_bytes = _size(Path(self.path)) if self.path else None
        self.obs, self.var = FrameTable(adata.obs), FrameTable(adata.var)
        self.raw_var = FrameTable(adata.raw.var) if adata.raw is not None else None
        self.obsm = list(adata.obsm)
        self.keys = [
            *(["X"] if adata.X is not None else []),
            *(["raw.X"] if adata.raw is not None else []),
            *(f"layers/{name}" for name in sorted(adata.layers)),
        ]

    def matrix(self, key: str) -> Matrix:
        if key == "X":
            return MemoryMatrix(self._adata.X, key)
        if key == "raw.X":
            return MemoryMatrix(self._adata.raw.X, key)
        return MemoryMatrix(self._adata.layers[key.removeprefix("layers/")], key)

    def obsm_shape(self, key: str) -> tuple[int, ...]:
        return tuple(int(v) for v in self._adata.obsm[key].shape)

    def obsm_columns(self, key: str) -> list[str]:
        return [str(c) for c in getattr(self._adata.obsm[key], "columns", [])]

    def uns_keys(self) -> list[str]:
        return [str(k) for k in self._adata.uns]

    def uns(self, key: str) -> Any:
        value = self._adata.uns.get(key)
        if isinstance(value, (list, tuple, np.ndarray)):
            flat = list(np.asarray(value).ravel().tolist())
            return flat[0] if len(flat) == 1 else [str(v) for v in flat[:10_000]]
        return value if isinstance(value, (str, int, float, bool)) else None


def _size(path: Path) -> int | None:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size if path.exists() else None


def _not_anndata(path: Path, keys: Sequence[str], part: str) -> str:
    name = path.name
    if "matrix" in keys or path.suffix == ".h5":
        return (
            f"{name} is no h5ad file but looks like a 10x matrix; convert it first "
            "(scanpy.read_10x_h5(...).write_h5ad(...))"
        )
    found = ", ".join(sorted(keys)[:8]) or "nothing"
    return f"{name} is no h5ad file: it has no {part!r} (it holds {found})"


# --------------------------------------------------------------------------------------------
# genes

_ENSEMBL: Final = re.compile(r"ENS[A-Z]{0,4}G\d{11}(\.\d+)?(_PAR_Y)?")
_PREFIX: Final = re.compile(
    r"^(hg19|hg38|grch3[78]|mm10|mm9|grcm3[89]|human|mouse)_+", re.IGNORECASE
)
_NAME_COLUMNS: Final = (
    "feature_name",
    "gene_symbols",
    "gene_symbol",
    "gene_name",
    "gene_names",
    "symbol",
    "symbols",
    "SYMBOL",
    "gene_short_name",
    "gene",
    "features",
    "original_gene_symbols",
    "feature_id",
    "gene_ids",
    "gene_id",
    "ensembl_id",
    "ensembl",
    "ensembl_ids",
    "ENSEMBL",
    "ensembl_gene_id",
)


def _name_kind(names: Sequence[str]) -> tuple[str, float]:
    """What kind of gene ids these are, and the share of names that are of that kind."""
    if not names:
        return "none", 0.0
    picked = [names[i] for i in np.linspace(0, len(names) - 1, min(len(names), 3000)).astype(int)]
    stripped = [name.strip() for name in picked]
    kinds: dict[str, int] = {}
    for name in stripped:
        kinds[_one_kind(name)] = kinds.get(_one_kind(name), 0) + 1
    ensembl = kinds.get("ensembl", 0) + kinds.get("ensembl_version", 0)
    n = len(picked)
    if ensembl > 0.5 * n:
        kind = "ensembl_version" if kinds.get("ensembl_version", 0) > 0.5 * ensembl else "ensembl"
        return kind, ensembl / n
    best = max(kinds, key=lambda kind: kinds[kind])
    return best, kinds[best] / n


def _one_kind(name: str) -> str:
    prefix = _PREFIX.match(name)
    if prefix:
        return f"prefixed {prefix.group(0)}"
    found = _ENSEMBL.fullmatch(name)
    if found:
        return "ensembl_version" if found.group(1) else "ensembl"
    if re.fullmatch(r"\d+(\.\d+)?", name) or not name:
        return "number"
    return "symbol" if re.search(r"[A-Za-z]", name) else "unknown"


_KIND_WORDS: Final = {
    "ensembl": "Ensembl ids",
    "ensembl_version": "Ensembl ids with version",
    "symbol": "gene symbols",
    "number": "numbers, not gene names",
    "unknown": "not recognised",
    "none": "no names",
}


def _gene_facts(var: Table) -> tuple[Fact, Fact, list[str]]:
    index = var.index()
    kind, share = _name_kind(index)
    choice, best, names = "index", kind, index
    how = f"the index holds {_kind_words(kind)} ({100 * share:.0f} %)"
    if not kind.startswith("ensembl"):
        for wanted in ("ensembl", "symbol"):
            if wanted == "symbol" and kind not in ("number", "unknown", "none"):
                break
            for column in _NAME_COLUMNS:
                held = var.column(column) if column in var.names else None
                if held is None or held.codes is None:
                    continue
                values = [str(v) for v in np.append(held.values, "")[held.codes]]
                if len(values) != var.n:
                    continue
                other, other_share = _name_kind(values)
                if other.startswith(wanted) and other_share > 0.95:
                    choice, best, names = column, other, values
                    how = (
                        f"var column {column!r} holds {_kind_words(other)}, "
                        f"the index {_kind_words(kind)}"
                    )
                    break
            if choice != "index":
                break
    return Fact(choice, how), Fact(best, _kind_words(best)), names


def _kind_words(kind: str) -> str:
    if kind.startswith("prefixed"):
        return f"gene symbols with the prefix {kind.removeprefix('prefixed ')!r}"
    return _KIND_WORDS.get(kind, kind)


_ORGANISMS: Final = {
    "ncbitaxon:9606": "human",
    "homo sapiens": "human",
    "human": "human",
    "h sapiens": "human",
    "hs": "human",
    "ncbitaxon:10090": "mouse",
    "mus musculus": "mouse",
    "mouse": "mouse",
    "mm": "mouse",
}


def _organism_word(text: str) -> str:
    key = text.strip().replace("NCBITaxon_", "NCBITaxon:").lower()
    return _ORGANISMS.get(key, _ORGANISMS.get(key.replace("_", " "), text.strip()))


def _organism(store: _Store, names: Sequence[str], notes: list[str]) -> Fact:
    from senoscore.genes import guess_organism

    some = np.linspace(0, len(names) - 1, min(len(names), 4000)).astype(int)
    guess, guess_how = guess_organism([names[i] for i in some])
    said: str | None = None
    how = ""
    for key in ("organism_ontology_term_id", "organism"):
        value = store.uns(key)
        if isinstance(value, str) and value:
            said, how = _organism_word(value), f"uns[{key!r}] is {value!r}"
            break
    if said is None:
        for name in ("organism_ontology_term_id", "organism", "species", "Species", "Organism"):
            column = store.obs.column(name) if name in store.obs.names else None
            if column is None or column.codes is None:
                continue
            used = column.used()
            words = sorted({_organism_word(v) for v in used})
            if len(words) == 1:
                said, how = words[0], f"obs column {name!r} is {used[0]!r}"
            elif words:
                notes.append(
                    f"Several organisms in obs column {name!r} ({', '.join(used[:4])}): one run "
                    "can use one; the gene names decide."
                )
            break
    if said is None:
        if guess is None:
            notes.append(
                "The organism is not known: neither the file nor its gene names say it; set it "
                "in the configuration, or nothing can be scored."
            )
            return Fact(None, guess_how)
        return Fact(guess, guess_how)
    if said not in ("human", "mouse"):
        notes.append(
            f"Organism {said} is not supported: signatures exist for human and mouse only."
        )
    elif guess is not None and guess != said:
        notes.append(f"The file says {said}, but its gene names look like {guess} ({guess_how}).")
    return Fact(said, how)


# --------------------------------------------------------------------------------------------
# columns


def _words(name: str) -> str:
    """Column name as lower-case words: ``Major.cell.type`` -> ``major cell type``."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


_TYPE_STRONG: Final = re.compile(
    r"cell ?types?\b|cell ?type\b|celltype|cell (?:label|class|subset|annotation|identity|ontology class)"
    r"|\bannotations?\b|bulk labels|minor subset|major (?:type|subset)"
)
_TYPE_WEAK: Final = re.compile(
    r"cluster|louvain|leiden|ident|subset|lineage|compartment|label|author|class|type|voting"
)
_NOT_TYPE: Final = re.compile(
    r"\b(?:tissue|source|sample|donor|patient|disease|condition|organ|batch|sex|ethnicity|assay|"
    r"therapy|treatment|response|respond|responder|phase|barcode|clono|clone|library|stage|organism|"
    r"species|ontology term id|suspension|stim|status|diagnosis|chain|locus|gene|suspension type|"
    r"tissue type|cdr3|junction|observation joinid)\b|\bct(?:gene|nt|aa|strict)\b|\bir v"
)
_PREDICTED: Final = re.compile(
    r"predict|likely|lm22|singler|azimuth|celltypist|reference|scmap|transfer|automat|imputed|voting"
)


MAX_LABELS: Final = 1000
"""More distinct values than this are no cell types."""


class _Candidate(NamedTuple):
    name: str
    column: Column
    lineages: NDArray[np.int64]
    """Per cell: position in LINEAGES, -1 ambiguous or unmapped."""
    subsets: NDArray[Any]
    """Per distinct label: the subset."""
    share: float
    n_labels: int
    predicted: str
    """Empty for the authors' own labels, else in words whose prediction it is."""
    strong: bool
    score: float


def _label_candidates(obs: Table, n_obs: int) -> list[_Candidate]:
    """Columns whose labels name lineages, best first."""
    from senoscore.lineages import map_label

    position = {name: i for i, name in enumerate(LINEAGES)}
    found: list[_Candidate] = []
    for name in obs.names:
        words = _words(name)
        if _NOT_TYPE.search(words):
            continue
        strong = bool(_TYPE_STRONG.search(words))
        if not obs.is_text(name):
            continue
        known = obs.categories(name)
        # most columns can be told by their categories alone, before their cells are read
        if known is not None and not strong and (len(known) > MAX_LABELS or not _immune(known)):
            continue
        column = obs.column(name)
        if column is None or column.codes is None or not len(column.values):
            continue
        if len(column.values) > MAX_LABELS or (len(column.values) > 0.5 * n_obs and n_obs > 20):
            continue
        entries = [map_label(str(v)) for v in column.values]
        table = np.array([position.get(entry.lineage, -1) for entry in entries] + [-1])
        lineages = table[column.codes]
        share = float((lineages >= 0).mean()) if len(lineages) else 0.0
        if not strong:
            immune = np.isin(table[:-1], [position[x] for x in LINEAGES if x != "other"]).sum()
            if share == 0 or immune == 0:
                continue
            if not _TYPE_WEAK.search(words) and (share < 0.5 or immune < 2):
                continue
        subsets = np.array([entry.subset for entry in entries] + [""], dtype=object)
        found.append(
            _Candidate(
                name,
                column,
                lineages,
                subsets,
                share,
                int((column.counts() > 0).sum()),
                "predicted by a program" if _PREDICTED.search(words) else "",
                strong,
                0.0,
            )
        )
    predicted = [c for c in found if c.predicted]
    scored = []
    for c in found:
        copied = next((p.name for p in predicted if p.name != c.name and _same(p, c)), None)
        whose = c.predicted or (f"the same as {copied!r}, a program's prediction" if copied else "")
        score = c.share + (0.25 if c.strong else 0.1) - (0.6 if whose else 0.0)
        scored.append(c._replace(predicted=whose, score=score))
    return sorted(scored, key=lambda c: (-c.score, c.name != "cell_type", c.n_labels, len(c.name)))


def _immune(labels: Sequence[str]) -> bool:
    """Whether any label names an immune lineage."""
    from senoscore.lineages import map_label

    return any(map_label(v).lineage in LINEAGES and map_label(v).lineage != "other" for v in labels)


def _same(a: _Candidate, b: _Candidate) -> bool:
    """Whether two columns hold the same label in every cell."""
    one, two = a.column.codes, b.column.codes
    if one is None or two is None or len(one) != len(two):
        return False
    left = np.append(a.column.values, "").astype(object)
    right = {str(v): i for i, v in enumerate(b.column.values)}
    table = np.array([right.get(str(v), -2) for v in left[:-1]] + [-1])
    return bool((table[one] == two).all())


def _cell_types(store: _Store, notes: list[str]) -> tuple[Fact, Fact, Fact, list[_Candidate]]:
    obs, n = store.obs, store.obs.n
    ontology = Fact(None, "no column of Cell Ontology ids")
    name = "cell_type_ontology_term_id"
    if name in obs.names:
        column = obs.column(name)
        if column is not None and column.codes is not None:
            used = column.used()
            terms = [v for v in used if v.startswith(("CL:", "CL_"))]
            if terms:
                ontology = Fact(name, f"CELLxGENE column, {len(terms)} Cell Ontology ids")
                strange = [v for v in used if v not in terms and v not in ("unknown", "na")]
                if strange:
                    notes.append(
                        f"{name} holds values that are no Cell Ontology ids: "
                        f"{', '.join(strange[:4])}; those cells go by their label or markers."
                    )
    candidates = _label_candidates(obs, n)
    curated = ontology.value is not None and "cell_type" in obs.names
    main = next((c for c in candidates if c.name == "cell_type"), None) if curated else None
    if main is not None:
        how = f"CELLxGENE column, {100 * main.share:.0f} % of cells name one lineage"
    else:
        main = next(
            (c for c in candidates if c.share >= 0.2 or (c.strong and 2 <= c.n_labels <= 200)), None
        )
        if main is None:
            if ontology.value is None:
                notes.append(
                    "No cell-type labels: lineages come from markers per cluster, which costs "
                    "certainty for rare types."
                )
            none = Fact(None, "no column names immune lineages")
            return none, none, ontology, candidates
        how = (
            f"{main.n_labels} labels, {100 * main.share:.0f} % of cells name one lineage"
            if main.share
            else f"named like cell types, but none of its {main.n_labels} labels names a lineage"
        )
    if main.predicted:
        how += f"; {main.predicted}"
    others = [c.name for c in candidates if c is not main and c.share > 0.3]
    if others:
        how += f"; alternatives: {', '.join(others[:5])}"
    cell_type = Fact(main.name, how)
    fine = _finer(main, candidates)
    return cell_type, fine, ontology, candidates


def _finer(main: _Candidate, candidates: Sequence[_Candidate]) -> Fact:
    """Find the column that resolves or refines the labels of the main one."""
    best: tuple[float, _Candidate, str] | None = None
    n = len(main.lineages)
    codes = main.column.codes
    if codes is None or not n:
        return Fact(None, "no column is finer than the cell types")
    vague = [*LINEAGES, "", "other"]
    vague_main = np.isin(main.subsets, vague)[codes]
    for c in candidates:
        if c is main or len(c.lineages) != n or c.column.codes is None:
            continue
        both = (main.lineages >= 0) & (c.lineages >= 0)
        if both.any() and (main.lineages[both] == c.lineages[both]).mean() < 0.8:
            continue
        resolves = int(((main.lineages < 0) & (c.lineages >= 0)).sum())
        specific = ~np.isin(c.subsets, vague)[c.column.codes]
        refines = int((vague_main & specific & both & (main.lineages == c.lineages)).sum())
        if c.predicted:
            refines = 0
        gain = resolves + 0.5 * refines - (0.25 * resolves if c.predicted else 0.0)
        if gain >= max(1.0, 0.01 * n) and (best is None or gain > best[0]):
            parts = []
            if resolves:
                parts.append(
                    f"names a lineage for {resolves:,} cells that {main.name!r} leaves open"
                )
            if refines:
                parts.append(f"a finer subset for {refines:,}")
            best = (gain, c, " and ".join(parts))
    if best is None:
        return Fact(None, "no column is finer than the cell types")
    _, chosen, why = best
    return Fact(chosen.name, "; ".join(part for part in (why, chosen.predicted) if part))


_CLUSTER: Final = re.compile(
    r"^(?:leiden|louvain|seurat clusters|clusters?|cluster id|clusterid|phenograph|pheno leiden)\b"
    r"|\bsnn res\b|^(?:leiden|louvain) "
)


def _cluster(obs: Table, used: set[str]) -> Fact:
    hits: list[tuple[int, str, int]] = []
    for name in obs.names:
        words = _words(name)
        if name in used or not _CLUSTER.search(words):
            continue
        groups = _distinct(obs.column(name))
        if groups is None or not 2 <= len(groups) <= 500:
            continue
        rank = 0 if re.match(r"leiden|louvain|seurat clusters|phenograph", words) else 1
        hits.append((rank, name, len(groups)))
    if not hits:
        taken = [name for name in used if name and _CLUSTER.search(_words(name))]
        if taken:
            return Fact(None, f"{taken[0]!r} holds labels and is used as cell types")
        return Fact(None, "no column of clusters")
    _, name, size = min(hits, key=lambda hit: hit[0])
    return Fact(name, f"{size} clusters without names")


def _distinct(column: Column | None) -> list[str] | None:
    """Distinct values in use, as text; None where there are too many to be groups."""
    if column is None:
        return None
    if column.codes is not None:
        return column.used()
    values = column.values
    if column.kind == "number":
        values = values[np.isfinite(values.astype(np.float64))]
        if len(values) and not (values == np.rint(values)).all():
            return None
    uniques = np.unique(values)
    if len(uniques) > 5000:
        return None
    return [f"{v:g}" if isinstance(v, float) else str(v) for v in uniques.tolist()]


_DONOR: Final = (
    r"donor id",
    r"donor|donors|donorid",
    r"patient id|patientid|patient|patients|pt",
    r"individual id|individual|individuals",
    r"subject id|subjectid|subject|subjects|participant|participant id|person|case id|animal|mouse id|mouse",
    r"orig donor|donor .*|patient .*|.* donor|.* patient",
)
_SAMPLE: Final = (
    r"sample id|sampleid|sample|samples|sample name|biosample id",
    r"library id|library|libraryid|library uuid",
    r"orig ident",
    r"batch|batch id|lane|channel|run|pool|gem|dataset|dataset id|datasetid|emulsion|barcoding emulsion",
)
_CONDITION: Final = (
    r"disease",
    r"condition|conditions",
    r"stim|stimulation|stimulus",
    r"status|disease status|health|health status|diagnosis|group|case control",
    r"treatment|therapy|drug|perturbation",
    r"respond|response|responder",
    r"disease ontology term id",
    r"tissue|source|location|organ|site|tissue type",
    r"pre post|timepoint|time point|time|day|visit",
)
_AGE: Final = (
    r"age|age years|age yrs|age at .*|donor age|patient age|age group|age months|age weeks",
    r"development stage|developmental stage|stage",
    r"development stage ontology term id",
)
_UNKNOWN_DONORS: Final = {"pooled", "unknown", "na", "nan", "n/a", "none", "not available", ""}


def _named(obs: Table, patterns: Iterable[str]) -> list[str]:
    """Columns whose words match, in the order of the patterns."""
    words = {name: _words(name) for name in obs.names}
    found: list[str] = []
    for pattern in patterns:
        found += [n for n in obs.names if n not in found and re.fullmatch(pattern, words[n])]
    return found


def _samples(obs: Table) -> Fact:
    fallback: Fact | None = None
    for name in _named(obs, _SAMPLE):
        groups = _distinct(obs.column(name))
        if not groups:
            continue
        fact = Fact(name, f"{len(groups)} samples")
        if len(groups) == obs.n and obs.n > 1:
            return Fact(name, "one sample per observation: bulk or pooled profiles")
        if len(groups) > 1:
            return fact
        if _words(name) not in ("orig ident", "batch", "dataset"):
            fallback = fallback or Fact(name, f"one sample ({groups[0]})")
    return fallback or Fact(None, "no sample column")


def _donors(obs: Table, sample: Fact, notes: list[str]) -> Fact:
    for name in _named(obs, _DONOR):
        groups = _distinct(obs.column(name))
        if not groups or (len(groups) > 0.5 * obs.n and obs.n > 20):
            continue
        odd = [g for g in groups if g.strip().lower() in _UNKNOWN_DONORS]
        if len(odd) == len(groups):
            notes.append(
                f"Donor column {name!r} names nobody: it holds {', '.join(map(repr, odd))}."
            )
            continue
        if odd:
            notes.append(
                f"Donor column {name!r} holds {', '.join(repr(g) for g in odd)}: those cells "
                "cannot be counted as one person and are left out of donor comparisons."
            )
        return Fact(name, f"{len(groups) - len(odd)} donors")
    if sample.value is not None and "per observation" not in sample.how:
        notes.append(
            f"No donor column: {sample.value!r} stands in for donors; two samples of one person "
            "would count as two."
        )
        return Fact(sample.value, f"no donor column; samples stand in ({sample.how})")
    notes.append("No donor column: groups cannot be compared, cells are no replicates.")
    return Fact(None, "no donor or sample column")


def _conditions(obs: Table, taken: set[str | None]) -> Fact:
    others: list[tuple[str, int]] = []
    for name in _named(obs, _CONDITION):
        if name in taken:
            continue
        groups = _distinct(obs.column(name))
        if groups and 2 <= len(groups) <= 50 and len(groups) < obs.n:
            others.append((name, len(groups)))
    if not others:
        return Fact(None, "no column tells two conditions apart")
    name, size = others[0]
    how = f"{size} groups"
    if len(others) > 1:
        how += f"; alternatives: {', '.join(n for n, _ in others[1:5])}"
    return Fact(name, how)


def _ages(obs: Table) -> Fact:
    for name in _named(obs, _AGE):
        column = obs.column(name)
        groups = _distinct(column)
        if column is not None and column.kind == "number":
            return Fact(name, "numbers")
        if groups:
            return Fact(name, f"{len(groups)} values, e.g. {groups[0]}")
    return Fact(None, "no age column")


def _primary(obs: Table, notes: list[str]) -> Fact:
    if "is_primary_data" not in obs.names:
        return Fact(None, "no is_primary_data column")
    column = obs.column("is_primary_data")
    if column is None:
        return Fact(None, "is_primary_data cannot be read")
    if column.codes is not None:
        table = np.array([str(v).strip().lower() == "true" for v in column.values] + [False])
        primary = table[column.codes]
    else:
        primary = column.values.astype(bool)
    false = int((~primary).sum())
    if false:
        notes.append(
            f"{false:,} of {len(primary):,} cells are not primary data (is_primary_data is False): "
            "they are copies of cells in another file and would count twice over many data sets."
        )
    return Fact(false == 0, f"is_primary_data is False for {false:,} of {len(primary):,} cells")


def _suspension(obs: Table, notes: list[str]) -> Fact:
    column = obs.column("suspension_type") if "suspension_type" in obs.names else None
    if column is None or column.codes is None:
        return Fact(None, "no suspension_type column")
    used = column.used()
    if "nucleus" in used:
        notes.append(
            "Some or all profiles are nuclei (suspension_type): cytoplasmic transcripts are "
            "under-counted, scores are not comparable with those of whole cells."
        )
    return Fact(", ".join(sorted(used)) or None, "obs column 'suspension_type'")


_ANTIBODY: Final = re.compile(
    r"^(?:adt|hto|prot|ab|anti|protein)?[-_. ]*(?:human|mouse|hu|mu)?[-_. ]*"
    r"(?:cd\d+[a-z0-9]*|pd[-_]?l?\d?|tigit|hla[-_]?[a-z]+|ig[gdma]\d?[a-z]?|tcr|klrg1|ctla[-_]?4|lag[-_]?3|"
    r"ccr\d+|cxcr\d+|b220|epcam|nkg2[a-d]|lamp1|icos|isotype|rat|hashtag)",
    re.IGNORECASE,
)
_PROTEIN_KEY: Final = re.compile(
    r"protein|(?:^|_)adt|antibod|cite|(?:^|_)prot(?:_|$)|totalseq", re.IGNORECASE
)


# where the fact `protein` points if the antibodies are columns of the matrix, not a table of obsm
VAR_PROTEIN: Final = "var:antibodies"
MODALITY: Final = "mod/"
# names of genes never look like these; the first is looked for in all names at once
_ANTIBODY_WORDS: Final = (
    "totalseq", "total-seq", "total_seq", "total seq", "_totala", "_totalb", "_totalc", "-totala",
    "\nanti-", "\nanti_", "\nanti.", "\nhu.", "\nhums.", "\nhumsrt.",
    *(f"\n{word}{mark}" for word in ("adt", "ab", "prot", "protein", "antibody") for mark in "-_.:"),
    *(f"{mark}{word}\n" for word in ("adt", "prot") for mark in "-_.:"),
)  # fmt: skip
_ANTIBODY_COLUMN: Final = re.compile(
    r"total[-_ ]?seq|[-_]total[abc](?:$|[-_ ]\d)|^(?:adt|ab|prot|protein|antibody)[-_.:](?=[a-z])|"
    r"[-_.:](?:adt|prot)$|^anti[-_. ](?:human|mouse|hu|ms)|^hu(?:ms|msrt)?\.",
    re.IGNORECASE,
)


def names_in_uns(get: Callable[[str], Any], key: str, n: int) -> list[str] | None:
    """Names of the `n` antibodies of an array of obsm, as uns may hold them; None if it does not."""
    for candidate in (
        f"{key}_names", f"{key}_columns", f"{key}_features", "protein_names", "antibody_names",
        "adt_names", "ADT_names", "proteins", "antibodies",
    ):  # fmt: skip
        found = get(candidate)
        if found is not None and not isinstance(found, (str, bytes)) and np.ndim(found) == 1:
            names = [str(v) for v in as_text(np.asarray(found, dtype=object))]
            if n and len(names) == n:
                return names
    return None


def antibody_columns(var: Table) -> tuple[list[int], list[str]]:
    """Columns of a matrix that are antibodies, and their names.

    Those of the feature type "Antibody Capture" or, where features have no type, those named in the
    way of antibodies (``CD57_TotalSeqC``, ``ADT_CD57``).
    """
    names = [str(name) for name in var.index()]
    typed = var.column("feature_types") if "feature_types" in var.names else None
    if typed is not None and typed.codes is not None:
        wanted = [i for i, v in enumerate(typed.values) if v == "Antibody Capture"]
        columns = np.flatnonzero(np.isin(typed.codes, wanted)).tolist()
    else:
        text = "\n" + "\n".join(names).lower() + "\n"
        if not any(word in text for word in _ANTIBODY_WORDS):
            return [], []
        columns = [k for k, name in enumerate(names) if _ANTIBODY_COLUMN.search(name)]
    return columns, [names[k] for k in columns]


def _proteins(store: _Store, var: Table, notes: list[str]) -> Fact:
    beside = next((name for name in PROTEIN_MODALITIES if name in store.modalities), None)
    if beside is not None:
        return Fact(MODALITY + beside, "the modality of antibodies in the MuData file")
    named: list[tuple[str, list[str]]] = []
    for key in store.obsm:
        columns = store.obsm_columns(key)
        if columns:
            share = sum(bool(_ANTIBODY.match(c)) for c in columns) / len(columns)
            if share >= 0.3 or (_PROTEIN_KEY.search(key) and share > 0.1):
                named.append((key, columns))
        elif _PROTEIN_KEY.search(key):
            shape = store.obsm_shape(key)
            names = names_in_uns(store.uns, key, shape[1] if len(shape) == 2 else 0)
            if names:
                named.append((key, names))
            else:
                notes.append(
                    f"obsm[{key!r}] looks like protein data but does not name its antibodies: it is "
                    f"not used; write it as a table, or the names to uns['{key}_names']."
                )
    at, antibodies = antibody_columns(var)
    if at:
        notes.append(f"{len(at)} of the columns of the matrix are antibodies: they are no genes.")
    if not named and at:
        return Fact(
            VAR_PROTEIN, f"{len(at)} columns of the matrix, e.g. {', '.join(antibodies[:3])}"
        )
    if not named:
        return Fact(None, "no antibodies in obsm or among the genes")
    key, columns = max(named, key=lambda item: len(item[1]))
    return Fact(key, f"{len(columns)} antibodies, e.g. {', '.join(columns[:3])}")


def _embeddings(store: _Store, protein: str | None) -> Fact:
    keys = []
    for key in store.obsm:
        if key == protein:
            continue
        shape = store.obsm_shape(key)
        wide = len(shape) == 2 and shape[0] == store.obs.n and shape[1] >= 2
        if wide and (not store.obsm_columns(key) or "umap" in key.lower()):
            keys.append(key)
    order = ("umap", "tsne", "draw_graph", "spatial", "pca")

    def rank(key: str) -> tuple[int, str]:
        exact = 0 if key == "X_umap" else 1
        word = next((i for i, w in enumerate(order) if w in key.lower()), 3)
        return (word * 2 + exact, key)

    keys.sort(key=rank)
    return Fact(keys, "matrices of obsm with two or more columns, UMAP first")


# --------------------------------------------------------------------------------------------
# the whole

_COLUMN_OVERRIDES: Final = (
    "cell_type",
    "cell_type_fine",
    "cell_type_ontology",
    "cluster",
    "donor",
    "sample",
    "condition",
    "age",
)
_COUNTS_LAYER: Final = re.compile(
    r"^(?:counts?|raw ?counts?|raw|umi|umis|umi counts|x counts|counts raw)$"
)
_NO_COUNTS_LAYER: Final = re.compile(r"spliced|unspliced|ambiguous|spanning|matrix$|log|norm|scale")


@contextmanager
def open_store(path: Path) -> Iterator[Any]:
    """Open an h5ad file or a zarr store for reading."""
    if not (path.is_dir() or path.name.endswith((".zarr", ".zarr.zip"))):
        with safe_h5_open(path) as file:
            yield file
        return
    import zarr

    try:
        if path.suffix == ".zip":
            with zarr.storage.ZipStore(path, mode="r") as store:
                yield zarr.open_group(store, mode="r", use_consolidated=False)
        else:
            yield zarr.open_group(str(path), mode="r", use_consolidated=False)
    except InputDataError:
        raise
    except Exception as error:  # zarr's own errors are of many types
        raise InputDataError(
            f"{str(path)!r} cannot be read as zarr: {str(error).splitlines()[0][:200]}"
        ) from error


def inspect_file(
    source: str | Path | AnnData, *, overrides: Mapping[str, Any] | None = None
) -> Facts:
    """Find out what a single-cell file holds, without loading its matrix.

    Parameters
    ----------
    source
        An ``.h5ad`` file, a MuData file (its RNA is taken), a zarr folder or ``.zarr.zip``, or an
        AnnData.
    overrides
        Facts that are known better: ``cell_type``, ``cell_type_fine``, ``cell_type_ontology``,
        ``cluster``, ``donor``, ``sample``, ``condition``, ``age`` (obs columns, or False for
        "there is none"), ``organism``, ``counts``, ``expression`` (``"X"``, ``"raw.X"``,
        ``"layers/NAME"``), ``scale``, ``gene_names`` (``"index"`` or a var column), ``protein``.

    Returns
    -------
    Facts; each fact says how it was found.

    Raises
    ------
    InputDataError
        The file is no single-cell matrix, is damaged, is empty, or an override names a column
        that does not exist.
    """
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.exists():
            raise InputDataError(f"{path}: no such file")
        with open_store(path) as root:
            try:
                return _inspect(_GroupStore(root, path), given)
            except InputDataError as error:
                if path.name in str(error):
                    raise
                raise InputDataError(f"{str(path)!r}: {error}") from error
    if not (hasattr(source, "obs") and hasattr(source, "var") and hasattr(source, "obsm")):
        raise InputDataError(
            f"inspect_file needs a path or an AnnData, not {type(source).__name__!r}"
        )
    return _inspect(_AnnDataStore(source), given)


def _inspect(store: _Store, given: dict[str, Any]) -> Facts:
    notes: list[str] = []
    n_obs, n_vars = store.obs.n, store.var.n
    keys = store.keys
    if not keys:
        raise InputDataError("there is no X, no raw.X and no layer: nothing can be scored")
    if n_obs == 0 or n_vars == 0:
        raise InputDataError(f"the matrix is empty ({n_obs} cells x {n_vars} genes)")
    hint = _hint(store)
    scales = _scales(store, keys, hint)
    if not scales:
        raise InputDataError(f"{', '.join(keys)}: no matrix of numbers can be read")
    counts, expression, scale, x_scale = _matrices(store, scales, given, notes)
    used = counts.value or expression.value
    matrix = store.matrix(used)
    if matrix.nnz == 0:
        raise InputDataError(f"{used} stores no value: the matrix is empty")
    var = store.raw_var if used == "raw.X" and store.raw_var is not None else store.var
    gene_names, gene_kind, names = _gene_facts(var)
    if "gene_names" in given:
        gene_names, names = _given_names(var, str(given["gene_names"]))
        kind, _ = _name_kind(names)
        gene_kind = Fact(kind, _kind_words(kind))
    if gene_kind.value in ("number", "unknown", "none"):
        notes.append(
            f"The genes are not named ({gene_names.how}): no signature can be scored; name the "
            "var column that holds symbols or Ensembl ids."
        )
    if "organism" in given:
        organism = Fact(_organism_word(str(given["organism"])), "given in the configuration")
    else:
        organism = _organism(store, names, notes)
    n_genes = matrix.shape[1]
    if n_genes < 5000:
        notes.append(
            f"Only {n_genes:,} genes: signatures may fall below the coverage floor and are then "
            "left out, and control genes are few."
        )
    if len(set(names)) < len(names):
        notes.append(
            f"{len(names) - len(set(names))} gene names occur more than once: their values are summed."
        )
    _odd_cells_and_genes(store, used, notes)
    columns = _columns(store, given, notes)
    protein = _proteins(store, var, notes)
    if "protein" in given:
        key = given["protein"]
        there = [*store.obsm, *(MODALITY + name for name in store.modalities), VAR_PROTEIN]
        if key is not False and not str(key).endswith(".h5mu") and key not in there:
            raise InputDataError(
                f"protein: obsm has no {key!r} (there are {', '.join(there)}); a MuData file is "
                "named by its path, *.h5mu"
            )
        protein = Fact(key or None, "given in the configuration")
    primary = _primary(store.obs, notes)
    suspension = _suspension(store.obs, notes)
    if store.obs.unreadable:
        notes.append(
            f"obs columns that cannot be read and are left out: {', '.join(store.obs.unreadable)}."
        )
    return Facts(
        path=store.path,
        n_obs=n_obs,
        n_vars=n_genes,
        counts=counts,
        expression=expression,
        scale=scale,
        x_scale=x_scale,
        gene_names=gene_names,
        gene_kind=gene_kind,
        organism=organism,
        is_primary_data=primary,
        suspension_type=suspension,
        embeddings=_embeddings(store, protein.value),
        protein=protein,
        storage=Fact(matrix.storage, f"of {used}"),
        nnz=Fact(matrix.nnz, f"of {used}" if matrix.nnz is not None else "dense: not counted"),
        file_bytes=Fact(store.file_bytes, "in memory" if store.file_bytes is None else "on disk"),
        notes=tuple(notes),
        **columns,
    )


def _odd_cells_and_genes(store: _Store, used: str, notes: list[str]) -> None:
    """Note repeated cell names and genes that the file set to zero."""
    if store.obs.n <= 100_000:
        names = store.obs.index()
        repeated = len(names) - len(set(names))
        if repeated:
            notes.append(
                f"{repeated:,} cell names occur more than once (samples joined without a prefix?): "
                "cells are told apart by their place in the file."
            )
    name = "feature_is_filtered"
    column = store.var.column(name) if name in store.var.names else None
    if column is None or used != "X":  # they are as they were in raw and in layers
        return
    if column.codes is None:
        filtered = int(np.asarray(column.values, dtype=bool).sum())
    else:
        truth = np.array([str(v).lower() == "true" for v in column.values] + [False])
        filtered = int(truth[column.codes].sum())
    if filtered:
        notes.append(
            f"{filtered:,} genes were filtered by the authors (feature_is_filtered) and are zero in "
            f"{used}: not measured, which is not the same as absent."
        )


def _hint(store: _Store) -> str:
    """Return what the file says about its own values."""
    parts = []
    for key in ("provenance", "X_normalization", "layer_descriptions"):
        value = store.uns(key)
        if isinstance(value, str):
            parts.append(value)
    if "log1p" in store.uns_keys():
        parts.append("log1p")
    return "; ".join(parts)


def _scales(store: _Store, keys: Sequence[str], hint: str) -> dict[str, Scale]:
    scales: dict[str, Scale] = {}
    for key in keys:
        name = _words(key.removeprefix("layers/"))
        if key.startswith("layers/") and _NO_COUNTS_LAYER.search(name) and len(keys) > 1:
            continue
        try:
            sample = store.matrix(key).sample()
        except UnreadableMatrixError:
            continue  # no numbers: nothing to use, and nothing to stumble over
        scales[key] = classify(sample, hint=hint if key == "X" else "")
    return scales


def _matrices(
    store: _Store, scales: dict[str, Scale], given: dict[str, Any], notes: list[str]
) -> tuple[Fact, Fact, Fact, Fact]:
    """Choose the matrices to use: counts, expression, its scale, and the scale of X."""
    x = scales.get("X")
    x_scale = Fact(x.word, x.how) if x is not None else Fact(None, "there is no X")
    for name in ("counts", "expression"):
        key = given.get(name)
        if key is not None and key is not False and key not in store.keys:
            raise InputDataError(
                f"{name}: there is no matrix {key!r} (there are {', '.join(store.keys)})"
            )
    chosen = given.get("counts")
    if isinstance(chosen, str):
        scale = scales.get(chosen) or classify(store.matrix(chosen).sample())
        if scale.word not in ("counts", "fractional_counts"):
            raise InputDataError(
                f"counts: {chosen!r} does not hold counts but {scale.word} ({scale.how})"
            )
        counts = Fact(chosen, f"given in the configuration; {scale.how}")
    elif chosen is False or given.get("scale") not in (None, "counts", "fractional_counts"):
        counts = Fact(None, "the configuration says there are no counts")
    else:
        counts = _choose_counts(store, scales)
    if counts.value is not None:
        found = scales.get(counts.value) or classify(store.matrix(counts.value).sample())
        if found.word == "fractional_counts":
            notes.append(
                f"The counts in {counts.value} are not whole numbers ({found.how}): they are used "
                "as they are."
            )
        return (
            counts,
            Fact(counts.value, "the counts, normalised and logged on the fly"),
            Fact(found.word, found.how),
            x_scale,
        )
    expression, said = _choose_expression(store, scales, given, notes)
    notes.append(
        "No raw counts: QC metrics that need counts are skipped, and depth is judged by the "
        "number of detected genes."
    )
    return counts, expression, said, x_scale


def _choose_counts(store: _Store, scales: dict[str, Scale]) -> Fact:
    layers = [k for k in scales if k.startswith("layers/") and _is_counts_layer(k)]
    rest: tuple[str, ...] = ("raw.X", "X")
    order = [*layers, *(key for key in rest if key in scales)]
    for word in ("counts", "fractional_counts"):
        hits = [k for k in order if scales[k].word == word]
        if not hits:
            continue
        best = hits[0]
        if "raw.X" in hits and store.raw_var is not None and store.raw_var.n > store.var.n:
            best = "raw.X"  # X and its layers were cut down to some genes, raw was not
        how = scales[best].how
        if len(hits) > 1:
            others = [key for key in hits if key != best]
            how += f"; also counts: {', '.join(others)}"
        return Fact(best, how)
    tried = "; ".join(f"{k}: {scales[k].word}" for k in scales)
    return Fact(None, f"no matrix holds counts ({tried})")


def _is_counts_layer(key: str) -> bool:
    return bool(_COUNTS_LAYER.match(_words(key.removeprefix("layers/"))))


def _choose_expression(
    store: _Store, scales: dict[str, Scale], given: dict[str, Any], notes: list[str]
) -> tuple[Fact, Fact]:
    chosen = given.get("expression")
    if isinstance(chosen, str):
        scale = scales.get(chosen) or classify(store.matrix(chosen).sample())
        expression = Fact(chosen, "given in the configuration")
    else:
        ranks = {word: i for i, word in enumerate((*LOG_SCALES, "linear_normalised"))}
        places = {"X": 0, "raw.X": 1}
        # of equals the one with most genes: X is often cut down to variable genes, raw is not
        key = min(
            scales,
            key=lambda k: (
                ranks.get(scales[k].word, 9),
                -store.matrix(k).shape[1],
                places.get(k, 2),
            ),
        )
        scale = scales[key]
        expression = Fact(key, f"no counts; {key} holds {scale.word}")
    word = given.get("scale")
    if word is not None:
        if word not in SCALES:
            raise InputDataError(f"scale: {word!r} is not one of {', '.join(SCALES)}")
        return expression, Fact(word, "given in the configuration")
    if scale.word in ("scaled", "twice_logged", "unknown"):
        notes.append(
            f"{expression.value} is not usable for scores as it is ({scale.word}: {scale.how}); "
            "give the file with counts or log-normalised values."
        )
    elif not scale.sure:
        notes.append(
            f"The scale of {expression.value} is a judgement, not a proof: {scale.word} "
            f"({scale.how}). Set it in the configuration if you know better."
        )
    return expression, Fact(scale.word, scale.how + ("" if scale.sure else " (not certain)"))


def _given_names(var: Table, name: str) -> tuple[Fact, list[str]]:
    if name == "index":
        return Fact("index", "given in the configuration"), var.index()
    column = var.column(name)
    if column is None or column.codes is None:
        raise InputDataError(_unknown("gene_names", name, ["index", *var.names], "var"))
    values = [str(v) for v in np.append(column.values, "")[column.codes]]
    return Fact(name, "given in the configuration"), values


def _unknown(what: str, name: str, available: Sequence[str], where: str) -> str:
    near = difflib.get_close_matches(name, available, n=3, cutoff=0.5)
    text = f"{what}: {where} has no column {name!r}"
    if near:
        text += f"; did you mean {' or '.join(repr(n) for n in near)}?"
    shown = ", ".join(available[:40]) + (", ..." if len(available) > 40 else "")
    return (
        f"{text} Available: {shown or 'none'}" if near else f"{text}; available: {shown or 'none'}"
    )


def _columns(store: _Store, given: dict[str, Any], notes: list[str]) -> dict[str, Fact]:
    obs = store.obs
    for what in _COLUMN_OVERRIDES:
        name = given.get(what)
        if name is not None and name is not False and name not in obs.names:
            raise InputDataError(_unknown(what, str(name), obs.names, "obs"))
    result: dict[str, Fact] = {}
    own: list[str] = []
    cell_type, fine, ontology, candidates = _cell_types(store, own)
    if "cell_type" in given:
        if given["cell_type"] is False:
            cell_type = fine = Fact(None, "the configuration says there is none")
        else:
            cell_type = Fact(given["cell_type"], "given in the configuration")
            main = next((c for c in candidates if c.name == cell_type.value), None)
            fine = (
                _finer(main, candidates)
                if main is not None
                else Fact(None, "no column is finer than the cell types")
            )
        own = [note for note in own if not note.startswith("No cell-type labels")]
    notes += own
    result["cell_type"], result["cell_type_fine"] = cell_type, fine
    result["cell_type_ontology"] = ontology
    taken = {str(f.value) for f in (cell_type, fine) if f.value is not None}
    result["cluster"] = _cluster(obs, taken)
    about: list[str] = []
    result["sample"] = _samples(obs)
    if isinstance(given.get("sample"), str):
        result["sample"] = Fact(given["sample"], "given in the configuration")
    result["donor"] = _donors(obs, result["sample"], about)
    if "donor" not in given:
        notes += about
    donor, sample = result["donor"].value, result["sample"].value
    result["condition"] = _conditions(obs, {donor, sample, *taken})
    result["age"] = _ages(obs)
    for what in _COLUMN_OVERRIDES:
        if what in given and what != "cell_type":
            name = given[what]
            result[what] = (
                Fact(None, "the configuration says there is none")
                if name is False
                else Fact(name, "given in the configuration")
            )
    return result

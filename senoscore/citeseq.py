"""Antibodies of a data set: where they are, what they say of its cells, and how well RNA says it.

Thin around `senoscore.protein`, which has the arithmetic. Antibodies are found in ``obsm`` (a table,
or an array whose names are in ``uns``), among the columns of X (``feature_types`` "Antibody
Capture", or names such as ``CD57_TotalSeqC``), and in the protein modality of a MuData file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from senoscore import calling, keys, protein
from senoscore._columns import GroupTable, as_text, attr_text, is_array
from senoscore.errors import InputDataError
from senoscore.inspect import (
    MODALITY,
    VAR_PROTEIN,
    antibody_columns,
    names_in_uns,
    open_store,
)
from senoscore.io.blocks import open_blocks
from senoscore.io.h5 import PROTEIN_MODALITIES, find_node, node_header, safe_h5_open
from senoscore.protein import Arm

if TYPE_CHECKING:
    from anndata import AnnData

    from senoscore.inputs import Input
    from senoscore.settings import CallSettings

SETTINGS: Final = ("auto", "use", "ignore")
MAX_ANTIBODIES: Final = 5000
# what is kept per cell: what a review names, not what identifies a lineage
KEPT_ROLES: Final = ("phenotype", "exhaustion", "both", "other")
GATED: Final = ("CD57", "CD27")
GATE: Final = "CD57+CD27-"
PHENOTYPE: Final = "T phenotype"
AUDIT: Final = (
    *protein.FIT_COLUMNS, "compared_with", "frac_rna_in_positive", "frac_rna_in_negative",
    "auroc", "spearman",
)  # fmt: skip


# --------------------------------------------------------------------------------------------
# reading


@dataclass(frozen=True)
class Panel:
    """Antibodies as the file has them: ``values`` (cells × names), NaN rows for cells without."""

    names: tuple[str, ...]
    values: NDArray[np.float32]
    where: str


def is_h5mu(name: object) -> bool:
    """Whether a setting names a MuData file."""
    return isinstance(name, (str, Path)) and str(name).endswith(".h5mu")


def read_panel(source: str | Path | AnnData, data: Input) -> Panel | None:
    """The antibodies that the facts of a data set name; None where they name none.

    Raises
    ------
    InputDataError
        They are not there any more, are no numbers, or have other cells.
    """
    key = data.facts.protein.value
    if not key:
        return None
    if is_h5mu(key):
        cells, panel = read_h5mu(key)
        return _aligned(panel, cells, data.obs.index, str(key))
    if key.startswith(MODALITY) and isinstance(source, (str, Path)):
        cells, panel = read_h5mu(source, key.removeprefix(MODALITY))
        return _aligned(panel, cells, data.obs.index, str(source))
    if key == VAR_PROTEIN:
        return _from_columns(source, data)
    if isinstance(source, (str, Path)):
        with open_store(Path(source)) as root:
            names, values = _from_group(root, str(key), len(data.obs))
    else:
        names, values = _from_memory(source, str(key))
    return Panel(names, values, f"obsm[{key!r}]")


def _from_memory(adata: AnnData, key: str) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    found = adata.obsm[key]
    if isinstance(found, pd.DataFrame):
        numbers = [c for c in found if pd.api.types.is_numeric_dtype(found[c].dtype)]
        return tuple(map(str, numbers)), found[numbers].to_numpy(np.float32)
    values = np.asarray(found.toarray() if hasattr(found, "toarray") else found, np.float32)
    names = names_in_uns(adata.uns.get, key, values.shape[1] if values.ndim == 2 else 0)
    return _named(names, key), values


def _named(names: Sequence[str] | None, key: str) -> tuple[str, ...]:
    if names is None:
        raise InputDataError(
            f"obsm[{key!r}] does not name its antibodies: write it as a table, or their names to "
            f"uns[{key + '_names'!r}]"
        )
    return tuple(names)


def _from_group(root: Any, key: str, n: int) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """A matrix of obsm, of a file or store; columns of a table are read one at a time."""
    obsm = root["obsm"]
    if is_array(obsm) or key not in obsm:
        raise InputDataError(f"obsm has no {key!r}: inspect the file again")
    node = obsm[key]
    if not is_array(node) and attr_text(node, "encoding-type") == "dataframe":
        table = GroupTable(root, f"obsm/{key}")
        columns = [c for c in table.names if is_array(node.get(c)) and node[c].dtype.kind in "iuf"]
        _check_size(n, table.n, len(columns), key)
        values = np.empty((n, len(columns)), np.float32)
        for k, column in enumerate(columns):
            values[:, k] = _vector(node[column], n, f"obsm/{key}/{column}")
        return tuple(columns), values
    if is_array(node) and node.dtype.names:
        columns = [c for c in node.dtype.names if node.dtype[c].kind in "iuf"]
        _check_size(n, int(node.shape[0]), len(columns), key)
        records = node[...]
        return tuple(columns), np.column_stack([records[c].astype(np.float32) for c in columns])
    header = node_header(node, f"obsm/{key}", "the file")
    _check_size(n, header.shape[0], header.shape[1], key)
    names = names_in_uns(lambda name: _uns_text(root, name), key, header.shape[1])
    return _named(names, key), _matrix(node)


def _matrix(node: Any) -> NDArray[np.float32]:
    from anndata.io import read_elem

    found = read_elem(node)
    return np.asarray(found.toarray() if hasattr(found, "toarray") else found, np.float32)


def _vector(node: Any, n: int, where: str) -> NDArray[np.float32]:
    if tuple(node.shape) != (n,):
        raise InputDataError(
            f"{where} has {node.shape[0]} values for {n} cells: the file is damaged"
        )
    return np.asarray(node[...], np.float32)


def _check_size(n: int, rows: int, columns: int, key: str) -> None:
    if rows != n:
        raise InputDataError(f"obsm[{key!r}] has {rows} rows for {n} cells: the file is damaged")
    if not 0 < columns <= MAX_ANTIBODIES:
        raise InputDataError(
            f"obsm[{key!r}] has {columns} columns of numbers: this is no panel of antibodies; name "
            "another (config: dataset.protein)"
        )


def _uns_text(root: Any, key: str) -> Any:
    uns = root.get("uns")
    if uns is None or is_array(uns) or key not in uns:
        return None
    node = uns[key]
    if not is_array(node) or len(node.shape) != 1 or node.shape[0] > MAX_ANTIBODIES:
        return None
    return list(as_text(node[...]))


def _from_columns(source: str | Path | AnnData, data: Input) -> Panel:
    """Antibodies among the columns of the matrix: one more pass, of files that have it so."""
    raw = data.matrix == "raw.X"
    if isinstance(source, (str, Path)):
        with open_store(Path(source)) as root:
            where = (
                ("raw/var" if "raw" in root and "var" in root["raw"] else "raw.var")
                if raw
                else "var"
            )
            columns, names = antibody_columns(GroupTable(root, where))
    else:
        from senoscore._columns import FrameTable

        columns, names = antibody_columns(FrameTable(source.raw.var if raw else source.var))
    if not columns:
        raise InputDataError(f"no column of {data.matrix} is an antibody: inspect the file again")
    values = read_columns(source, data.matrix, np.asarray(columns))
    return Panel(tuple(names), values, f"columns of {data.matrix}")


def read_columns(
    source: str | Path | AnnData, matrix: str, columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Some columns of a matrix, dense, read in blocks of rows."""
    from scipy import sparse

    with open_blocks(source, matrix=matrix) as blocks:
        out = np.zeros((blocks.n_obs, len(columns)), np.float32)
        for block in blocks.iter_blocks():
            rows = sparse.csr_matrix(
                (block.data, block.indices, block.indptr), shape=(block.n_obs, block.n_vars)
            )
            out[block.start : block.start + block.n_obs] = rows[:, columns].toarray()
    return out


def read_h5mu(path: str | Path, modality: str | None = None) -> tuple[pd.Index, Panel]:
    """Cells and antibodies of the protein modality of a MuData file.

    A MuData file is HDF5 with an AnnData per modality under ``mod``; it is opened with the same
    care as any other file.

    Raises
    ------
    InputDataError
        It is no MuData file, or has no protein modality.
    """
    with safe_h5_open(path, mudata=True) as file:
        there = sorted(find_node(file, "mod", path) or ())
        name = modality or next((m for m in PROTEIN_MODALITIES if m in there), None)
        if name not in there:
            wanted = f"modality {modality!r}" if modality else "protein modality"
            raise InputDataError(
                f"{str(path)!r} has no {wanted}; it has {', '.join(there) or 'none'}"
            )
        root = file["mod"][name]
        obs, var = GroupTable(root, "obs"), GroupTable(root, "var")
        layers = root.get("layers")
        where = "layers/counts" if layers is not None and "counts" in layers else "X"
        node = root.get(where)
        if node is None:
            raise InputDataError(f"{str(path)!r}: modality {name!r} has no X")
        header = node_header(node, f"mod/{name}/{where}", path, n_obs=obs.n, n_vars=var.n)
        if header.shape != (obs.n, var.n) or not 0 < var.n <= MAX_ANTIBODIES:
            raise InputDataError(
                f"{str(path)!r}: modality {name!r} is {header.shape[0]} x {header.shape[1]} for "
                f"{obs.n} cells and {var.n} antibodies"
            )
        panel = Panel(tuple(var.index()), _matrix(node), f"{Path(path).name}, modality {name}")
        return pd.Index(obs.index()), panel


def _aligned(panel: Panel, have: pd.Index, want: pd.Index, path: str) -> Panel:
    """The panel in the order of the data set's cells; NaN rows for cells it does not have."""
    if not have.is_unique:
        raise InputDataError(f"{path!r} names cells twice: make their names unique")
    at = have.get_indexer(want)
    if (at < 0).all():
        raise InputDataError(
            f"{path!r} has none of the data set's cells: its names are like {str(have[0])!r}, the data "
            f"set's like {str(want[0])!r}"
        )
    values = panel.values[np.maximum(at, 0)]
    values[at < 0] = np.nan
    return Panel(panel.names, values, panel.where)


# --------------------------------------------------------------------------------------------
# what they say


@dataclass(frozen=True)
class Evidence:
    """Antibodies of a data set, judged. ``used``: whether calls rest on them, ``why``: in words."""

    panel: Panel
    found: protein.Antibodies
    arm: Arm
    is_t: NDArray[np.bool_]
    used: bool
    why: str

    @property
    def table(self) -> pd.DataFrame:
        """The arm of every cell: ``z``, ``pvalue``, ``padj``."""
        return pd.DataFrame({"z": self.arm.z, "pvalue": self.arm.pvalue, "padj": self.arm.padj})

    def on(self, tables: calling.Tables) -> calling.Tables:
        """The tables with the phenotype arm by antibodies, if they are used."""
        return with_arm(tables, self.table) if self.used else tables

    def tell(self, calls: pd.DataFrame) -> pd.DataFrame:
        """The calls with ``phenotype_source``, and rules that say where the arm came from."""
        return told(calls, self.is_t, np.isfinite(self.arm.padj) & self.used)


def with_arm(tables: calling.Tables, arm: pd.DataFrame) -> calling.Tables:
    """Tables whose phenotype arm is `arm` (by place) wherever that is known."""
    known = np.isfinite(arm["padj"].to_numpy(np.float64))
    frames = {}
    for field, column in (("z", "z"), ("pvalue", "pvalue"), ("padj", "padj")):
        frame = getattr(tables, field).copy()
        old = (
            frame[calling.PHENOTYPE].to_numpy(np.float64)
            if calling.PHENOTYPE in frame
            else np.full(len(frame), np.nan)
        )
        frame[calling.PHENOTYPE] = np.where(known, arm[column].to_numpy(np.float64), old)
        frames[field] = frame
    return replace(tables, **frames)


def used_arm(adata: AnnData, settings: CallSettings) -> pd.DataFrame | None:
    """The arm by antibodies that `tl.protein` left in an AnnData, if calls are to rest on it."""
    found = adata.obsm.get(keys.OBSM_PROTEIN_ARM)
    if found is not None and settings.protein != "ignore" and found["padj"].notna().any():
        return found
    if settings.protein == "use":
        raise InputDataError(
            "protein is 'use', but obsm has no phenotype arm by antibodies: run "
            "senoscore.tl.protein(adata) first, or read in uns['senoscore']['protein'] why there is none"
        )
    return None


def told(
    calls: pd.DataFrame, is_t: NDArray[np.bool_], by_protein: NDArray[np.bool_]
) -> pd.DataFrame:
    """Rules that say "phenotype arm (protein)" where it was; obs column ``phenotype_source``."""
    calls = calls.copy()
    rule = calls[keys.OBS_T_STATE_RULE].astype("category").cat
    texts = [str(t) for t in rule.categories]
    said = [t.replace("phenotype arm", "phenotype arm (protein)") for t in texts]
    unique = list(dict.fromkeys([*texts, *said]))
    place = np.asarray([unique.index(t) for t in said], np.int64)
    codes = rule.codes.to_numpy(np.int64)
    column = calling.as_texts(np.where(by_protein & is_t, place[codes], codes), unique)
    calls[keys.OBS_T_STATE_RULE] = column
    calls[keys.OBS_PHENOTYPE_SOURCE] = pd.Categorical.from_codes(
        np.where(is_t, np.where(by_protein, 0, 1), -1), categories=["protein", "rna"]
    )
    return calls


def assess(
    panel: Panel,
    *,
    lineage: NDArray[np.object_],
    use: NDArray[np.bool_],
    sample: pd.Series | None,
    setting: str,
) -> Evidence:
    """Judge a panel, and decide whether the phenotype arm rests on it (`setting`).

    Raises
    ------
    InputDataError
        `setting` is "use" and the antibodies needed are not there or do not separate.
    """
    have: NDArray[np.bool_] = np.asarray(np.isfinite(panel.values).all(axis=1))
    rows = np.flatnonzero(have)
    codes = None if sample is None else pd.factorize(sample.astype(str))[0][rows]
    judged = protein.judge(
        panel.values[rows], panel.names, lineage=lineage[rows], use=use[rows], sample=codes
    )
    if len(rows) < len(have):
        n_missing = len(have) - len(rows)
        judged = replace(
            judged,
            clr=_spread(judged.clr, rows, len(have)),
            positive=_spread(judged.positive, rows, len(have)),
            notes=(*judged.notes, f"{n_missing:,} cells have no antibody values"),
        )
    is_t = lineage == "T"
    arm = protein.phenotype_arm(judged.positive, judged.names, is_t & use)
    if setting == "ignore":
        used, why = False, "antibodies are not used (call.protein: ignore)"
    elif arm.reason:
        used, why = False, f"antibodies are not used: {arm.reason}"
    else:
        used, why = True, f"the phenotype arm of T cells rests on {', '.join(_main(arm))}"
    if setting == "use" and not used:
        raise InputDataError(
            f"call.protein is 'use', but {arm.reason} ({panel.where}); set it to 'auto' or 'ignore'"
        )
    return Evidence(panel, judged, arm, is_t, used, why)


def _main(arm: Arm) -> list[str]:
    weight = protein.read_antibodies().set_index("protein")["weight"]
    return [p for p in arm.proteins if weight[p] >= 1]


def _spread(values: NDArray[np.float32], rows: NDArray[np.int64], n: int) -> NDArray[np.float32]:
    out = np.full((n, values.shape[1]), np.nan, np.float32)
    out[rows] = values
    return out


def for_run(
    source: str | Path | AnnData, data: Input, cells: pd.DataFrame, settings: CallSettings
) -> Evidence | None:
    """Evidence of a data set's antibodies; None where it has none."""
    if settings.protein not in SETTINGS:
        raise InputDataError(
            f"call.protein is {settings.protein!r}; it can be {', '.join(SETTINGS)}"
        )
    panel = read_panel(source, data)
    if panel is None:
        if settings.protein == "use":
            raise InputDataError(
                "call.protein is 'use', but no antibodies were found: name them (config: "
                "dataset.protein), or set it to 'auto'"
            )
        return None
    return assess(
        panel,
        lineage=np.asarray(cells[keys.OBS_LINEAGE].astype(object), dtype=object),
        use=cells[keys.OBS_QC_PASS].to_numpy(bool),
        sample=data.column("sample"),
        setting=settings.protein,
    )


# --------------------------------------------------------------------------------------------
# how well RNA says it


def panel_values(
    panel: Any, symbols: NDArray[Any], totals: NDArray[np.float64] | None
) -> Callable[[str], NDArray[np.float64] | None]:
    """Gene symbol -> log1p(counts per 10,000) of every cell, from a sparse cells × genes matrix.

    ``totals`` None: the values are logged already. A gene that is not in `symbols` gives None.
    """
    columns = panel.tocsc()
    place = {str(symbol): k for k, symbol in enumerate(symbols)}

    def value(symbol: str) -> NDArray[np.float64] | None:
        if symbol not in place:
            return None
        x = np.asarray(columns[:, [place[symbol]]].toarray(), np.float64).ravel()
        if totals is None:
            return x
        return np.log1p(np.divide(1e4 * x, totals, out=np.zeros_like(x), where=totals > 0))

    return value


def read_genes(
    source: str | Path | AnnData, data: Input, symbols: Sequence[str]
) -> Callable[[str], NDArray[np.float64] | None]:
    """As `panel_values`, read from the matrix of a data set in one pass."""
    from scipy import sparse

    wanted = set(symbols)
    columns = [k for k, g in enumerate(data.genes.columns) if data.genes.symbols[g] in wanted]
    genes = data.genes.columns[columns]
    totals = np.zeros(len(data.obs))
    blocks_of = []
    with open_blocks(source, matrix=data.matrix) as blocks:
        for block in blocks.iter_blocks():
            rows = sparse.csr_matrix(
                (block.data, block.indices, block.indptr), shape=(block.n_obs, block.n_vars)
            )
            totals[block.start : block.start + block.n_obs] = np.asarray(rows.sum(axis=1)).ravel()
            blocks_of.append(rows[:, columns])
    names, place = np.unique(data.genes.symbols[genes].astype(str), return_inverse=True)
    # columns that stand for one gene are summed, as everywhere
    onto = sparse.csr_matrix(
        (np.ones(len(columns)), (np.arange(len(columns)), place)), shape=(len(columns), len(names))
    )
    return panel_values(sparse.vstack(blocks_of) @ onto, names, totals if data.has_counts else None)


def audit(
    evidence: Evidence,
    *,
    rna: Callable[[str], NDArray[np.floating[Any]] | None],
    lineage: NDArray[np.object_],
    use: NDArray[np.bool_],
    tables: calling.Tables | None = None,
    t_state: pd.Series | None = None,
) -> pd.DataFrame:
    """How well antibodies separate, and how well RNA predicts them.

    Parameters
    ----------
    evidence
        Of the data set.
    rna
        Gene symbol -> its value in every cell, or None where it was not measured.
    lineage, use
        Of each cell; whether it passed quality control.
    tables, t_state
        Scores and states **from RNA alone**.

    Returns
    -------
    DataFrame
        Columns `AUDIT`. One row per lineage and antibody, compared with its gene: ``auroc`` of
        the RNA against protein-positive, ``spearman`` of RNA and protein, and the share of
        positive and negative cells in which the RNA is seen at all. Then, in T cells, the phenotype
        by protein (``T phenotype``) and the cells gated ``CD57+CD27-``, compared with scores
        and calls from RNA, and with the arm by protein with and without the gated antibodies.
    """
    gene_of = protein.read_antibodies().set_index("protein")["gene"]
    column = {name: k for k, name in enumerate(evidence.found.names)}
    values = {p: rna(str(gene_of[p])) for p in evidence.found.names}
    rows: list[dict[str, object]] = []
    for fit in evidence.found.fits.to_dict("records"):
        here = np.flatnonzero((lineage == fit["lineage"]) & use)
        k, gene = column[str(fit["protein"])], values[str(fit["protein"])]
        row: dict[str, object] = {**fit, "compared_with": f"{gene_of[fit['protein']]} RNA"}
        if gene is None:
            row["compared_with"] = f"{gene_of[fit['protein']]} RNA (not measured)"
        else:
            x = np.asarray(gene, np.float64)[here]
            positive = evidence.found.positive[here, k]
            row |= _agreement(x, positive)
            row["spearman"] = protein.spearman(x, evidence.found.clr[here, k])
        rows.append(row)
    is_t = evidence.is_t & use
    if tables is not None and is_t.any():
        rows += _t_rows(evidence, is_t, tables, t_state, values)
    return pd.DataFrame(rows, columns=list(AUDIT))


def _agreement(x: NDArray[np.float64], positive: NDArray[np.floating[Any]]) -> dict[str, object]:
    known = np.isfinite(positive) & np.isfinite(x)
    yes, seen = positive[known] >= 0.5, x[known] > 0
    return {
        "frac_rna_in_positive": float(seen[yes].mean()) if yes.any() else np.nan,
        "frac_rna_in_negative": float(seen[~yes].mean()) if (~yes).any() else np.nan,
        "auroc": protein.auroc(x[known], yes),
    }


def gated(evidence: Evidence) -> NDArray[np.float64]:
    """Probability of CD57+CD27-; NaN where either cannot be judged."""
    names = evidence.found.names
    if not set(GATED) <= set(names):
        return np.full(len(evidence.is_t), np.nan)
    first, second = (evidence.found.positive[:, names.index(p)] for p in GATED)
    return np.asarray(first * (1 - second.astype(np.float64)))


def left_out(evidence: Evidence, without: Sequence[str] = GATED) -> Arm:
    """The arm from the other antibodies alone: z, and p-values where enough are left."""
    names = evidence.found.names
    keep = [k for k, name in enumerate(names) if name not in without]
    cells = evidence.is_t & np.isfinite(evidence.found.positive).any(axis=1)
    return protein.phenotype_arm(
        evidence.found.positive[:, keep], [names[k] for k in keep], cells, strict=False
    )


def _t_rows(
    evidence: Evidence,
    is_t: NDArray[np.bool_],
    tables: calling.Tables,
    t_state: pd.Series | None,
    values: Mapping[str, NDArray[np.floating[Any]] | None],
) -> list[dict[str, object]]:
    axis = calling.AXIS_SIGNATURES["senescence"][0]
    others: list[tuple[str, NDArray[Any]]] = [
        (f"{calling.PHENOTYPE} z (RNA)", tables[calling.PHENOTYPE][0]),
        (f"{axis} z (RNA)", tables[axis][0]),
    ]
    if t_state is not None:
        state = np.asarray(t_state.astype(object), dtype=object)
        phenotype = np.isin(state, ["senescent", "both", "senescent_like"]).astype(np.float64)
        phenotype[state == "indeterminate"] = np.nan
        others.append(("called senescent, both or senescent_like (RNA)", phenotype))
    b3gat1 = values.get("CD57")
    if b3gat1 is not None:
        others.append(("B3GAT1 RNA", np.asarray(b3gat1, np.float64)))
    less = left_out(evidence)
    rows = []
    targets = ((PHENOTYPE, 1 - evidence.arm.pvalue), (GATE, gated(evidence)))
    for name, probability in targets:
        known = is_t & np.isfinite(probability)
        if not known.any():
            continue
        yes = probability[known] >= 0.5
        more = []
        if name == GATE:
            more = [
                ("arm (protein)", evidence.arm.z),
                (
                    f"arm (protein) without {' and '.join(GATED)}: {', '.join(less.proteins)}",
                    less.z,
                ),
            ]
        for what, score in [*more, *others]:
            rows.append(
                {
                    "lineage": "T",
                    "protein": name,
                    "antibody": ", ".join(evidence.arm.proteins if name != GATE else GATED),
                    "n_cells": int(is_t.sum()),
                    "n_judged": int(known.sum()),
                    "frac_positive": float(yes.mean()),
                    "status": "compared",
                    "reason": "",
                    "compared_with": what,
                    "auroc": protein.auroc(score[known], yes),
                    "spearman": protein.spearman(score[known], probability[known]),
                }
            )
    return rows


def sentences(audit: pd.DataFrame) -> list[str]:
    """What the audit says of T cells, in words.

    Examples
    --------
    >>> row = dict(
    ...     lineage="T",
    ...     protein="CD57",
    ...     status="separates",
    ...     compared_with="B3GAT1 RNA",
    ...     n_judged=200,
    ...     frac_positive=0.5,
    ...     frac_rna_in_positive=0.02,
    ...     frac_rna_in_negative=0.01,
    ...     auroc=0.51,
    ...     spearman=0.03,
    ...     reason="",
    ... )
    >>> sentences(pd.DataFrame([row]))  # doctest: +NORMALIZE_WHITESPACE
    ['Of 200 T cells 100 carry CD57. B3GAT1 RNA is seen in 2.0 % of these and in 1.0 % of the others
      (AUROC 0.51, where 0.50 is a coin; Spearman 0.03): B3GAT1 RNA does not tell who carries CD57.']
    """
    said = []
    t = audit[audit["lineage"] == "T"]
    for row in t[(t["protein"] == "CD57") & (t["status"] == "separates")].itertuples():
        if not np.isfinite(row.auroc):
            continue
        judged = (
            "B3GAT1 RNA does not tell who carries CD57" if row.auroc < 0.6
            else "B3GAT1 RNA is a weak guide to CD57" if row.auroc < 0.8
            else "here B3GAT1 RNA is a fair guide to CD57"
        )  # fmt: skip
        said.append(
            f"Of {row.n_judged:,} T cells {round(row.n_judged * row.frac_positive):,} carry CD57. "
            f"B3GAT1 RNA is seen in {100 * row.frac_rna_in_positive:.1f} % of these and in "
            f"{100 * row.frac_rna_in_negative:.1f} % of the others (AUROC {row.auroc:.2f}, where 0.50 "
            f"is a coin; Spearman {row.spearman:.2f}): {judged}."
        )
    said += [
        f"{row.protein} against {row.compared_with}: AUROC {row.auroc:.2f}."
        for row in t[t["protein"].isin([PHENOTYPE, GATE])].itertuples()
        if np.isfinite(row.auroc)
    ]
    return said


def keep(evidence: Evidence, index: pd.Index) -> dict[str, pd.DataFrame]:
    """What is stored per cell: ``obsm`` tables of the antibodies that a review names."""
    table = protein.read_antibodies().set_index("protein")
    columns = [k for k, p in enumerate(evidence.found.names) if table.loc[p, "role"] in KEPT_ROLES]
    names = [evidence.found.names[k] for k in columns]

    def frame(values: NDArray[np.float32]) -> pd.DataFrame:
        return pd.DataFrame(values[:, columns], index=index, columns=names)

    return {
        keys.OBSM_PROTEIN_CLR: frame(evidence.found.clr),
        keys.OBSM_PROTEIN_POSITIVE: frame(evidence.found.positive),
        keys.OBSM_PROTEIN_ARM: evidence.table.set_axis(index).astype(np.float32),
    }


def tell(evidence: Evidence, audited: pd.DataFrame) -> dict[str, Any]:
    """For ``uns``: what was found, whether it was used and why, and the audit."""
    kinds = protein.normalise_names(evidence.panel.names)["kind"]
    return {
        "where": evidence.panel.where,
        "used": bool(evidence.used),
        "why": evidence.why,
        "antibodies": ", ".join(evidence.found.names),
        "n_unknown": int((kinds == protein.UNKNOWN).sum()),
        "notes": "; ".join(evidence.found.notes),
        "sentences": "\n".join(sentences(audited)),
        "audit": audited.reset_index(drop=True),
    }

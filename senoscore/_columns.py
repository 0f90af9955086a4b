"""Columns of obs and var, read one at a time, from a file of any age or from memory.

Inspection asks for a few columns of a table that may have hundreds and a million rows; anndata
would decode all of them, and importing it takes longer than the whole inspection.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from senoscore.errors import InputDataError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


class Column(NamedTuple):
    """One column of obs or var, as far as inspection needs it."""

    name: str
    kind: str
    """"label" (categorical or text), "number" or "bool"."""
    values: NDArray[Any]
    """Distinct values of a label column (text), else the values themselves."""
    codes: NDArray[np.int64] | None
    """Per cell, the position in ``values``; -1 is missing. None unless ``kind`` is "label"."""
    sampled: bool = False
    """True when only some cells were looked at (long text columns)."""

    def counts(self) -> NDArray[np.int64]:
        """Cells per distinct value of a label column."""
        if self.codes is None:
            raise TypeError(f"{self.name} is no label column")
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.values))

    def used(self) -> list[str]:
        """Distinct values that some cell has, most frequent first."""
        counts = self.counts()
        order = np.argsort(-counts, kind="stable")
        return [str(self.values[i]) for i in order if counts[i]]


class Table(Protocol):
    """Columns of obs or var, read one at a time."""

    n: int
    names: list[str]
    unreadable: list[str]
    """Columns that were asked for and do not fit the table."""

    def column(self, name: str) -> Column | None:
        """Read a column; None where it cannot be used."""

    def categories(self, name: str) -> list[str] | None:
        """Name the categories of a column without reading its cells; None if it has none."""

    def is_text(self, name: str) -> bool:
        """Whether the column holds categories or text."""

    def index(self) -> list[str]:
        """Read the names of the rows."""


_TEXT_SAMPLE: Final = 60_000


def as_text(values: Any) -> NDArray[Any]:
    """Text from bytes, objects or fixed-width strings; missing values become ''."""
    array = np.asarray(values)
    if array.dtype.kind == "T":  # numpy's variable-width strings, from zarr
        return array.astype(object)
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace").astype(object)
    if array.dtype.kind == "O":
        with suppress(TypeError, UnicodeDecodeError):  # the usual case: what h5py gives
            return np.array(list(map(bytes.decode, array.ravel().tolist())), dtype=object)
        return np.array(
            [
                v.decode("utf-8", "replace")
                if isinstance(v, bytes)
                else ("" if v is None or (isinstance(v, float) and np.isnan(v)) else str(v))
                for v in array.ravel()
            ],
            dtype=object,
        )
    return array.astype(str).astype(object)


def _label_column(name: str, values: NDArray[Any], *, sampled: bool = False) -> Column:
    uniques: dict[str, int] = {}
    codes = np.fromiter(
        (uniques.setdefault(v, len(uniques)) for v in values), dtype=np.int64, count=len(values)
    )
    names = np.array(list(uniques), dtype=object)
    if "" in uniques:  # an empty text is a missing label
        gone = uniques[""]
        codes = np.where(codes == gone, -1, np.where(codes > gone, codes - 1, codes))
        names = np.delete(names, gone)
    return Column(name, "label", names, codes, sampled)


def _plain_column(name: str, values: NDArray[Any], *, sampled: bool = False) -> Column | None:
    if values.ndim != 1:
        return None
    if values.dtype.kind == "b":
        return Column(name, "bool", values, None, sampled)
    if values.dtype.kind in "iuf":
        return Column(name, "number", values, None, sampled)
    if values.dtype.kind in "OSUT":
        return _label_column(name, as_text(values), sampled=sampled)
    return None


def attr_text(node: Any, key: str) -> str:
    value = node.attrs.get(key, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def is_array(node: Any) -> bool:
    return hasattr(node, "shape") and hasattr(node, "dtype")


def _codes(node: Any) -> NDArray[np.int64]:
    codes = np.asarray(node[...])
    if codes.dtype.kind not in "iu":
        raise ValueError(f"codes of type {codes.dtype} are no positions")
    return codes.astype(np.int64)


class GroupTable:
    """obs or var of an h5ad or zarr file, in any encoding since anndata 0.5."""

    def __init__(self, root: Any, where: str) -> None:
        self._root, self._where = root, where
        self._node = root[where]
        self._compound = is_array(self._node)
        self.unreadable: list[str] = []
        if self._compound:  # before anndata 0.7: one array of records
            if not self._node.dtype.names or len(self._node.shape) != 1:
                raise InputDataError(f"{where} is an array and no table: the file is damaged")
            names = list(self._node.dtype.names or ())
            self._index = "index" if "index" in names else (names[0] if names else "")
            self.n = int(self._node.shape[0])
        else:
            self._index = attr_text(self._node, "_index") or (
                "_index" if "_index" in self._node else "index"
            )
            order = self._node.attrs.get("column-order")
            names = (
                [c.decode() if isinstance(c, bytes) else str(c) for c in np.asarray(order).ravel()]
                if order is not None
                else [k for k in self._node if not k.startswith("__")]
            )
            if self._index not in self._node:
                raise InputDataError(f"{where} has no index ({self._index!r} is missing)")
            index = self._node[self._index]
            if not is_array(index):  # a categorical or masked index
                index = index.get("codes", index.get("values"))
            if not is_array(index) or len(index.shape) != 1:
                raise InputDataError(f"the index of {where} is no list of names: damaged file")
            self.n = int(index.shape[0])
        self.names = [name for name in names if name != self._index]

    def index(self) -> list[str]:
        if self._compound:
            return [str(v) for v in as_text(self._node[self._index])]
        column = self._checked(self._index, whole=True)
        if column is None:
            raise InputDataError(f"the index of {self._where} cannot be read: damaged file")
        if column.codes is None:
            return list(map(str, column.values.tolist()))
        names = np.append(column.values, "")
        return [str(v) for v in names[column.codes]]

    def column(self, name: str) -> Column | None:
        if name not in self.names:
            return None
        return self._checked(name)

    def _checked(self, name: str, *, whole: bool = False) -> Column | None:
        """A column whose parts fit each other and the table; others are `unreadable`."""
        try:
            column = self._read(name, whole=whole)
        except (KeyError, OSError, TypeError, ValueError, IndexError, UnicodeError) as error:
            logger.debug("%s/%s cannot be read: %s", self._where, name, error)
            column = None
        if column is not None:
            cells = column.values if column.codes is None else column.codes
            fits = cells.ndim == column.values.ndim == 1 and (
                column.sampled or len(cells) == self.n
            )
            if fits and column.codes is not None and len(cells):
                fits = int(cells.min()) >= -1 and int(cells.max()) < len(column.values)
            if not fits:
                column = None
        if column is None and name not in self.unreadable:
            self.unreadable.append(name)
        return column

    def categories(self, name: str) -> list[str] | None:
        if self._compound:
            legacy = self._legacy_categories(name)
            return None if legacy is None else [str(v) for v in legacy]
        node = self._node.get(name)
        if node is None:
            return None
        if is_array(node):
            node = self._node.get("__categories")
            node = None if node is None or name not in node else node[name]
        elif "codes" in node and "categories" in node:
            node = node["categories"]
            node = node if is_array(node) else node.get("values")
        else:
            node = None
        if not is_array(node) or len(node.shape) != 1:
            return None
        return [str(v) for v in as_text(node[...])]

    def is_text(self, name: str) -> bool:
        if self._compound:
            return self._node.dtype[name].kind in "OSU" or self._legacy_categories(name) is not None
        node = self._node.get(name)
        if node is None:
            return False
        if is_array(node):
            legacy = self._node.get("__categories")
            return node.dtype.kind in "OSUT" or (legacy is not None and name in legacy)
        values = node.get("values")
        return "categories" in node or (is_array(values) and values.dtype.kind in "bOSUT")

    def _read(self, name: str, *, whole: bool = False) -> Column | None:
        if self._compound:
            values = self._node[name]
            legacy = self._legacy_categories(name)
            if legacy is not None and values.dtype.kind in "iu":
                return Column(name, "label", legacy, values.astype(np.int64))
            return _plain_column(name, values)
        if name not in self._node:
            return None
        node = self._node[name]
        if is_array(node):
            categories = self._node.get("__categories")
            if categories is not None and name in categories:  # anndata 0.7
                return Column(name, "label", as_text(categories[name][...]), _codes(node))
            if node.dtype.kind in "OSUT" and whole:  # names: each its own, no labels to be counted
                return Column(name, "label", as_text(node[...]), None)
            if node.dtype.kind in "OSUT" and node.shape[0] > _TEXT_SAMPLE:
                third = _TEXT_SAMPLE // 3
                middle = (node.shape[0] - third) // 2
                parts = [node[:third], node[middle : middle + third], node[-third:]]
                return _plain_column(name, np.concatenate(parts), sampled=True)
            return _plain_column(name, np.asarray(node[...]))
        if "codes" in node and "categories" in node:
            categories = node["categories"]
            if not is_array(categories):
                categories = categories["values"]
            return Column(name, "label", as_text(categories[...]), _codes(node["codes"]))
        if "values" in node and "mask" in node:
            values, mask = np.asarray(node["values"][...]), np.asarray(node["mask"][...], bool)
            if values.dtype.kind == "b":
                text = np.where(mask, "", values.astype(str))
                return _label_column(name, text.astype(object))
            if values.dtype.kind in "iuf":
                return Column(name, "number", np.where(mask, np.nan, values), None)
            return _label_column(name, np.where(mask, "", as_text(values)))
        return None

    def _legacy_categories(self, name: str) -> NDArray[Any] | None:
        uns = self._root.get("uns")
        key = f"{name}_categories"
        if uns is None or is_array(uns) or key not in uns or not is_array(uns[key]):
            return None
        return np.atleast_1d(as_text(uns[key][...]))


class FrameTable:
    """obs or var of an AnnData in memory."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        self.unreadable: list[str] = []
        self.n = len(frame)
        self.names = [str(c) for c in frame.columns]

    def index(self) -> list[str]:
        return [str(v) for v in self._frame.index]

    def column(self, name: str) -> Column | None:
        import pandas as pd

        if name not in self.names:
            return None
        series = self._frame.iloc[:, self.names.index(name)]
        if isinstance(series.dtype, pd.CategoricalDtype):
            return Column(
                name,
                "label",
                np.array([str(c) for c in series.cat.categories], dtype=object),
                series.cat.codes.to_numpy(np.int64),
            )
        if pd.api.types.is_bool_dtype(series.dtype) and not series.isna().any():
            return Column(name, "bool", series.to_numpy(bool), None)
        if pd.api.types.is_numeric_dtype(series.dtype):
            return Column(name, "number", series.to_numpy(np.float64, na_value=np.nan), None)
        missing = series.isna().to_numpy()
        text = np.array([str(v) for v in series], dtype=object)
        return _label_column(name, np.where(missing, "", text))

    def categories(self, name: str) -> list[str] | None:
        import pandas as pd

        dtype = self._frame.dtypes.iloc[self.names.index(name)]
        if isinstance(dtype, pd.CategoricalDtype):
            return [str(c) for c in dtype.categories]
        return None

    def is_text(self, name: str) -> bool:
        import pandas as pd

        dtype = self._frame.dtypes.iloc[self.names.index(name)]
        return not (pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype))

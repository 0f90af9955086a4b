"""All data sets side by side: one row per data set and lineage."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from senoscore.errors import InputDataError


def summarise(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Join the lineage tables of data sets that were analysed.

    Parameters
    ----------
    folders
        ``results/<dataset>`` of each.

    Returns
    -------
    The rows of each ``lineages.tsv`` under a first column ``dataset``; data sets in the order given.
    """
    tables = []
    for folder in map(Path, folders):
        path = folder / "lineages.tsv"
        if not path.is_file():
            raise InputDataError(f"{str(path)!r} does not exist: run this data set first")
        table = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
        table.insert(0, "dataset", folder.name)
        tables.append(table)
    if not tables:
        raise InputDataError("no data set to summarise; name the folders of their results")
    return pd.concat(tables, ignore_index=True).fillna("NA")

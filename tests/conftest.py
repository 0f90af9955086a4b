"""Shared fixtures. Real data are read from ``SENOSCORE_SHARED`` (default ``../shared``)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("SENOSCORE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"real data not found at {folder} (set SENOSCORE_SHARED)")
    return folder


@pytest.fixture(scope="session")
def data(shared: Path) -> Path:
    """The folder of real h5ad files."""
    return shared / "data"

"""Preparation: what is in the file, quality control, lineages. `sn.pp`."""

from __future__ import annotations

from senoscore.notebook import inspect, lineages, qc

__all__ = ["inspect", "lineages", "qc"]

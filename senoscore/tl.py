"""Tools: scores, calls, tables. `sn.tl`."""

from __future__ import annotations

from senoscore.scoring import score

__all__ = ["score"]

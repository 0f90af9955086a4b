"""Tools: scores, calls, tables. `sn.tl`."""

from __future__ import annotations

from senoscore.notebook import burden, call, t_states
from senoscore.scoring import score

__all__ = ["burden", "call", "score", "t_states"]

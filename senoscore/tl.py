"""Tools: scores, calls, tables. `sn.tl`."""

from __future__ import annotations

from senoscore.notebook import burden, call, compare, explain, freeze, protein, t_states
from senoscore.scoring import score

__all__ = ["burden", "call", "compare", "explain", "freeze", "protein", "score", "t_states"]

"""Results as tables. `sn.get`."""

from __future__ import annotations

from senoscore.notebook import scores_df, t_cells

__all__ = ["scores_df", "t_cells"]

"""The HTML report of one data set, and the summary over all: tables, pictures, and what they mean.

Nothing is computed here but counts: every number comes from the artefacts of earlier stages, and a
report whose files do not belong together is refused. The page stands alone: no script, no address
of another machine, pictures inside. Equal artefacts give equal bytes.
"""

from __future__ import annotations

from senoscore.report._build import build_report, build_summary, summary_page

__all__ = [
    "build_report",
    "build_summary",
    "summary_page",
]

"""Write ``senoscore/data/development_stages.tsv``: stage terms whose names hold an age.

Names come from the PyPI package ``cellxgene-ontology-guide`` (MIT; HsapDv and MmusDv are CC BY
4.0). Run it where both that package and senoscore can be imported::

    python tools/make_development_stages.py senoscore/data/development_stages.tsv
"""

from __future__ import annotations

import sys
from pathlib import Path

from senoscore.ages import parse_age


def main(path: str) -> None:
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    parser = OntologyParser()
    lines = [
        "# HsapDv and MmusDv (CC BY 4.0) from cellxgene-ontology-guide; written by "
        "tools/make_development_stages.py",
        "id\tlabel",
    ]
    for ontology in ("HsapDv", "MmusDv"):
        named = parser.get_term_label_to_id_map(ontology)
        lines += [f"{i}\t{label}" for label, i in sorted(named.items(), key=lambda x: x[1])
                  if parse_age(label).how]  # fmt: skip
    Path(path).write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])

"""``python -m senoscore``."""

from senoscore.cli import main

raise SystemExit(main())

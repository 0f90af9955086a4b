"""Which immune cells are senescent, and which T cells are exhausted instead."""

from __future__ import annotations

import importlib
import logging
from typing import Any

__version__ = "0.1.0"
__all__ = ["analyse", "get", "pl", "pp", "read_signatures", "tl"]

logging.getLogger(__name__).addHandler(logging.NullHandler())

# name -> (module, attribute or None for the module itself): loaded on first use, so that
# `senoscore --help` and `senoscore config check` start without scanpy or numba
_LAZY: dict[str, tuple[str, str | None]] = {
    "pp": ("senoscore.pp", None),
    "tl": ("senoscore.tl", None),
    "pl": ("senoscore.pl", None),
    "get": ("senoscore.get", None),
    "analyse": ("senoscore.pipeline", "analyse"),
    "read_signatures": ("senoscore.signatures", "read_signatures"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'senoscore' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    loaded = importlib.import_module(module)
    return loaded if attribute is None else getattr(loaded, attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])

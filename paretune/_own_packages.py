"""Loads `compress` and `search` from beside this package, whatever else bears these names.

A user's own search.py or compress.py may lie first on the path: in the folder of a script, or in
the current one of `python -m` and of a notebook.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HOME = Path(__file__).parents[1]


def load_own_packages() -> None:
    """Import the packages by their files.

    Raises:
        ImportError: Another module was imported under the name of one.
    """
    for name in ("compress", "search"):
        file = HOME / name / "__init__.py"
        known = sys.modules.get(name)
        if known is None and file.is_file():
            spec = importlib.util.spec_from_file_location(
                name, file, submodule_search_locations=[str(file.parent)]
            )
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        elif known is not None and Path(known.__file__ or "").parent != file.parent:
            raise ImportError(
                f"paretune must import its own package '{name}'. Received: {known.__file__}, which "
                "was imported under that name before. Rename that file, or import paretune first."
            )

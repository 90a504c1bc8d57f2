"""Import of `compress` and `search` from beside this package, despite other modules of these names.

A user's own search.py or compress.py may come first on the path: in the folder of a script, or in
the current folder of `python -m` or a notebook.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HOME = Path(__file__).parents[1]


def load_own_packages() -> None:
    """Import the packages by their file paths.

    Raises:
        ImportError: Another module was imported under the name of one of the packages.
    """
    for name in ("compress", "search"):
        file = HOME / name / "__init__.py"
        loaded = sys.modules.get(name)
        if loaded is None and file.is_file():
            spec = importlib.util.spec_from_file_location(
                name, file, submodule_search_locations=[str(file.parent)]
            )
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        elif loaded is not None and Path(loaded.__file__ or "").parent != file.parent:
            raise ImportError(
                f"paretune must import its own package '{name}'. Received: {loaded.__file__}, "
                "which "
                "was imported under that name before. Rename that file, or import paretune first."
            )

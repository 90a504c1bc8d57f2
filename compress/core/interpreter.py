"""Where Python finds modules: the current folder last, and only for the user's own code.

A file called `keras.py` that lies in the folder in which a command is given must not be run in
place of Keras. So commands look for modules where Python's packages are installed, and
`module:function` alone looks in the current folder too, after everything else.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from compress.core import lifeline, linux

_HOME = str(Path(__file__).parents[2])


def drop_current_folder() -> None:
    """Takes off the path what `python -m` and `python -c` put first: the current folder.

    A folder that PYTHONPATH names stays: it was asked for. Where our own packages are used from
    the current folder, it goes to the end instead.
    """
    here = current_folder()
    if sys.flags.safe_path or not sys.path or sys.path[0] not in ("", here):
        return
    del sys.path[0]
    if here == _HOME and here not in sys.path:
        sys.path.append(here)


def add_current_folder() -> None:
    """Lets `module:function` be found in the current folder where it is nowhere else."""
    here = current_folder()
    if here and here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def current_folder() -> str:
    """Returns the current folder; empty where it has been deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def module_command(module: str, *words: str) -> list[str]:
    """Returns the command that runs a module in a child process of this one.

    To be called by the thread that starts it, for one process: it ends when this one does, from
    its first line on (see `compress.core.lifeline`).

    Args:
        module: Its dotted name.
        words: Its arguments.
    """
    # -P: neither the current folder nor the file's own comes first
    tied = [lifeline.__file__, str(os.getpid()), linux.tie()]
    return [sys.executable, "-P", *tied, module, *words]


def module_environment() -> dict[str, str]:
    """Returns an environment in which such a process finds the modules that this one finds."""
    here = current_folder()
    paths = [path or here for path in sys.path]
    own = [PathFinder.find_spec(name, paths) for name in ("compress", "search")]
    if any(spec is not None and not str(spec.origin).startswith(_HOME) for spec in own):
        paths.insert(0, _HOME)  # before files of the user's that bear these names
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}

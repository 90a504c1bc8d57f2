"""Where Python finds modules, and the user's own code: the current folder last, and for that alone.

A file called `keras.py` that lies in the folder in which a command is given must not be run in
place of Keras. So commands look for modules where Python's packages are installed, and
`module:function` alone looks in the current folder too, after everything else. Optional packages
are found without importing them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from compress.core import lifeline, linux
from compress.core.errors import InputError, MissingDependency

_HOME = str(Path(__file__).parents[2])

FORMATS = {
    # an exported file is run too, by ONNX Runtime
    "onnx": ("onnx", "tf2onnx", "onnxruntime"),
    "onnx_int8": ("onnx", "tf2onnx", "onnxruntime"),
    "onnx_int8-qat": ("onnx", "tf2onnx", "onnxruntime"),
    "int8-mixed": ("litert_quantizer",),
    "int4-weights": ("litert_quantizer",),
}
"""Packages by export format."""
MAKING_ONNX = ("onnx", "tf2onnx")
"""Packages that make a float32 ONNX file of a Keras model."""
EXTRAS = {
    "MNN": "'paretune[mnn]'", "onnx": "'paretune[onnx]'", "tf2onnx": "'paretune[onnx]'",
    "onnxruntime": "'paretune[onnx]'", "openvino": "'paretune[openvino]'",
    "litert_quantizer": "'paretune[mixed]'",
    "pandas": "'paretune[tables]'", "pyarrow": "'paretune[tables]'",
    "tensorflow_datasets": "'paretune[tfds]'",
    "ray": "'paretune[ray]'", "psycopg": "'paretune[postgresql]'", "pymysql": "'paretune[mysql]'",
    "fsspec": "'paretune[ray]'", "tensorboard": "'paretune[tensorboard]'",
    "mlflow": "'paretune[mlflow]'", "wandb": "'paretune[wandb]'",
}  # fmt: skip
"""What to install, by package."""


def drop_current_folder() -> None:
    """Take off the path what `python -m` and `python -c` put first: the current folder.

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
    """Let `module:function` be found in the current folder where it is nowhere else."""
    here = current_folder()
    if here and here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def current_folder() -> str:
    """Return the current folder; empty where it has been deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def module_command(module: str, *words: str) -> list[str]:
    """Return the command that runs a module in a child process of this one.

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
    """Return an environment in which such a process finds the modules that this one finds."""
    here = current_folder()
    paths = [path or here for path in sys.path]
    own = [PathFinder.find_spec(name, paths) for name in ("compress", "search")]
    if any(spec is not None and not str(spec.origin).startswith(_HOME) for spec in own):
        paths.insert(0, _HOME)  # before files of the user's that bear these names
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def resolve(target: str, what: str = "") -> Callable[..., Any]:
    """Import `package.module:function` and return the function.

    A module that is not installed is looked for in the current folder.

    Args:
        target: As the user typed it.
        what: The kind of thing it stands for, for the error ("Space").

    Raises:
        InputError: The module cannot be imported or has no such callable.
    """
    module_name, _, name = target.partition(":")
    shown = f"{what} '{target}'" if what else f"'{target}'"
    if not module_name or not name:
        raise InputError(f"{shown} must be package.module:function. Received: '{target}'.")
    function = getattr(_imported(module_name, shown), name, None)
    if not callable(function):
        received = "no such name" if function is None else type(function).__name__
        raise InputError(
            f"{shown} must name a function of '{module_name}'. Received: '{name}' ({received})."
        )
    found: Callable[..., Any] = function
    return found


def import_plugins(names: Iterable[str]) -> None:
    """Import modules of the user's, which register plug-ins under names of their own.

    Args:
        names: Dotted names; found as `resolve` finds them.

    Raises:
        InputError: One is no module's name, or cannot be imported.
    """
    for name in names:
        if not all(map(str.isidentifier, name.split("."))):
            raise InputError(
                f"plugins must be names of modules, like mine or package.mine. Received: '{name}'."
            )
        _imported(name, f"Plug-in '{name}'")


def _imported(name: str, shown: str) -> ModuleType:
    """Import a module of the user's; one that is not installed lies in the current folder.

    Args:
        name: Dotted.
        shown: What errors call it.
    """
    add_current_folder()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{shown} must name an importable module ({error}). Run from the folder that "
            "holds it, or install it."
        ) from None
    except (Exception, SystemExit) as error:
        # the module is the user's: whatever it raises is an error in their file
        raise InputError(
            f"{shown} must name an importable module ({told(error)}). "
            f"Make `python -c 'import {name}'` work first."
        ) from error


def told(error: BaseException) -> str:
    """Return an error's kind, text and place: where the user's own code has to be mended."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def require_packages(packages: Iterable[str], what: str) -> None:
    """Check that packages are installed.

    Args:
        packages: Names that are imported, of `EXTRAS`.
        what: What needs them, as the user asked for it ("format onnx").

    Raises:
        MissingDependency: One is not; the message ends in the install line.
    """
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise MissingDependency(
                f"{what} must have the package '{name}'. Received: it is not installed. "
                f"Install it: pip install {EXTRAS[name]}"
            )

"""Imports of users' modules and checks of optional packages.

A file named `keras.py` in the current folder must not be imported in place of Keras. Therefore
commands import modules only from the places where packages are installed. Only `module:function`
references and plug-ins are also searched in the current folder, after all other places. Optional
packages are checked without importing them.
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

from compress.core.errors import InputError, MissingDependency

_PACKAGES_FOLDER = str(Path(__file__).parents[2])

FORMAT_PACKAGES = {
    # exported files are also run, by ONNX Runtime
    "onnx": ("onnx", "tf2onnx", "onnxruntime"),
    "onnx_int8": ("onnx", "tf2onnx", "onnxruntime"),
    "onnx_int8-qat": ("onnx", "tf2onnx", "onnxruntime"),
    "int8-mixed": ("litert_quantizer",),
    "int4-weights": ("litert_quantizer",),
}
"""Required packages by export format."""
ONNX_PACKAGES = ("onnx", "tf2onnx")
"""Packages that convert a Keras model to a float32 ONNX file."""
INSTALL_TARGETS = {
    "MNN": "'paretune[mnn]'", "onnx": "'paretune[onnx]'", "tf2onnx": "'paretune[onnx]'",
    "onnxruntime": "'paretune[onnx]'", "openvino": "'paretune[openvino]'",
    "litert_quantizer": "'paretune[mixed]'",
    "pandas": "'paretune[tables]'", "pyarrow": "'paretune[tables]'",
    "tensorflow_datasets": "'paretune[tfds]'",
    "ray": "'paretune[ray]'", "psycopg": "'paretune[postgresql]'", "pymysql": "'paretune[mysql]'",
    "fsspec": "'paretune[ray]'", "tensorboard": "'paretune[tensorboard]'",
    "mlflow": "'paretune[mlflow]'", "wandb": "'paretune[wandb]'",
}  # fmt: skip
"""Argument of `pip install`, by package."""


def drop_current_folder() -> None:
    """Remove the current folder from the path, where `python -m` and `python -c` put it first.

    A folder in PYTHONPATH is kept. If paretune itself is used from the current folder, the folder
    is moved to the end.
    """
    folder = find_current_folder()
    if sys.flags.safe_path or not sys.path or sys.path[0] not in ("", folder):
        return
    del sys.path[0]
    if folder == _PACKAGES_FOLDER and folder not in sys.path:
        sys.path.append(folder)


def add_current_folder() -> None:
    """Append the current folder to the path as the last place to search."""
    folder = find_current_folder()
    if folder and folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)


def find_current_folder() -> str:
    """Return the current folder, or "" if it has been deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def build_module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in a child process.

    The thread that starts the process must call this function, once per process. The process ends
    when this one does (see `compress.core.parent_watch`).

    Args:
        module: Dotted name of the module.
        *arguments: Its command line arguments.
    """
    from compress.core import linux, parent_watch  # `import paretune` needs neither

    # -P: neither the current folder nor the folder of the file comes first
    watch = [parent_watch.__file__, str(os.getpid()), linux.select_watch_method()]
    return [sys.executable, "-P", *watch, module, *arguments]


def build_module_environment() -> dict[str, str]:
    """Return an environment in which a child process finds the same modules as this process."""
    folder = find_current_folder()
    paths = [path or folder for path in sys.path]
    specs = [PathFinder.find_spec(name, paths) for name in ("compress", "search")]
    if any(
        spec is not None and not str(spec.origin).startswith(_PACKAGES_FOLDER) for spec in specs
    ):
        paths.insert(0, _PACKAGES_FOLDER)  # before users' files with these names
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def import_function(target: str, kind: str = "") -> Callable[..., Any]:
    """Import `package.module:function` and return the function.

    If the module is not installed, it is searched in the current folder.

    Args:
        target: The reference as the user typed it.
        kind: The kind of object, for the error ("Space").

    Raises:
        InputError: The module cannot be imported or has no such callable.
    """
    module_name, _, name = target.partition(":")
    shown = f"{kind} '{target}'" if kind else f"'{target}'"
    if not module_name or not name:
        raise InputError(f"{shown} must be package.module:function. Received: '{target}'.")
    function = getattr(_import_module(module_name, shown), name, None)
    if not callable(function):
        received = "no such name" if function is None else type(function).__name__
        raise InputError(
            f"{shown} must name a function of '{module_name}'. Received: '{name}' ({received})."
        )
    resolved: Callable[..., Any] = function
    return resolved


def import_plugins(names: Iterable[str]) -> None:
    """Import users' modules, which register plug-ins.

    Args:
        names: Dotted names; searched like those of `import_function`.

    Raises:
        InputError: A name is not the name of a module, or the module cannot be imported.
    """
    for name in names:
        if not all(map(str.isidentifier, name.split("."))):
            raise InputError(
                f"plugins must be names of modules, like mine or package.mine. Received: '{name}'."
            )
        _import_module(name, f"Plug-in '{name}'")


def _import_module(name: str, shown: str) -> ModuleType:
    """Import a user's module, from the current folder if it is not installed.

    Args:
        name: Dotted name.
        shown: Description of the module in errors.
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
        # any exception is an error in the user's file
        raise InputError(
            f"{shown} must name an importable module ({describe_error(error)}). "
            f"Make `python -c 'import {name}'` work first."
        ) from error


def describe_error(error: BaseException) -> str:
    """Return type, message and location of an error in the user's code."""
    frames = traceback.extract_tb(error.__traceback__)
    location = f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{location}"


def require_packages(packages: Iterable[str], feature: str) -> None:
    """Check that packages are installed.

    Args:
        packages: Import names from `INSTALL_TARGETS`.
        feature: The feature that needs them, in the user's terms ("format onnx").

    Raises:
        MissingDependency: A package is not installed; the message ends with the install command.
    """
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise MissingDependency(
                f"{feature} must have the package '{name}'. Received: it is not installed. "
                f"Install it: pip install {INSTALL_TARGETS[name]}"
            )

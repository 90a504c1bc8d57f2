"""A training that can go on: everything it has in one file, written after each epoch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import opened
from compress.core.atomic_files import replacing
from compress.core.errors import InputError

Arrays = dict[str, npt.NDArray[Any]]


@dataclass
class Checkpoint:
    """What a training has after some epochs.

    Attributes:
        identity: What the training is; another one must not go on from here.
        about: Plain numbers: history, best epoch, steps.
        arrays: Variables by part and place ("model/3").
    """

    identity: str
    about: dict[str, Any]
    arrays: Arrays = field(default_factory=dict)

    def put(self, part: str, values: Sequence[Any]) -> None:
        """Stores the values of variables (or arrays) under a part's name."""
        for place, value in enumerate(values):
            array = value.numpy() if hasattr(value, "numpy") else np.asarray(value)
            self.arrays[f"{part}/{place}"] = array

    def get(self, part: str) -> list[npt.NDArray[Any]]:
        """Returns a part's arrays in their order."""
        found: list[npt.NDArray[Any]] = []
        while (array := self.arrays.get(f"{part}/{len(found)}")) is not None:
            found.append(array)
        return found

    def state(self, part: str) -> Arrays:
        """Returns the arrays that were put under "part/name"."""
        head = f"{part}/"
        found = {key: value for key, value in self.arrays.items() if key.startswith(head)}
        return {key.removeprefix(head): value for key, value in found.items()}

    def assign(self, part: str, variables: Sequence[Any]) -> None:
        """Gives a part's values to variables."""
        for variable, value in zip(variables, self.get(part), strict=True):
            variable.assign(value)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a checkpoint in one atomic step; floats of 16 bits that NumPy lacks become bytes."""
    about = {"identity": checkpoint.identity, **checkpoint.about}
    with replacing(path.with_suffix(".npz")) as temporary:
        arrays: dict[str, Any] = {
            "about": np.array(json.dumps(about)),
            # bfloat16 would need pickling
            **{
                name: array.astype(np.float32) if array.dtype.kind == "V" else array
                for name, array in checkpoint.arrays.items()
            },
        }
        np.savez(temporary, **arrays)


def load(path: Path, identity: str) -> Checkpoint | None:
    """Reads what `save` wrote; None where there is no file.

    Raises:
        InputError: The file is of another training, or no checkpoint.
    """
    path = path.with_suffix(".npz")
    if not path.exists():
        return None
    arrays, about = _read(path)
    found = about.pop("identity")
    if found != identity:
        raise InputError(
            f"A checkpoint must belong to the training that is continued. Received: '{path}', of a "
            f"training with {_difference(found, identity)}. Remove it to start over."
        )
    return Checkpoint(identity, about, arrays)


def parts_of(path: Path) -> int | None:
    """Return into how many parts a training cuts its batches; None: it has not begun.

    Raises:
        InputError: The file is no checkpoint.
    """
    path = path.with_suffix(".npz")
    return int(_read(path, ["about"])[1].get("parts", 1)) if path.exists() else None


def _read(path: Path, names: Sequence[str] | None = None) -> tuple[Arrays, dict[str, Any]]:
    """Return a checkpoint's arrays and what it says of the training."""
    try:
        with opened(path) as archive:
            arrays = archive.read(archive.names if names is None else names)
        about: dict[str, Any] = json.loads(str(arrays.pop("about")))
        about["identity"]
    except (InputError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"A checkpoint must be written by train(). Received: '{path}' ({error!r}). Remove it."
        ) from None
    return arrays, about


def _difference(old: str, new: str) -> str:
    """Returns the first line in which two identities differ."""
    for before, after in zip(old.splitlines(), new.splitlines(), strict=False):
        if before != after:
            return f"'{before}' instead of '{after}'"
    return "more or fewer parts"

"""A model as what TensorFlow itself runs: a `.keras` file in float32, or a SavedModel."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from compress.model.copies import float32_model
from compress.model.io import save_model

if TYPE_CHECKING:
    from compress.exporting.traced import Convertible, Examples


def file_for(traced: Convertible, kind: str, stem: Path, inputs: Examples) -> Path:
    """Writes what TensorFlow is given of a model; see `Runtime.maker`."""
    if isinstance(traced.model, str):
        path = Path(f"{stem}.saved_model")
        shutil.copytree(traced.saved(), path)
        return path
    path = Path(f"{stem}.keras")
    save_model(float32_model(traced.model), path)
    return path

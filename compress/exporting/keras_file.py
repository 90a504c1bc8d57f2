"""A Keras model as a `.keras` file that computes in float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compress.model.copies import float32_model
from compress.model.io import save_model

if TYPE_CHECKING:
    from compress.exporting.traced import Examples, Traced


def file_for(traced: Traced, kind: str, stem: Path, inputs: Examples) -> Path:
    """Writes the file that a runtime of Keras models is given; see `Runtime.maker`."""
    path = Path(f"{stem}.keras")
    save_model(float32_model(traced.model), path)
    return path

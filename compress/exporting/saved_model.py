"""SavedModels: one at known sizes and batch 1 for converters, and what TensorFlow itself runs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import RunFailed, one_line
from compress.core.native_output import captured_stderr, quiet_logger
from compress.exporting.traced import Convertible, numbered
from compress.model.copies import float32_model
from compress.model.io import save_model
from compress.model.kinds import SavedModel

if TYPE_CHECKING:
    from compress.exporting.traced import Convertible, Examples


class TracedSavedModel(Convertible):
    """A SavedModel's: one of its signatures, written anew.

    Args:
        source: The loaded SavedModel.
        sizes: Of one example, an input each; see `SavedModel.sizes`.
    """

    def __init__(self, source: SavedModel, sizes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.model = source.path.name
        self._source, self._function = source, source.at(sizes)
        taken = source.shapes_at(sizes)
        names = numbered("input", len(taken))
        self.ports = [
            (name, shape, kind)
            for name, shape, (_, _, kind) in zip(names, taken, source.inputs, strict=True)
        ]

    def saved(self) -> Path:
        """Returns the folder of the SavedModel; see `Convertible`."""
        import tensorflow as tf

        if "saved" not in self._made:
            folder = self.place / "saved"
            module = tf.Module()
            module.source = self._source.loaded  # its variables and tables go along
            module.serve = tf.function(
                self._serving(),
                input_signature=[
                    tf.TensorSpec(shape, kind, name) for name, shape, kind in self.ports
                ],
            )
            with captured_stderr(), quiet_logger("tensorflow"):
                try:
                    tf.saved_model.save(module, str(folder), signatures=module.serve)
                except Exception as error:  # TensorFlow raises many kinds here
                    raise RunFailed(
                        f"SavedModel '{self.model}' could not be written at known sizes: "
                        f"{one_line(str(error).strip(), 300)}"
                    ) from error
            self._made["saved"] = folder
        return self._made["saved"]

    def saved_plain(self) -> Path:
        """Returns the same: what its operations are cannot be chosen any more."""
        return self.saved()

    def _serving(self) -> Any:
        function, names = self._function, [name for name, _, _ in self._source.inputs]
        outputs = [name for name, _, _ in self._source.outputs]
        told = numbered("output", len(outputs))

        def serve(*given: Any) -> Any:
            made = function(**dict(zip(names, given, strict=True)))
            return {new: made[name] for new, name in zip(told, outputs, strict=True)}

        return serve


def file_for(traced: Convertible, kind: str, stem: Path, inputs: Examples) -> Path:
    """Writes what TensorFlow is given of a model; see `Runtime.maker`."""
    if isinstance(traced.model, str):
        path = Path(f"{stem}.saved_model")
        shutil.copytree(traced.saved(), path)
        return path
    path = Path(f"{stem}.keras")
    save_model(float32_model(traced.model), path)
    return path

"""SavedModels: loaded by TensorFlow, called through one of their signatures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.core.errors import InputError, one_line, unknown_name
from compress.core.native_output import captured_stderr, quiet_logger
from compress.model.input_sizes import InputShape, require_known, sizes_of

DEFAULT = "serving_default"
Spec = tuple[str, tuple[int | None, ...] | None, str]
"""Name, shape with the batch axis (None: any rank) and type of an input or output."""


class SavedModel:
    """A loaded SavedModel and one of its signatures.

    A SavedModel is a program: loading it fills its tables, calling it runs its graph.

    Args:
        path: Its folder.
        signature: Name; default: "serving_default", or the only one.

    Attributes:
        signature: The name.
        signatures: All names.
        loaded: What TensorFlow made of it.
        function: The signature's concrete function; it takes its inputs by name.
        inputs, outputs: What it takes and gives, by name in alphabetical order.

    Raises:
        InputError: TensorFlow cannot load it, it has no such signature or several without a
            default, or an input takes texts.
    """

    def __init__(self, path: Path, signature: str = "") -> None:
        import tensorflow as tf

        self.path = path
        with captured_stderr() as written, quiet_logger("tensorflow"):
            try:
                # held: its functions do not hold its variables
                self.loaded: Any = tf.saved_model.load(str(path))
            except Exception as error:  # damage, and operations that this TensorFlow lacks
                reason = str(error).strip() or written().strip() or repr(error)
                raise InputError(
                    f"TensorFlow must be able to load '{path}'. Received: "
                    f"{one_line(reason.splitlines()[0], 300)}."
                ) from None
        functions = dict(self.loaded.signatures)
        self.signatures = tuple(sorted(functions))
        self.signature = self._chosen(signature)
        self.function: Any = functions[self.signature]
        self.inputs = sorted(
            _spec(*item) for item in self.function.structured_input_signature[1].items()
        )
        self.outputs = sorted(_spec(*item) for item in self.function.structured_outputs.items())
        for name, _, kind in self.inputs:
            if kind in ("string", "resource", "variant"):
                raise InputError(
                    f"Inputs of '{path}' must be numbers. Received: '{name}', which takes "
                    f"{'texts' if kind == 'string' else kind}. Save the model behind its "
                    "preprocessing."
                )

    def _chosen(self, signature: str) -> str:
        if not self.signatures:
            raise InputError(
                f"'{self.path}' must have a signature. Received: none. Save it with "
                "tf.saved_model.save(model, folder, signatures=function)."
            )
        if signature:
            if signature not in self.signatures:
                raise unknown_name(f"signature of '{self.path}'", signature, self.signatures)
            return signature
        if DEFAULT in self.signatures or len(self.signatures) == 1:
            return DEFAULT if DEFAULT in self.signatures else self.signatures[0]
        raise InputError(
            f"One signature of '{self.path}' must be named. Received: none, of "
            f"{', '.join(self.signatures)}. Give --signature (in Python signature=)."
        )

    def sizes(self, given: InputShape | None, purpose: str) -> list[tuple[int, ...]]:
        """Returns the sizes of one example of each input.

        Args:
            given: See `compress.model.input_sizes`.
            purpose: What sizes are needed for, for errors: "to be timed".

        Raises:
            InputError: One is open and not given, or what is given does not fit.
        """
        what, own = (
            f"'{self.path}'",
            [
                (name, (None,) * _rank(name, given) if shape is None else shape[1:])
                for name, shape, _ in self.inputs
            ],
        )
        found = sizes_of(what, own, given)
        require_known(what, [name for name, _ in own], found, purpose)
        return [tuple(size for size in sizes if size is not None) for sizes in found]

    def shapes_at(self, sizes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """Returns the shapes of the inputs with their batch axis: as it is fixed, else 1."""
        return [
            _batched(shape, size) for (_, shape, _), size in zip(self.inputs, sizes, strict=True)
        ]

    def at(self, sizes: Sequence[Sequence[int]]) -> Any:
        """Returns the signature as a concrete function of known sizes at batch 1.

        A batch that the signature fixes stays what it is.

        Args:
            sizes: Of one example, an input each; see `sizes`.

        Raises:
            InputError: The graph cannot run at these sizes.
        """
        import tensorflow as tf

        function = self.function
        specs = {
            name: tf.TensorSpec(shape, kind)
            for (name, _, kind), shape in zip(self.inputs, self.shapes_at(sizes), strict=True)
        }
        try:
            return tf.function(lambda **given: function(**given)).get_concrete_function(**specs)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise InputError(
                f"'{self.path}' must run at the sizes {', '.join(map(str, sizes))}. Received: "
                f"{one_line(str(error).strip().splitlines()[-1].strip(), 300)}."
            ) from None


def _rank(name: str, given: InputShape | None) -> int:
    """Returns how many sizes are given for an input of any rank; 1: none are, and one is asked."""
    sizes: Any = given.get(name) if isinstance(given, Mapping) else given
    return len(sizes) if sizes and not isinstance(sizes[0], (list, tuple)) else 1


def _batched(shape: tuple[int | None, ...] | None, size: Sequence[int]) -> tuple[int, ...]:
    """Returns a shape with its batch axis: what it is fixed to, else 1."""
    if shape == ():
        return ()
    return ((shape[0] if shape else None) or 1, *size)


def bytes_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(
        (Path(place) / name).stat().st_size for place, _, names in os.walk(path) for name in names
    )


def _spec(name: str, spec: Any) -> Spec:
    shape = None if spec.shape.rank is None else tuple(spec.shape)
    return name, shape, str(spec.dtype.base_dtype.name)

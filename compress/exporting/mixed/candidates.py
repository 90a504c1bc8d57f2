"""Files of one model at other precisions, and how far each moves the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.exporting.answering import runnable
from compress.exporting.conversions import ConversionFailed, convert
from compress.exporting.mixed.units import FLOAT32, INT8, Unit, recipe_of
from compress.exporting.traced import Port, write_examples
from compress.measure.quality import divergence, outputs_of
from compress.measure.runtimes import Session, session_for


def observe(
    source: Path,
    path: Path,
    inputs: Sequence[npt.NDArray[Any]],
    ports: Sequence[Port],
    units: Sequence[Unit],
) -> None:
    """Writes the smallest and the largest value of what passes, where it may be whole numbers.

    Args:
        source: A float32 file.
        path: The file to write.
        inputs: Examples (n, ...), an array an input.
        ports: Of the file.
        units: Of the file.

    Raises:
        ConversionFailed: LiteRT Quantizer refuses the file.
    """
    examples = path.with_suffix(".npz")
    write_examples(examples, inputs, ports)
    convert(
        "mixed_ranges", source=str(source), path=str(path), examples=str(examples),
        recipe=recipe_of({unit: INT8 for unit in units if not unit.loops}),
    )  # fmt: skip


def running(path: Path, inputs: Sequence[npt.NDArray[Any]]) -> Session:
    """Returns a file's session once it has run; a file that does not run is removed.

    Args:
        path: A file that was just made.
        inputs: Examples (n, ...), an array an input.

    Raises:
        ConversionFailed: LiteRT cannot run it.
    """
    try:
        return runnable(path, inputs)
    except InputError as error:
        path.unlink()
        raise ConversionFailed("made no file that runs of", str(error)) from None


class Files:
    """Makes files of one float32 file, each once, and tells how far they move the outputs.

    Args:
        source: The float32 file.
        folder: Where files go.
        inputs: An array (n, ...) an input.
        ports: Of the file.
        units: Of the file.
        sensed: Number of examples, the first ones, on which losses are measured.
    """

    def __init__(
        self,
        source: Path,
        folder: Path,
        inputs: Sequence[npt.NDArray[Any]],
        ports: Sequence[Port],
        units: Sequence[Unit],
        sensed: int,
    ) -> None:
        self.source, self.units = source, tuple(units)
        self._folder, self._ranges = folder, folder / "ranges.json"
        self._made: dict[tuple[str, ...], Path] = {}
        self._numbers = count()
        self._losses: dict[Path, float] = {source: 0.0}
        self._inputs = [array[:sensed] for array in inputs]
        self._wanted = outputs_of(session_for(source), self._inputs)
        observe(source, self._ranges, inputs, ports, units)

    def made(self, levels: Mapping[Unit, str]) -> Path:
        """Returns the file whose units have these levels; those that are not named are float32.

        Raises:
            ConversionFailed: It cannot be made, or LiteRT cannot run it.
        """
        key = tuple(levels.get(unit, FLOAT32) for unit in self.units)
        if set(key) == {FLOAT32}:
            return self.source
        if key not in self._made:
            self._made[key], _ = self._new(dict(zip(self.units, key, strict=True)))
        return self._made[key]

    def throughout(self, level: str, had: npt.NDArray[np.bool_]) -> dict[Unit, str]:
        """Returns one level of all units that can have it.

        Args:
            level: The level.
            had: Whether each unit can, (units,).
        """
        return {unit: level for unit, ok in zip(self.units, had, strict=True) if ok}

    def alone(self, unit: Unit, level: str) -> float:
        """Returns how far the outputs move where one unit alone has a level.

        The file is not kept: of a large model there are hundreds.

        Raises:
            ConversionFailed: See `made`.
        """
        if level == FLOAT32:
            return 0.0
        path, session = self._new({unit: level})
        try:
            return self._measured(session)
        finally:
            path.unlink()

    def _new(self, levels: Mapping[Unit, str]) -> tuple[Path, Session]:
        path = self._folder / f"mixed_{next(self._numbers)}.tflite"
        convert(
            "mixed", source=str(self.source), path=str(path), ranges=str(self._ranges),
            recipe=recipe_of(levels),
        )  # fmt: skip
        return path, running(path, self._inputs)

    def _measured(self, session: Session) -> float:
        made = outputs_of(session, self._inputs)
        return max(0.0, divergence(self._wanted, made))

    def loss(self, path: Path) -> float:
        """Returns how far a file's outputs are from the float32 file's; see `divergence`."""
        if path not in self._losses:
            self._losses[path] = self._measured(session_for(path))
        return self._losses[path]

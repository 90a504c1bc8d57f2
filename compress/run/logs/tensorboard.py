"""TensorBoard: event files in the run's folder, one sub-folder an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.run.logs import Event

PLACE = "tensorboard"


class TensorBoardLog:
    """Writes event files that `tensorboard --logdir FOLDER/tensorboard` shows.

    Figures of an item stand under its name, so that curves of several lie over each other; what
    it was made of is in TensorBoard's HParams.

    Args:
        folder: The run's.
        name: What the run is called.
        plan: Its options.
    """

    def __init__(self, folder: Path, name: str, plan: Mapping[str, Any]) -> None:
        import tensorboard.summary

        self._make = tensorboard.summary.Writer
        self._place = folder / PLACE
        self._open: dict[str, Any] = {}

    def take(self, event: Event) -> None:
        """See `Log.take`."""
        if event.item not in self._open:
            self._open[event.item] = self._make(str(self._place / event.item))
        writer = self._open[event.item]
        for point in event.points:
            for name, value in point.values.items():
                writer.add_scalar(name, value, point.step, wall_time=point.when)
        if event.params:
            self._hparams(event)
        writer.flush()
        if event.kind != "model":  # nothing more comes of it
            self._open.pop(event.item).close()

    def _hparams(self, event: Event) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Stored
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        # choices may be None, which HParams has no type for
        known = {
            key: value if isinstance(value, (bool, int, float)) else str(value)
            for key, value in event.params.items()
        }
        made = EventFileWriter(str(self._place / event.item), filename_suffix=".hparams")
        made.add_event(Stored(summary=summary_v2.hparams_pb(known, trial_id=event.item)))
        made.close()

    def end(self, files: Sequence[Path], *, finished: bool) -> None:
        """See `Log.end`."""
        for writer in self._open.values():
            writer.close()
        self._open = {}

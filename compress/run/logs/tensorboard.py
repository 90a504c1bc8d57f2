"""TensorBoard logging: event files in the run's folder, one sub-folder per item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.run.logs import Event

FOLDER_NAME = "tensorboard"


class TensorBoardLog:
    """Log of event files, shown by `tensorboard --logdir FOLDER/tensorboard`.

    Each item is a TensorBoard run, so the curves of several items share a chart. The parameters of
    an item are in TensorBoard's HParams.

    Args:
        folder: The run's folder.
        name: Name of the run.
        plan: The run's options.
    """

    def __init__(self, folder: Path, name: str, plan: Mapping[str, Any]) -> None:
        import tensorboard.summary

        self._create_writer = tensorboard.summary.Writer
        self._folder = folder / FOLDER_NAME
        self._writers: dict[str, Any] = {}

    def take(self, event: Event) -> None:
        """Log an event; see `Log.take`."""
        if event.item not in self._writers:
            self._writers[event.item] = self._create_writer(str(self._folder / event.item))
        writer = self._writers[event.item]
        for point in event.points:
            for name, value in point.values.items():
                writer.add_scalar(name, value, point.step, wall_time=point.when)
        if event.params:
            self._write_hparams(event)
        writer.flush()
        if event.kind != "model":  # no further events
            self._writers.pop(event.item).close()

    def _write_hparams(self, event: Event) -> None:
        """Write an event's parameters to a file for HParams; others than numbers become text."""
        from tensorboard.compat.proto.event_pb2 import Event as Stored
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        # parameters may be None, which HParams does not support
        hparams = {
            key: value if isinstance(value, (bool, int, float)) else str(value)
            for key, value in event.params.items()
        }
        writer = EventFileWriter(str(self._folder / event.item), filename_suffix=".hparams")
        writer.add_event(Stored(summary=summary_v2.hparams_pb(hparams, trial_id=event.item)))
        writer.close()

    def end(self, files: Sequence[Path], *, finished: bool) -> None:
        """Close the log; see `Log.end`."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

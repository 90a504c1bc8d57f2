"""Keeps what a model looks like before and after, for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core.errors import InputError
from compress.data import Dataset
from compress.model.heads import counted_at
from compress.run.directory import LOG, RunFolder
from compress.run.graphs import write_graphs

if TYPE_CHECKING:
    import keras


def keep_graphs(
    folder: RunFolder, name: str, before: keras.Model, after: keras.Model, data: Dataset
) -> None:
    """Writes the graphs of a model; one that cannot be recorded is told, and has none.

    Args:
        folder: The run's.
        name: Of the model.
        before, after: The model, and what became of it.
        data: Their inputs.
    """
    from compress.measure.graph import graph_of

    try:
        each = [graph_of(item, counted_at(item, data.input_shapes)) for item in (before, after)]
    except InputError as error:
        LOG.info("note: %s has no graph in the report: %s", name, error)
        return
    write_graphs(folder.graphs_of(name), each[0], each[1])

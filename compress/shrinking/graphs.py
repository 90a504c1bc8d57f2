"""Keeps what a model looks like before and after, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from compress.core.errors import InputError
from compress.data import Dataset
from compress.model.heads import counted_at
from compress.run.directory import LOG, RunFolder
from compress.run.exports import SIDES, Nodes, write_graphs

if TYPE_CHECKING:
    import keras


def keep_graphs(
    folder: RunFolder, name: str, before: keras.Model, after: keras.Model, data: Dataset,
    times: Mapping[str, Mapping[str, float]] | None = None,
) -> None:  # fmt: skip
    """Writes the graphs of a model; one that cannot be recorded is told, and has none.

    Args:
        folder: The run's.
        name: Of the model.
        before, after: The model, and what became of it.
        data: Their inputs.
        times: Milliseconds by layer, "before" and "after"; None: they are not known.
    """
    from compress.measure.counting import graph_of

    try:
        each = [graph_of(item, counted_at(item, data.input_shapes)) for item in (before, after)]
    except InputError as error:
        LOG.info("note: %s has no graph in the report: %s", name, error)
        return
    known = times or {}
    timed = [_timed(nodes, known.get(side, {})) for nodes, side in zip(each, SIDES, strict=True)]
    write_graphs(folder.graphs_of(name), timed[0], timed[1])


def _timed(nodes: Nodes, times: Mapping[str, float]) -> Nodes:
    """Returns calls with their times, by the names of their layers."""
    return tuple(
        replace(node, ms=times.get(node.name, times.get(node.name.rpartition("/")[2])))
        for node in nodes
    )

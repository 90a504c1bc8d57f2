"""What writes files of nets for timing, by their format."""

from __future__ import annotations

from compress.exporting.side_by_side import litert_files
from compress.exporting.side_by_side_onnx import onnx_files
from compress.measure.latency_table.measuring import Convert
from compress.plan.output import ONNX_FORMATS


def convert_for(format: str) -> Convert:
    """Returns what writes files of models in a format; see `Convert`."""
    return onnx_files if format in ONNX_FORMATS else litert_files

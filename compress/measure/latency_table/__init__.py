"""Times of single calls: a table of (layer kind, shapes, widths) -> measured milliseconds."""

from compress.measure.latency_table.measuring import measure_calls
from compress.measure.latency_table.prediction import Calibration, calibrate
from compress.measure.latency_table.record import CallKey, CallTime, LatencyTable, key_of

__all__ = [
    "Calibration",
    "CallKey",
    "CallTime",
    "LatencyTable",
    "calibrate",
    "key_of",
    "measure_calls",
]

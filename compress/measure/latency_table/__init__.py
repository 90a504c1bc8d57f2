"""Times of single calls: a table of (layer kind, shapes, widths) -> measured milliseconds."""

from compress.measure.latency_table.calibration import Calibration, calibrate
from compress.measure.latency_table.key import CallKey, key_of
from compress.measure.latency_table.measuring import measure_calls
from compress.measure.latency_table.record import CallTime, LatencyTable

__all__ = [
    "Calibration",
    "CallKey",
    "CallTime",
    "LatencyTable",
    "calibrate",
    "key_of",
    "measure_calls",
]

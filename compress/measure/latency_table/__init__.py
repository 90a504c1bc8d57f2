"""Latency tables: (layer class, shapes, config) -> measured milliseconds of a single call."""

from compress.measure.latency_table.measurement import measure_calls
from compress.measure.latency_table.prediction import Calibration, calibrate
from compress.measure.latency_table.record import CallKey, CallTime, LatencyTable, build_call_key

__all__ = [
    "Calibration",
    "CallKey",
    "CallTime",
    "LatencyTable",
    "calibrate",
    "build_call_key",
    "measure_calls",
]

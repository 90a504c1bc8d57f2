"""Measurement: MACs and parameters, file sizes, quality of files, latency."""

from compress.measure.counting import Analysis, LayerCost, count_macs
from compress.measure.latency import Entry, measure_latency, time_entries
from compress.measure.latency_record import Latency

__all__ = [
    "Analysis",
    "Entry",
    "Latency",
    "LayerCost",
    "count_macs",
    "measure_latency",
    "time_entries",
]

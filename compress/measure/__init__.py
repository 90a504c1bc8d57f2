"""Measurement: MACs and parameters, file sizes, quality of files, latency."""

from compress.measure.counting import Analysis, LayerCost, count_macs
from compress.measure.latency import Entry, Latency, measure_latency, time_entries

__all__ = [
    "Analysis",
    "Entry",
    "Latency",
    "LayerCost",
    "count_macs",
    "measure_latency",
    "time_entries",
]

"""Measurement: MACs and parameters, file sizes, quality of files, latency."""

from compress.measure.counting import count_macs
from compress.measure.latency import Entry, measure_latency, time_entries
from compress.measure.latency_record import Latency
from compress.measure.layer_costs import Analysis, LayerCost

__all__ = [
    "Analysis",
    "Entry",
    "Latency",
    "LayerCost",
    "count_macs",
    "measure_latency",
    "time_entries",
]

"""Measurement: MACs and parameters, file sizes, quality of files, latency."""

from compress.measure.analysis import Analysis, LayerCost, count_macs
from compress.measure.latency import Latency, measure_latency

__all__ = ["Analysis", "Latency", "LayerCost", "count_macs", "measure_latency"]

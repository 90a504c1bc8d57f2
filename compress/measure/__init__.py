"""Measurement: MACs and parameters, file sizes, metrics of exported files, latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core.registry import build_lazy_getattr

if TYPE_CHECKING:
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

if not TYPE_CHECKING:
    # lazy: counting MACs must not import the runtimes
    __getattr__ = build_lazy_getattr(
        __name__,
        {
            "Analysis": "compress.measure.layer_costs:Analysis",
            "Entry": "compress.measure.latency:Entry",
            "Latency": "compress.measure.latency_record:Latency",
            "LayerCost": "compress.measure.layer_costs:LayerCost",
            "count_macs": "compress.measure.counting:count_macs",
            "measure_latency": "compress.measure.latency:measure_latency",
            "time_entries": "compress.measure.latency:time_entries",
        },
    )

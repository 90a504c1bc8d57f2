"""Repair without training: what pruning broke is solved for, layer by layer."""

from compress.reconstruction.repairing import repair
from compress.reconstruction.report import LayerRepair, RepairReport

__all__ = ["LayerRepair", "RepairReport", "repair"]

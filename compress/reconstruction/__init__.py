"""Repair without training: what pruning broke is solved for, layer by layer."""

from compress.reconstruction.repairing import FEWEST, repair
from compress.reconstruction.report import LayerRepair, RepairReport

__all__ = ["FEWEST", "LayerRepair", "RepairReport", "repair"]

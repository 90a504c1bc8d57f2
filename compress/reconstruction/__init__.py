"""Layer-wise weight reconstruction of pruned models by least squares, without training."""

from compress.reconstruction.repairing import repair
from compress.reconstruction.report import LayerRepair, RepairReport

__all__ = ["LayerRepair", "RepairReport", "repair"]

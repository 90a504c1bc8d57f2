"""Layer-wise weight reconstruction of pruned models by least squares, without training."""

from compress.reconstruction.repairing import MIN_EXAMPLES, repair
from compress.reconstruction.report import LayerRepair, RepairReport

__all__ = ["MIN_EXAMPLES", "LayerRepair", "RepairReport", "repair"]

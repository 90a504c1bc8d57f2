"""Channel pruning: coupling, criteria, selection and surgery for Keras 3 models.

TensorFlow is imported only when it is used.
"""

from compress.prune.channels.coupling.blocks import ProtectedBlock
from compress.prune.channels.coupling.slots import LayerCall, Slots
from compress.prune.channels.pruning import (
    PruneResult,
    check_channels,
    prune_channels,
    sensitivity_map,
)
from compress.prune.channels.report import (
    BlockRow,
    ChannelReport,
    CouplingReport,
    GroupRow,
    coupled_groups,
)
from compress.prune.channels.rules import register_rule
from compress.prune.channels.selection.sensitivity import SensitivityMap

__all__ = [
    "BlockRow",
    "ChannelReport",
    "CouplingReport",
    "GroupRow",
    "ProtectedBlock",
    "PruneResult",
    "SensitivityMap",
    "LayerCall",
    "Slots",
    "check_channels",
    "coupled_groups",
    "prune_channels",
    "register_rule",
    "sensitivity_map",
]

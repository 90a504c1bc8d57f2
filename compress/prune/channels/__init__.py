"""Channel pruning: coupling, criteria, selection and surgery for Keras 3 models.

Everything here imports TensorFlow only when it is used.
"""

from compress.prune.channels.pruning import (
    Coupled,
    PruneResult,
    check_channels,
    coupled_groups,
    prune,
    prune_channels,
)
from compress.prune.channels.report import ChannelReport, GroupRow
from compress.prune.channels.rules import register_rule
from compress.prune.channels.sensitivity import SensitivityMap, sensitivity_map
from compress.prune.channels.slots import Site, Slots

__all__ = [
    "ChannelReport",
    "Coupled",
    "GroupRow",
    "PruneResult",
    "SensitivityMap",
    "Site",
    "Slots",
    "check_channels",
    "coupled_groups",
    "prune",
    "prune_channels",
    "register_rule",
    "sensitivity_map",
]

"""Estimate of the time and memory that a comparison of methods takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from compress.core.memory_budget import current_budget, gigabytes
from compress.model.program import Program
from compress.prune.channels.coupling.blocks import blocks_of
from compress.prune.channels.selection.judging import FEW_EXAMPLES, FEW_SAMPLES, Judge
from compress.prune.channels.selection.sensitivity import SHARES
from compress.reconstruction.kinds import has_parts, parts_of
from compress.reconstruction.observing import SAMPLES

if TYPE_CHECKING:
    from compress.plan import ChannelOptions
    from compress.prune.channels.coupling.groups import Coupling

LONGEST = 300.0
"""Seconds that a comparison of methods may take by its estimate."""
HELD = 0.5
"""Share of the free memory that its arrays may take."""
RATE = 5e9
"""Floating-point operations a second of the solver, on one core."""
FORWARD = 2.5
"""Forward passes that each example of a reconstruction costs: both models, layer by layer."""
METHODS = 3
"""Of which one configuration each is reconstructed thoroughly."""
THOROUGH = 4
"""Times as long as a quick reconstruction of as many examples."""


@dataclass(frozen=True)
class Effort:
    """Time and memory of a comparison of methods.

    Attributes:
        seconds: Estimated, without neighbouring configurations.
        trial_seconds: Of one configuration that is reconstructed and evaluated.
        bytes: Of second moments and of kernels that are tried.
    """

    seconds: float
    trial_seconds: float
    bytes: int

    def affordable(self, tries: int) -> int:
        """Return how many neighbouring configurations the time allows, at most `tries`."""
        return max(0, min(tries, int((LONGEST - self.seconds) / max(self.trial_seconds, 1e-9))))

    @property
    def refusal(self) -> str:
        """Why methods are not compared; empty: they are."""
        if not current_budget().holds(self.bytes, HELD):
            return (
                f"output errors were not measured, because that takes {gigabytes(self.bytes)} of "
                "memory (estimated), more than half of what is free: channels are ranked by l2 "
                "over all layers"
            )
        if self.seconds > LONGEST:
            return (
                f"output errors were not measured, because that takes about "
                f"{self.seconds / 60:.0f} minutes (estimated), more than {LONGEST / 60:.0f}: "
                "channels are ranked by l2 over all layers; --channel-scope damage measures them"
            )
        return ""


def estimate_effort(coupling: Coupling, options: ChannelOptions, judge: Judge) -> Effort:
    """Estimate what measuring output errors takes, from one forward pass and the layers' sizes.

    Args:
        coupling: Of the model.
        options: Whether blocks are tried.
        judge: Of the same model and data.
    """
    forward = judge.time_example()
    kernels = _kernel_shapes(judge.program)
    count, judged = judge.examples, len(judge.judged[0])
    trials = sum(min(len(SHARES), len(group.units) - 1) for group in coupling.groups)
    squares = sum(systems * columns**2 for systems, columns, _ in kernels)
    cubes = sum(systems * columns**3 for systems, columns, _ in kernels)
    solving = (2 * FEW_SAMPLES * squares + 2 * cubes) / RATE
    each = forward * (FORWARD * min(FEW_EXAMPLES, count) + judged) + solving
    observing = forward * count + (2 * SAMPLES * squares + 4 * cubes) / RATE
    trying = forward * judged * trials / 2
    blocks = len(blocks_of(coupling)) if options.blocks else 0
    # a covariance and its inverse stand beside the second moments
    held = sum(24 * columns**2 for systems, columns, _ in kernels if systems == 1)
    tried = 12 * len(SHARES) * sum(columns * outputs for _, columns, outputs in kernels)
    # the configuration of least damage, and each without one block
    quick = (1 + blocks) * each
    thorough = METHODS * THOROUGH * each * max(1.0, (count - judged) / FEW_EXAMPLES)
    return Effort(observing + trying + quick + thorough, each, int(held + tried))


def _kernel_shapes(program: Program) -> list[tuple[int, int, int]]:
    """Return (systems, columns, outputs) of each kernel that least squares can solve."""
    found = {}
    for node in program.nodes:
        if not has_parts(node.operation):
            continue
        parts, _ = parts_of(node.operation, len(node.inputs[0].shape))
        for part in parts:
            shape = part.matrix(np.empty(tuple(part.kernel.shape), np.int8)).shape
            found[id(part.kernel)] = (int(shape[0]), int(shape[1]), int(shape[2]))
    return list(found.values())

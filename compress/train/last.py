"""A hook for trainings that nothing is left to select by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt


class LastEpoch:
    """A training hook that lets only the last epoch's weights stand."""

    def start(
        self,
        model: Any,
        step: Any,
        total_steps: int,
        steps_per_epoch: int,
        *,
        jit: bool,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """See `compress.train.Hook.start`."""
        self._total = total_steps

    def may_select(self, step: int) -> bool:
        """Tells whether training is over."""
        return step >= self._total

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        """Returns nothing: there is no state."""
        return {}

"""How much quality each group's channels are worth, measured once and used for any budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.model.walk import weights_hash

if TYPE_CHECKING:
    import keras

    from compress.data import Dataset
    from compress.prune.channels.criteria import Criterion


Numbers = npt.NDArray[np.float64]
AMOUNTS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class MapOrigin:
    """What a map was measured on and with: everything that its numbers depend on.

    Attributes:
        weights: Hash of the model's weights.
        data: Fingerprint of the data.
        criterion, aggregate: What chose the units within a group.
        amounts: Removed shares, rising.
        examples: Validation examples asked for, at most.
        seed: Of the choice of examples and of what the criterion draws.
        repaired: Layers that read a thinned group were solved for.
    """

    weights: str
    data: str
    criterion: str
    aggregate: str
    amounts: tuple[float, ...]
    examples: int
    seed: int
    repaired: bool = False

    @classmethod
    def of(
        cls,
        model: keras.Model,
        data: Dataset,
        *,
        amounts: Sequence[float] = AMOUNTS,
        criterion: str | Criterion = "l2",
        aggregate: str = "mean",
        examples: int = 2000,
        seed: int = 0,
        repair: bool = False,
    ) -> MapOrigin:
        """Says what `sensitivity_map` would measure when called with these arguments."""
        from compress.prune.channels.criteria import named

        name, _ = named(criterion)
        return cls(
            weights_hash(model), data.fingerprint(), name, aggregate, tuple(amounts), examples,
            seed, repair,
        )  # fmt: skip

    def differences(self, other: MapOrigin) -> list[str]:
        """Names what differs, with both values: "criterion l1 instead of l2"."""
        return [
            f"{field.name} {getattr(self, field.name)} instead of {getattr(other, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


@dataclass(frozen=True)
class GroupSensitivity:
    """Quality when a share of one group's units is removed and nothing else.

    Attributes:
        name: Of the group.
        units: Its removable units.
        amounts: Removed shares, rising.
        accuracy: Validation accuracy at each.
    """

    name: str
    units: int
    amounts: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class SensitivityMap:
    """The sensitivities of all groups of one model.

    Attributes:
        base: Validation accuracy of the whole model.
        examples: Validation examples that it was measured on.
        criterion: What chose the units within a group.
        groups: In the order of the coupling.
        origin: What it was measured on; None in files of the first release.
    """

    base: float
    examples: int
    criterion: str
    groups: tuple[GroupSensitivity, ...]
    origin: MapOrigin | None = None

    def check(self, model: keras.Model, criterion: str, data: Dataset | None) -> None:
        """Checks that it was measured on a model, with a criterion, on data where known.

        Raises:
            InputError: It was not, or it does not say on what.
        """
        if self.origin is None:
            what = "one that records nothing about weights, as files of the first release do"
        else:
            fingerprint = self.origin.data if data is None else data.fingerprint()
            wanted = replace(
                self.origin, weights=weights_hash(model), data=fingerprint, criterion=criterion
            )
            what = ", ".join(self.origin.differences(wanted))
        if what:
            raise InputError(
                f"A sensitivity map must belong to the model, the criterion and the data. "
                f"Received: {what}. Compute it again with sensitivity_map()."
            )

    def losses(self, index: int, name: str, units: int) -> Numbers:
        """Returns the loss of accuracy that each further removed unit adds, (units,).

        Between measured shares the loss is interpolated; it never falls with the share, and
        a unit never adds less than the one before, so that one threshold orders all groups.

        Raises:
            InputError: The map belongs to another model.
        """
        known = self.groups[index] if index < len(self.groups) else None
        if known is None or (known.name, known.units) != (name, units):
            raise InputError(
                f"A sensitivity map must belong to the model. Received: no entry for group "
                f"'{name}' with {units} units. Compute it again with sensitivity_map()."
            )
        shares = np.array([0.0, *known.amounts, 1.0])
        drops = self.base - np.array([self.base, *known.accuracy, 0.0])
        drops = np.maximum.accumulate(np.maximum(drops, 0.0))
        at = np.interp(np.arange(units + 1) / units, shares, drops)
        added = np.maximum.accumulate(np.diff(at))
        # equal losses are told apart by the criterion's order
        return np.asarray(added + 1e-9 * np.arange(1, units + 1) / units)

    def save(self, path: str | Path) -> None:
        """Writes the map as JSON, atomically."""
        write_json(Path(path), asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> SensitivityMap:
        """Reads what `save` wrote.

        Raises:
            InputError: No such file, or it holds something else.
        """
        try:
            record = read_json(Path(path))
            groups = tuple(
                GroupSensitivity(
                    row["name"], row["units"], tuple(row["amounts"]), tuple(row["accuracy"])
                )
                for row in record["groups"]
            )
            made = record.get("origin")
            origin = MapOrigin(**{**made, "amounts": tuple(made["amounts"])}) if made else None
            return cls(record["base"], record["examples"], record["criterion"], groups, origin)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"A sensitivity map must be a file written by save(). Received: '{path}' ({error})."
            ) from None

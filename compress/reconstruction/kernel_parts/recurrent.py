"""Kernels of LSTM, GRU and SimpleRNN layers.

At every step, a gate before its activation is linear: x_t W + h_(t-1) U + b. The input kernel W and
the recurrent kernel U are reconstructed jointly. A row is [x_t, h_(t-1)], with the input of the
pruned model and the kept units of the *original* layer's state (teacher forcing: errors are not
carried to the next step). The target is the kept units of the original layer's gates before their
activation. The candidate of a GRU reads the state through the reset gate r_t, which is also the
original layer's:

    reset_after=False:  x_t W + (r_t * h_(t-1)) U + b            rows [x_t, r_t * h_(t-1)]
    reset_after=True:   x_t W + b + r_t * (h_(t-1) U + c)        first U and c, with the original
        h_(t-1) U + c as targets; then W and b, with the remaining difference as targets
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from compress.reconstruction.kernel_parts._base import (
    Array,
    KeptIndices,
    KernelPart,
    Positions,
    RowsAndTargets,
    register_parts,
)


class _RecurrentPart(KernelPart):
    """Base class of the kernels of recurrent layers.

    Args:
        layer: A built `LSTM`, `GRU` or `SimpleRNN` layer.
        kernel: Kernel of its cell.
        systems: Number of gate groups with different rows.
    """

    uses_original_states = True

    def __init__(self, layer: Any, kernel: Any, systems: int = 1) -> None:
        super().__init__(layer, kernel, layer.cell.bias, systems=systems)
        self.cell = layer.cell
        self.units = int(self.cell.units)

    def find_kept_units(self, kept: KeptIndices) -> npt.NDArray[np.int64]:
        """Return the kept units; call it on the part of the original layer."""
        units = kept(self.cell.recurrent_kernel, 0)
        return np.arange(self.units) if units is None else units

    def compute_states(self, sequences: Any) -> Array:
        """Return the state before every step, (examples, steps, units).

        Args:
            sequences: A `StoredTensor` of sequences with their mask; padding does not change the
                state.
        """
        import keras

        config = self.layer.get_config()
        config |= {"return_sequences": True, "return_state": False, "zero_output_for_mask": False}
        copy = type(self.layer).from_config(config)
        copy.build(sequences.blank.shape)
        copy.set_weights([weight.numpy() for weight in self.cell.weights])
        x = keras.ops.convert_to_tensor(sequences.array)
        states = np.asarray(copy(x, mask=sequences.mask, training=False))
        # in the order of computation; the initial state is zero
        states = np.concatenate([np.zeros_like(states[:, :1]), states[:, :-1]], 1)
        return states[:, ::-1] if self.layer.go_backwards else states


class GatesPart(_RecurrentPart):
    """All gates: input kernel stacked on recurrent kernel, (in + units, gates x units).

    Gates with the same rows are one system. A GRU has three systems, because the rows of its
    candidate differ.
    """

    def __init__(self, layer: Any) -> None:
        gates = layer.cell.kernel.shape[1] // layer.cell.units
        super().__init__(layer, layer.cell.kernel, 3 if gates == 3 else 1)
        self.variables = self.cell.kernel, self.cell.recurrent_kernel
        self.is_reset_after = gates == 3 and bool(self.cell.reset_after)

    def assign(self, matrix: Array) -> None:
        """Assign the input kernel and the recurrent kernel."""
        kernels = np.split(self.from_matrix(matrix), [self.kernel.shape[0]])
        if self.is_reset_after:
            # rows are zero there: the candidate's recurrent kernel belongs to `CandidatePart`
            kernels[1][:, 2 * self.units :] = self.cell.recurrent_kernel.numpy()[
                :, 2 * self.units :
            ]
        for variable, value in zip(self.variables, kernels, strict=True):
            variable.assign(value)

    def _read_state_bias(self) -> npt.NDArray[np.float64]:
        """Return a GRU's recurrent bias, with zeros for the candidate."""
        bias = np.array(self.bias.numpy()[1], np.float64)
        bias[2 * self.units :] = 0
        return bias

    def read_bias(self) -> npt.NDArray[np.float64]:
        """Return the bias of each gate, without the recurrent bias of the candidate."""
        if self.bias is None or not self.is_reset_after:
            return super().read_bias()
        return np.asarray(self.bias.numpy()[0], np.float64) + self._read_state_bias()

    def set_bias(self, value: npt.NDArray[np.float64]) -> None:
        """Assign the bias of each gate; the recurrent bias of a GRU does not change."""
        if not self.is_reset_after:
            super().set_bias(value)
            return
        biases = self.bias.numpy()
        biases[0] = value - self._read_state_bias()
        self.bias.assign(biases)

    def extract_rows(self, x: Array, y: Array, positions: Positions) -> Array:
        """Return inputs and states at the positions.

        Args:
            x: Sequences, (examples, steps, in).
            y: States before every step, (examples, steps, units); for a GRU followed by the reset
                gate, (examples, steps, 2 x units).
            positions: Examples and steps.
        """
        x, y = x[positions], y[positions]
        state = y[:, : self.units]
        first = np.concatenate([x, state], 1)
        if self.systems == 1:
            return first[None]
        reset_state = np.zeros_like(state) if self.is_reset_after else y[:, self.units :] * state
        return np.stack([first, first, np.concatenate([x, reset_state], 1)])

    def compute_row_states(self, sequences: Any) -> Array:
        """Return the `y` of `extract_rows`; call it on the part of the original layer."""
        states = self.compute_states(sequences)
        if self.systems == 1:
            return states
        gate = slice(self.units, 2 * self.units)
        kernels = [variable.numpy()[:, gate] for variable in self.variables]
        gate_inputs = sequences.array @ kernels[0] + states @ kernels[1]
        gate_inputs += self.read_bias()[gate].astype(gate_inputs.dtype)
        return np.concatenate([states, np.asarray(self.cell.recurrent_activation(gate_inputs))], 2)

    def build_pairs(
        self, original: Any, x: Any, original_x: Any, positions: Positions, kept: KeptIndices
    ) -> RowsAndTargets:
        """Return inputs with the original states as rows, and the original gates as targets."""
        y = original.compute_row_states(original_x)
        targets = original.extract_rows(original_x.array, y, positions) @ original.to_matrix(
            np.concatenate([variable.numpy() for variable in original.variables])
        )
        targets = targets.transpose(1, 0, 2).reshape(len(positions[0]), -1)
        targets = targets + original.read_bias().astype(np.float32)
        targets = targets[:, original.find_kept_channels(kept)]
        units = original.find_kept_units(kept)
        state_columns = (
            np.concatenate([units, units + original.units]) if self.systems > 1 else units
        )
        kept_states = y[:, :, state_columns]
        if self.is_reset_after:
            # add the difference of the candidate's state term, times the reset gate
            candidate, original_candidate = CandidatePart(self.layer), CandidatePart(original.layer)
            rows, state = candidate.build_state_pairs(
                original_candidate, y[:, :, : original.units], units, positions
            )
            missing = state - candidate.read_bias() - (rows @ candidate.read_weights())[0]
            targets[:, 2 * self.units :] += missing * kept_states[positions][:, self.units :]
        return self.extract_rows(x.array, kept_states, positions), targets


class CandidatePart(_RecurrentPart):
    """The part h_(t-1) U + c of a GRU's candidate, which is multiplied by the reset gate.

    It is the last third of the cell's recurrent kernel.
    """

    name = "candidate"

    def __init__(self, layer: Any) -> None:
        super().__init__(layer, layer.cell.recurrent_kernel)
        self.channel_count = self.units

    def find_kept_channels(self, kept: KeptIndices) -> npt.NDArray[np.int64]:
        """Return the kept units."""
        return self.find_kept_units(kept)

    def to_matrix(self, kernel: Array) -> Array:
        """Return the last third of the recurrent kernel."""
        return kernel[None, :, 2 * self.units :]

    def from_matrix(self, matrix: Array) -> Array:
        """Return the recurrent kernel with its last third replaced."""
        return np.concatenate([self.kernel.numpy()[:, : 2 * self.units], matrix[0]], 1)

    def read_bias(self) -> npt.NDArray[np.float64]:
        """Return the recurrent bias of the candidate."""
        if self.bias is None:
            return np.zeros(self.units)
        return np.asarray(self.bias.numpy()[1, 2 * self.units :], np.float64)

    def set_bias(self, value: npt.NDArray[np.float64]) -> None:
        """Assign the recurrent bias of the candidate."""
        biases = self.bias.numpy()
        biases[1, 2 * self.units :] = value
        self.bias.assign(biases)

    def extract_rows(self, x: Array, y: Array, positions: Positions) -> Array:
        """Return the states at the positions."""
        return y[positions][None]

    def build_pairs(
        self, original: Any, x: Any, original_x: Any, positions: Positions, kept: KeptIndices
    ) -> RowsAndTargets:
        """Return the original states as rows and their products with the kernel as targets."""
        return self.build_state_pairs(
            original, original.compute_states(original_x), original.find_kept_units(kept), positions
        )

    def build_state_pairs(
        self, original: Any, states: Array, units: npt.NDArray[np.int64], positions: Positions
    ) -> RowsAndTargets:
        """Return rows and targets for the original layer's states.

        Args:
            original: Part of the original layer.
            states: Its states before every step, (examples, steps, units).
            units: Kept units.
            positions: Examples and steps.
        """
        targets = (
            states[positions] @ original.to_matrix(original.kernel.numpy())[0]
            + original.read_bias()
        )
        return states[:, :, units][positions][None], np.asarray(targets[:, units])


@register_parts("LSTM", "SimpleRNN")
def _build_lstm_or_simple(layer: Any, _: int) -> list[KernelPart]:
    """Return one part: the input and the recurrent kernel of all gates."""
    return [GatesPart(layer)]


@register_parts("GRU")
def _build_gru(layer: Any, _: int) -> list[KernelPart]:
    gates = GatesPart(layer)
    return [CandidatePart(layer), gates] if gates.is_reset_after else [gates]

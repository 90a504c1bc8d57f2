"""LSTM, GRU and SimpleRNN: what their gates are made of, step by step, is linear.

A gate before its activation is x_t W + h_(t-1) U + b. Input and recurrent kernel, W and U, are
solved for together: a row is [x_t, h_(t-1)] with the input of the pruned model and the *dense*
layer's state at kept units ("teacher forced": errors of a step are not carried to the next), and
the target is what the dense layer's gates are made of at kept units. A GRU's candidate sees its
state through the reset gate r_t, also the dense layer's:

    reset_after=False:  x_t W + (r_t * h_(t-1)) U + b            rows [x_t, r_t * h_(t-1)]
    reset_after=True:   x_t W + b + r_t * (h_(t-1) U + c)        first U and c, towards the dense
        layer's own h_(t-1) U + c; then W and b, towards all that is still missing
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from compress.reconstruction.kinds._base import Array, Kept, Pair, Part, Places, parts_for


class _Recurrent(Part):
    """What parts of recurrent layers share.

    Args:
        layer: `LSTM`, `GRU` or `SimpleRNN`, built.
        kernel: Of its cell.
        systems: Gates with rows of their own.
    """

    guided = True

    def __init__(self, layer: Any, kernel: Any, systems: int = 1) -> None:
        super().__init__(layer, kernel, layer.cell.bias, systems=systems)
        self.cell = layer.cell
        self.units = int(self.cell.units)

    def kept_units(self, kept: Kept) -> npt.NDArray[np.int64]:
        """Return the kept units of this, the dense layer's part."""
        found = kept(self.cell.recurrent_kernel, 0)
        return np.arange(self.units) if found is None else found

    def before(self, given: Any) -> Array:
        """Return the state in front of every step, (examples, steps, units).

        Args:
            given: Sequences and their mask; padding leaves the state as it is.
        """
        import keras

        config = self.layer.get_config()
        config |= {"return_sequences": True, "return_state": False, "zero_output_for_mask": False}
        copy = type(self.layer).from_config(config)
        copy.build(given.blank.shape)
        copy.set_weights([weight.numpy() for weight in self.cell.weights])
        x = keras.ops.convert_to_tensor(given.array)
        h = np.asarray(copy(x, mask=given.mask, training=False))
        # steps in the order in which they are made; the state begins at zero
        h = np.concatenate([np.zeros_like(h[:, :1]), h[:, :-1]], 1)
        return h[:, ::-1] if self.layer.go_backwards else h


class GatesPart(_Recurrent):
    """All gates: input kernel over recurrent kernel, (in + units, gates x units).

    Gates whose rows are the same are one system, those of a GRU three: its candidate has rows
    of its own.
    """

    def __init__(self, layer: Any) -> None:
        gates = layer.cell.kernel.shape[1] // layer.cell.units
        super().__init__(layer, layer.cell.kernel, 3 if gates == 3 else 1)
        self.variables = self.cell.kernel, self.cell.recurrent_kernel
        self.after = gates == 3 and bool(self.cell.reset_after)

    def assign(self, matrix: Array) -> None:
        """Assign both."""
        both = np.split(self.array(matrix), [self.kernel.shape[0]])
        if self.after:  # where rows are zero: the candidate's recurrent kernel is no part of this
            both[1][:, 2 * self.units :] = self.cell.recurrent_kernel.numpy()[:, 2 * self.units :]
        for variable, value in zip(self.variables, both, strict=True):
            variable.assign(value)

    def _beside(self) -> npt.NDArray[np.float64]:
        """Return a GRU's second bias, which is added to the state; zero for the candidate."""
        bias = np.array(self.bias.numpy()[1], np.float64)
        bias[2 * self.units :] = 0
        return bias

    def bias_vector(self) -> npt.NDArray[np.float64]:
        """What is added to each gate, outside the reset gate's reach."""
        if self.bias is None or not self.after:
            return super().bias_vector()
        return np.asarray(self.bias.numpy()[0], np.float64) + self._beside()

    def set_bias(self, value: npt.NDArray[np.float64]) -> None:
        """Assign it; of a GRU's two biases the recurrent one stays."""
        if not self.after:
            super().set_bias(value)
            return
        biases = self.bias.numpy()
        biases[0] = value - self._beside()
        self.bias.assign(biases)

    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """Inputs and states at the places.

        Args:
            x: Sequences, (examples, steps, in).
            y: States in front of every step, (examples, steps, units); of a GRU the reset gate
                behind them, (examples, steps, 2 x units).
            places: Examples and steps.
        """
        x, y = x[places], y[places]
        state = y[:, : self.units]
        first = np.concatenate([x, state], 1)
        if self.systems == 1:
            return first[None]
        seen = np.zeros_like(state) if self.after else y[:, self.units :] * state
        return np.stack([first, first, np.concatenate([x, seen], 1)])

    def guide(self, given: Any) -> Array:
        """Return the `y` that `rows` takes, of this, the dense layer's part."""
        h = self.before(given)
        if self.systems == 1:
            return h
        gate = slice(self.units, 2 * self.units)
        kernels = [variable.numpy()[:, gate] for variable in self.variables]
        made = given.array @ kernels[0] + h @ kernels[1]
        made += self.bias_vector()[gate].astype(made.dtype)
        return np.concatenate([h, np.asarray(self.cell.recurrent_activation(made))], 2)

    def pairs(self, twin: Any, x: Any, given: Any, places: Places, kept: Kept) -> Pair:
        """Inputs beside the dense layer's states, and what its gates are made of."""
        y = twin.guide(given)
        wanted = twin.rows(given.array, y, places) @ twin.matrix(
            np.concatenate([variable.numpy() for variable in twin.variables])
        )
        wanted = wanted.transpose(1, 0, 2).reshape(len(places[0]), -1)
        wanted = wanted + twin.bias_vector().astype(np.float32)
        wanted = wanted[:, twin.channels(kept)]
        units = twin.kept_units(kept)
        own = np.concatenate([units, units + twin.units]) if self.systems > 1 else units
        seen = y[:, :, own]
        if self.after:  # what the candidate still lacks of its state, behind the reset gate
            mine, theirs = CandidatePart(self.layer), CandidatePart(twin.layer)
            rows, state = mine.toward(theirs, y[:, :, : twin.units], units, places)
            left = state - mine.bias_vector() - (rows @ mine.weights())[0]
            wanted[:, 2 * self.units :] += left * seen[places][:, self.units :]
        return self.rows(x.array, seen, places), wanted


class CandidatePart(_Recurrent):
    """What a GRU's reset gate is multiplied by: h_(t-1) U + c.

    Of the cell's recurrent kernel only the last third is solved for.
    """

    name = "candidate"

    def __init__(self, layer: Any) -> None:
        super().__init__(layer, layer.cell.recurrent_kernel)
        self.width = self.units

    def channels(self, kept: Kept) -> npt.NDArray[np.int64]:
        """Kept units."""
        return self.kept_units(kept)

    def matrix(self, kernel: Array) -> Array:
        """The last third."""
        return kernel[None, :, 2 * self.units :]

    def array(self, matrix: Array) -> Array:
        """Put it behind the other two, as they are."""
        return np.concatenate([self.kernel.numpy()[:, : 2 * self.units], matrix[0]], 1)

    def bias_vector(self) -> npt.NDArray[np.float64]:
        """The recurrent bias of the candidate."""
        if self.bias is None:
            return np.zeros(self.units)
        return np.asarray(self.bias.numpy()[1, 2 * self.units :], np.float64)

    def set_bias(self, value: npt.NDArray[np.float64]) -> None:
        """Assign it."""
        biases = self.bias.numpy()
        biases[1, 2 * self.units :] = value
        self.bias.assign(biases)

    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """States at the places."""
        return y[places][None]

    def pairs(self, twin: Any, x: Any, given: Any, places: Places, kept: Kept) -> Pair:
        """The dense layer's states, and what it makes of them."""
        return self.toward(twin, twin.before(given), twin.kept_units(kept), places)

    def toward(self, twin: Any, h: Array, units: npt.NDArray[np.int64], places: Places) -> Pair:
        """Return the same for states that are known, (examples, steps, units)."""
        wanted = h[places] @ twin.matrix(twin.kernel.numpy())[0] + twin.bias_vector()
        return h[:, :, units][places][None], np.asarray(wanted[:, units])


@parts_for("LSTM", "SimpleRNN")
def _gated(layer: Any, _: int) -> list[Part]:
    return [GatesPart(layer)]


@parts_for("GRU")
def _gru(layer: Any, _: int) -> list[Part]:
    gates = GatesPart(layer)
    return [CandidatePart(layer), gates] if gates.after else [gates]

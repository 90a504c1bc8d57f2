"""Surgery: the smaller model of edited configs and sliced weights, with the same names."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from compress.core.errors import InputError, RunFailed, reason_of
from compress.core.lazy_modules import keras
from compress.measure.counting import given_shapes
from compress.model.copies import Copier
from compress.model.internals import (
    freeze_as,
    is_graph,
    maker_of,
    port_structures,
    variable_paths,
    weights_changed,
)
from compress.model.program import Node, Program, replaced
from compress.model.rebuild import config_of, from_config
from compress.prune.channels.coupling.blocks import Block, blocks_of, met
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.coupling.slots import Ids, InnerModel
from compress.prune.channels.rules import known

KeptIndices = dict[str, tuple[Ids | None, ...]]


def sliced_model(coupling: Coupling, mask: Mask, dropped: Collection[Block] = ()) -> keras.Model:
    """Build a model of the kept units alone, without the dropped blocks.

    The sum of a dropped block passes on what else it sums: of two operands the other one, of
    more a sum of the rest. The block's layers are gone, and with them what served nothing but
    dropped blocks. A sum that is an output of its model becomes an Identity of its name.

    Args:
        coupling: Of the original model, which stays as it is.
        mask: True for kept units.
        dropped: From `blocks_of` this coupling; any of them can leave together.

    Returns:
        An ordinary model: functional (or Sequential as before), same layer names, weights
        copied; not compiled, optimizer state is not carried.

    Raises:
        InputError: A layer that changes cannot be rebuilt from its config, or one that does
            not can neither be rebuilt nor copied.
        ValueError: A frozen unit is not kept, or a block is of another coupling.
    """
    return Surgeon(coupling, mask, dropped).build(coupling.program)


def call_once(small: keras.Model, coupling: Coupling) -> None:
    """Call a smaller model on zeros: one that cannot be called is never returned.

    Open sizes are those that the coupling counts at, else 64; what fails in the original too says
    nothing of the smaller model.

    Raises:
        RunFailed: The original can be called, and the smaller model cannot.
    """
    program = coupling.program
    sizes = given_shapes(program, coupling.input_shape)
    zeros = [
        keras.ops.zeros([64 if size is None else size for size in shape], tensor.dtype)
        for shape, tensor in zip(sizes, program.inputs, strict=True)
    ]
    try:
        small(keras.tree.pack_sequence_as(port_structures(small)[0], zeros), training=False)
    except Exception as error:  # of any layer
        try:
            program.model(keras.tree.pack_sequence_as(program.input_structure, zeros))
        except Exception:
            return
        raise RunFailed(
            f"The pruned model of '{program.model.name}' must be callable as the original is. "
            f"Received: {reason_of(error)} Exclude the layer's channels (--channel-exclude, in "
            "Python exclude=), and report it."
        ) from error


def kept_indices(coupling: Coupling, mask: Mask, dropped: Collection[Block] = ()) -> KeptIndices:
    """Return the kept indices of each axis of each weight; None: the axis is whole.

    Keys are the variables' paths in the original model; of several variables with one
    path, later ones get ":1", ":2" behind it, in the order of `model.weights`. A weight that
    leaves with a dropped block has an empty array for every axis: none of its indices is kept
    (a scalar has no axis that could say so).
    """
    indices = Surgeon(coupling, mask, dropped).list_kept_indices()
    return {
        path: indices[id(variable)] for path, variable in variable_paths(coupling.program.model)
    }


class Surgeon:
    """Builder of smaller models, and of single calls of them.

    Args:
        coupling: Of the original model.
        mask: True for kept units.
        dropped: Blocks that are removed.

    Raises:
        ValueError: A frozen unit is not kept, or a block is of another coupling.

    Attributes:
        kept: The kept units, asked by axes.
        weights: id(old weight) -> the new one, of what was made.
    """

    def __init__(self, coupling: Coupling, mask: Mask, dropped: Collection[Block] = ()) -> None:
        self.coupling, self.mask, self.blocks = coupling, mask, dropped
        self.graph, self.depth = coupling.graph, coupling.depth
        self.kept = coupling.kept(mask)
        removable = set(map(id, blocks_of(coupling)))
        if any(id(block) not in removable for block in dropped):
            raise ValueError("dropped blocks must be of this coupling.")
        self.dropped = frozenset(block.index for block in dropped)
        self.weights: dict[int, Any] = {}
        self._made: dict[int, Any] = {}
        self._copier = Copier()
        self._copied: set[int] = set()

    def list_kept_indices(self) -> dict[int, tuple[Ids | None, ...]]:
        """Return the kept indices of the axes of each weight, by id; see `kept_indices`."""
        found: dict[int, tuple[Ids | None, ...]] = {}
        for weight in self.coupling.program.model.weights:
            if met(self.depth.needs_of(weight), self.dropped):
                axes = {
                    axis: ids
                    for axis, ids in self.coupling.weight_axes[id(weight)].items()
                    if not self.kept.flags(ids).all()
                }
                cut = (axes.get(axis) for axis in range(len(weight.shape)))
                found[id(weight)] = tuple(None if ids is None else self.kept(ids) for ids in cut)
            else:
                found[id(weight)] = tuple(np.zeros(0, np.int64) for _ in weight.shape)
        return found

    def build(self, program: Program) -> Any:
        """Rebuild a program as a model."""
        if isinstance(program.model, keras.Sequential):
            return self._sequential(program)
        made = [self._input(tensor) for tensor in program.inputs]
        ends = set(map(id, program.outputs))

        def call(node: Node, given: list[Any]) -> list[Any]:
            if not self.depth.stays(node, self.dropped):
                return [None] * len(node.outputs)  # what takes them leaves too
            staying = [given[at] for at in self.depth.staying(node, self.dropped)]
            if len(staying) == len(given):
                return self.results(node, given)
            if len(staying) > 1:
                return [self._operation(node)(staying)]
            if id(node.outputs[0]) not in ends:
                return staying
            # outputs keep their names
            return [keras.layers.Identity(dtype=staying[0].dtype, name=node.name)(staying[0])]

        # a nested model is made whole: `_operation` builds its program
        results = program.interpret(call, made, nested=call)
        inputs = replaced(program.input_structure, program.inputs, made)
        outputs = replaced(program.output_structure, program.outputs, results)
        model = keras.Model(inputs, outputs, name=program.model.name)
        freeze_as(model, program.model)
        return model

    def _sequential(self, program: Program) -> Any:
        model = keras.Sequential(name=program.model.name)
        model.add(self._input(program.inputs[0]))
        for node in program.nodes:
            if not isinstance(node.operation, keras.layers.Layer):
                continue  # computes a mask; Keras makes it anew
            model.add(self._operation(node))
            self._copy(node.operation)
        freeze_as(model, program.model)
        return model

    def _input(self, tensor: Any) -> Any:
        slots = self.graph.tensors[id(tensor)]
        shape = tuple(
            size if ids is None else self.kept.count(ids)
            for size, ids in zip(tensor.shape, slots.axes, strict=True)
        )
        layer = maker_of(tensor)
        return keras.Input(
            batch_shape=shape,
            dtype=tensor.dtype,
            name=layer.name if layer is not None else None,
            optional=getattr(layer, "optional", False),
        )

    def results(self, node: Node, given: list[Any]) -> list[Any]:
        """Make the smaller layer of a call, once, and calls it.

        Args:
            node: The call.
            given: Symbolic tensors of its inputs.

        Raises:
            InputError: It cannot be rebuilt from its config.
        """
        args, kwargs = replaced(self.arguments(node), node.inputs, given)
        operation, old = self._operation(node), id(node.operation)
        try:
            made = operation(*args, **kwargs)
        except Exception as error:  # user layers may raise anything here
            if node.body is not None or old in self.graph.copied or id(operation) in self._copied:
                raise
            # its config made it in vain: it is copied as it is
            self._made[old] = self._otherwise(node, error)
            made = self._made[old](*args, **kwargs)
        self._copy(node.operation)
        results: list[Any] = keras.tree.flatten(made)
        return results

    def _operation(self, node: Node) -> Any:
        """Return the new layer for a node; a shared layer is made once."""
        operation = node.operation
        if id(operation) not in self._made:
            if node.body is not None:
                made = self.build(node.body)
            else:
                # a layer that holds this one may have been copied, with it, before
                made = self._copier.made.get(id(operation)) or self._rebuilt(node)
            self._made[id(operation)] = made
            self._copier.keep(operation, made)
        return self._made[id(operation)]

    def _rebuilt(self, node: Node) -> Any:
        operation = node.operation
        if id(operation) in self.graph.copied:
            return self._as_it_is(node)
        try:
            config = self.config(node)
            if node.name != operation.name and "name" in config:
                config["name"] = node.name
            if known(operation):
                _unbuild(config)
            return from_config(operation, config)
        except Exception as error:  # user layers may raise anything here
            return self._otherwise(node, error)

    def config(self, node: Node) -> dict[str, Any]:
        """Return the config of the new layer of a node."""
        config = config_of(node.operation)
        for path, change in self.graph.config_edits[id(node.operation)]:
            place: Any = config
            for key in path:
                place = place[key]
            if isinstance(change, InnerModel):
                model = Surgeon(self.coupling, self.mask, self.blocks).build(change.program)
                place[change.key] = keras.saving.serialize_keras_object(model)
            else:
                change(place, self.kept)
        return config

    def arguments(self, node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of the new layer of a node, old tensors among them."""
        args, kwargs = node.args, node.kwargs
        for edit in self.graph.call_edits[id(node)]:
            args, kwargs = edit(args, kwargs, self.kept)
        return args, kwargs

    def _otherwise(self, node: Node, error: Exception) -> Any:
        """Copy a layer whose config fails, if nothing of it changes.

        Raises:
            InputError: It would change.
        """
        operation = node.operation
        edits, text = self.graph.config_edits[id(operation)], " ".join(str(error).split())[:300]
        weights = getattr(operation, "weights", ())
        axes = [ids for weight in weights for ids in self.coupling.weight_axes[id(weight)].values()]
        if edits or not all(self.kept.flags(ids).all() for ids in axes):
            raise InputError(
                f"Layer '{node.name}' ({type(operation).__name__}) must be rebuildable from its "
                f"config. Received: {text}. Implement get_config() and from_config()."
            ) from None
        self.graph.copied[id(operation)] = node.name, type(operation).__name__, text
        self._copier.made.pop(id(operation), None)
        return self._as_it_is(node)

    def _as_it_is(self, node: Node) -> Any:
        made = self._copier.layer(node.operation)
        made.name = node.name
        return made

    def _copy(self, operation: Any) -> None:
        """Copy the kept slices of a layer's weights, once."""
        new = self._made[id(operation)]
        if id(new) in self._copied or not getattr(operation, "weights", None):
            return
        self._copied.add(id(new))
        if is_graph(operation):
            return  # a nested model: its layers were copied one by one
        scales = {id(variable): factor for variable, factor in self.graph.scales[id(operation)]}
        for old, target in zip(operation.weights, new.weights, strict=True):
            value = old.numpy()
            for axis, ids in self.coupling.weight_axes[id(old)].items():
                flags = self.kept.flags(ids)
                if not flags.all():
                    value = np.compress(flags, value, axis=axis)
            if id(old) in scales:
                value = value * np.asarray(scales[id(old)](self.kept), value.dtype)
            target.assign(value)
            self.weights[id(old)] = target
        if isinstance(new, keras.layers.Layer):
            weights_changed(new)


def _unbuild(config: Any) -> None:
    """Remove the shapes that inner layers were built with from a config."""
    if isinstance(config, dict):
        config.pop("build_config", None)
        for value in config.values():
            _unbuild(value)
    elif isinstance(config, list | tuple):
        for value in config:
            _unbuild(value)

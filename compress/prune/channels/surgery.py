"""Surgery: the pruned model, built from edited configs and sliced weights, with the same names."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from compress.core.errors import InputError, RunFailed, extract_reason
from compress.core.lazy_modules import keras
from compress.measure.counting import resolve_input_shapes
from compress.model.copies import Copier
from compress.model.keras_internals import (
    copy_trainable_flag,
    find_producer,
    is_graph,
    is_own_class,
    list_named_weights,
    read_port_structures,
    skip_random_initializers,
    update_derived_state,
)
from compress.model.program import Node, Program, replace_tensors
from compress.model.rebuild import read_layer_config, rebuild_from_config
from compress.prune.channels.coupling.blocks import Block, is_met, list_blocks
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.coupling.slots import Ids, InnerModel
from compress.prune.channels.rules import has_rule

KeptIndices = dict[str, tuple[Ids | None, ...]]


def build_pruned_model(
    coupling: Coupling, mask: Mask, removed_blocks: Collection[Block] = ()
) -> keras.Model:
    """Build a model of the kept units, without the removed blocks.

    The sum that a removed block ends in is replaced by its remaining operand or, if there are more,
    by the sum of the remaining ones. The layers of the block are removed, and so are layers used by
    removed blocks only. A sum that is an output of the model and has one remaining operand becomes
    an Identity layer of the same name.

    Args:
        coupling: Coupling of the original model, which is not modified.
        mask: True for kept units, (units,).
        removed_blocks: Blocks from `list_blocks` of this coupling, in any combination.

    Returns:
        An ordinary model: functional (or Sequential as before), with the same layer names and
        copied weights; not compiled and without optimizer state.

    Raises:
        InputError: A layer that must change cannot be rebuilt from its config, or an unchanged
            layer can be neither rebuilt nor copied.
        ValueError: A frozen unit is not kept, or a block belongs to another coupling.
    """
    return PrunedModelBuilder(coupling, mask, removed_blocks).build(coupling.program)


def check_callable(pruned_model: keras.Model, coupling: Coupling) -> None:
    """Check a pruned model by calling it on zeros, unless all of its layers are Keras's own.

    Those have been called on symbolic tensors while the model was built. Open input sizes are those
    at which the coupling counts MACs, else 64. If the original model fails too, the error is
    ignored.

    Args:
        pruned_model: The model to check.
        coupling: Coupling of the original model.

    Raises:
        RunFailed: The original can be called, but the pruned model cannot.
    """
    program = coupling.program
    is_own = not program.is_traced and not program.opened_layers
    if is_own and all(is_own_class(node.operation) for node in program.walk()):
        return
    sizes = resolve_input_shapes(program, coupling.input_shape)
    zeros = [
        keras.ops.zeros([64 if size is None else size for size in shape], tensor.dtype)
        for shape, tensor in zip(sizes, program.inputs, strict=True)
    ]
    try:
        pruned_model(
            keras.tree.pack_sequence_as(read_port_structures(pruned_model)[0], zeros),
            training=False,
        )
    except Exception as error:  # any layer may fail
        try:
            program.model(keras.tree.pack_sequence_as(program.input_structure, zeros))
        except Exception:
            return
        raise RunFailed(
            f"The pruned model of '{program.model.name}' must be callable as the original is. "
            f"Received: {extract_reason(error)} Exclude the layer's channels (--channel-exclude, "
            "in Python exclude=), and report it."
        ) from error


def compute_kept_indices(
    coupling: Coupling, mask: Mask, removed_blocks: Collection[Block] = ()
) -> KeptIndices:
    """Return the kept indices of each axis of each weight; None: the whole axis is kept.

    Keys are the paths of the variables in the original model. If several variables have the same
    path, later ones get the suffix ":1", ":2", in the order of `model.weights`. A weight that is
    removed with a block has an empty array for every axis. (This cannot be shown for a scalar,
    which has no axis.)

    Args:
        coupling: Coupling of the original model.
        mask: True for kept units, (units,).
        removed_blocks: Blocks that are removed.
    """
    indices = PrunedModelBuilder(coupling, mask, removed_blocks).list_kept_indices()
    return {
        path: indices[id(variable)] for path, variable in list_named_weights(coupling.program.model)
    }


class PrunedModelBuilder:
    """Builder of pruned models, and of single calls of them.

    Args:
        coupling: Coupling of the original model.
        mask: True for kept units, (units,).
        removed_blocks: Blocks that are removed.

    Raises:
        ValueError: A frozen unit is not kept, or a block belongs to another coupling.

    Attributes:
        kept: Kept units, as indices of axes.
        new_weights: id of an original weight -> its new weight, for all built layers.
    """

    def __init__(
        self, coupling: Coupling, mask: Mask, removed_blocks: Collection[Block] = ()
    ) -> None:
        self.coupling, self.mask, self.removed_blocks = coupling, mask, removed_blocks
        self.graph, self.dependencies = coupling.graph, coupling.block_dependencies
        self.kept = coupling.build_kept_slots(mask)
        removable = set(map(id, list_blocks(coupling)))
        if any(id(block) not in removable for block in removed_blocks):
            raise ValueError("dropped blocks must be of this coupling.")
        self.removed_indices = frozenset(block.index for block in removed_blocks)
        self.new_weights: dict[int, Any] = {}
        self._layers: dict[int, Any] = {}
        self._copier = Copier()
        self._copied_layers: set[int] = set()

    def list_kept_indices(self) -> dict[int, tuple[Ids | None, ...]]:
        """Return the kept indices of each weight's axes, by id; see `compute_kept_indices`."""
        indices: dict[int, tuple[Ids | None, ...]] = {}
        for weight in self.coupling.program.model.weights:
            if is_met(self.dependencies.get_weight_needs(weight), self.removed_indices):
                axes = {
                    axis: ids
                    for axis, ids in self.coupling.weight_axes[id(weight)].items()
                    if not self.kept.get_flags(ids).all()
                }
                cut = (axes.get(axis) for axis in range(len(weight.shape)))
                indices[id(weight)] = tuple(None if ids is None else self.kept(ids) for ids in cut)
            else:
                indices[id(weight)] = tuple(np.zeros(0, np.int64) for _ in weight.shape)
        return indices

    @skip_random_initializers()
    def build(self, program: Program) -> Any:
        """Build the pruned model of a program."""
        if isinstance(program.model, keras.Sequential):
            return self._build_sequential(program)
        input_tensors = [self._build_input(tensor) for tensor in program.inputs]
        output_ids = set(map(id, program.outputs))

        def call(node: Node, tensors: list[Any]) -> list[Any]:
            if not self.dependencies.is_kept(node, self.removed_indices):
                return [None] * len(node.outputs)  # their consumers are removed too
            kept_tensors = [
                tensors[index]
                for index in self.dependencies.list_kept_inputs(node, self.removed_indices)
            ]
            if len(kept_tensors) == len(tensors):
                return self.call_layer(node, tensors)
            if len(kept_tensors) > 1:
                return [self._get_layer(node)(kept_tensors)]
            if id(node.outputs[0]) not in output_ids:
                return kept_tensors
            # model outputs keep their names
            return [
                keras.layers.Identity(dtype=kept_tensors[0].dtype, name=node.name)(kept_tensors[0])
            ]

        # a nested model is one call: `_get_layer` builds its program
        results = program.interpret(call, input_tensors, nested=call)
        inputs = replace_tensors(program.input_structure, program.inputs, input_tensors)
        outputs = replace_tensors(program.output_structure, program.outputs, results)
        model = keras.Model(inputs, outputs, name=program.model.name)
        copy_trainable_flag(model, program.model)
        return model

    def _build_sequential(self, program: Program) -> Any:
        """Return the pruned Sequential model with the weights of its kept channels."""
        model = keras.Sequential(name=program.model.name)
        model.add(self._build_input(program.inputs[0]))
        for node in program.nodes:
            if not isinstance(node.operation, keras.layers.Layer):
                continue  # computes a mask; Keras adds it again
            model.add(self._get_layer(node))
            self._copy_weights(node.operation)
        copy_trainable_flag(model, program.model)
        return model

    def _build_input(self, tensor: Any) -> Any:
        slots = self.graph.tensors[id(tensor)]
        shape = tuple(
            size if ids is None else self.kept.count(ids)
            for size, ids in zip(tensor.shape, slots.axes, strict=True)
        )
        layer = find_producer(tensor)
        return keras.Input(
            batch_shape=shape,
            dtype=tensor.dtype,
            name=layer.name if layer is not None else None,
            optional=getattr(layer, "optional", False),
        )

    def call_layer(self, node: Node, inputs: list[Any]) -> list[Any]:
        """Call the pruned layer of a call; the layer is built once.

        Args:
            node: The call.
            inputs: Symbolic tensors of its inputs.

        Returns:
            Symbolic tensors of its outputs.

        Raises:
            InputError: The layer cannot be rebuilt from its config.
        """
        args, kwargs = replace_tensors(self.build_arguments(node), node.inputs, inputs)
        operation, old = self._get_layer(node), id(node.operation)
        try:
            outputs = operation(*args, **kwargs)
        except Exception as error:  # user layers may raise anything here
            if (
                node.body is not None
                or old in self.graph.copied
                or id(operation) in self._copied_layers
            ):
                raise
            # the layer rebuilt from its config fails: copy the original
            self._layers[old] = self._copy_if_unchanged(node, error)
            outputs = self._layers[old](*args, **kwargs)
        self._copy_weights(node.operation)
        results: list[Any] = keras.tree.flatten(outputs)
        return results

    def _get_layer(self, node: Node) -> Any:
        """Return the new layer of a node; a shared layer is built once."""
        operation = node.operation
        if id(operation) not in self._layers:
            if node.body is not None:
                layer = self.build(node.body)
            else:
                # it may already have been copied together with an enclosing layer
                layer = self._copier.copies.get(id(operation)) or self._rebuild_layer(node)
            self._layers[id(operation)] = layer
            self._copier.register(operation, layer)
        return self._layers[id(operation)]

    def _rebuild_layer(self, node: Node) -> Any:
        operation = node.operation
        if id(operation) in self.graph.copied:
            return self._copy_layer(node)
        try:
            config = self.build_config(node)
            if node.name != operation.name and "name" in config:
                config["name"] = node.name
            if has_rule(operation):
                _strip_build_config(config)
            return rebuild_from_config(operation, config)
        except Exception as error:  # user layers may raise anything here
            return self._copy_if_unchanged(node, error)

    def build_config(self, node: Node) -> dict[str, Any]:
        """Return the config of the new layer of a node."""
        config = read_layer_config(node.operation)
        for path, change in self.graph.config_edits[id(node.operation)]:
            section: Any = config
            for key in path:
                section = section[key]
            if isinstance(change, InnerModel):
                model = PrunedModelBuilder(self.coupling, self.mask, self.removed_blocks).build(
                    change.program
                )
                section["layer"] = keras.saving.serialize_keras_object(model)
            else:
                change(section, self.kept)
        return config

    def build_arguments(self, node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of the new layer of a node; tensors are the original ones."""
        args, kwargs = node.args, node.kwargs
        for edit in self.graph.call_edits[id(node)]:
            args, kwargs = edit(args, kwargs, self.kept)
        return args, kwargs

    def _copy_if_unchanged(self, node: Node, error: Exception) -> Any:
        """Copy a layer whose config fails, if it would not change.

        Raises:
            InputError: The layer would change.
        """
        operation = node.operation
        edits, text = self.graph.config_edits[id(operation)], " ".join(str(error).split())[:300]
        weights = getattr(operation, "weights", ())
        axes = [ids for weight in weights for ids in self.coupling.weight_axes[id(weight)].values()]
        if edits or not all(self.kept.get_flags(ids).all() for ids in axes):
            raise InputError(
                f"Layer '{node.name}' ({type(operation).__name__}) must be rebuildable from its "
                f"config. Received: {text}. Implement get_config() and from_config()."
            ) from None
        self.graph.copied[id(operation)] = node.name, type(operation).__name__, text
        self._copier.copies.pop(id(operation), None)
        return self._copy_layer(node)

    def _copy_layer(self, node: Node) -> Any:
        layer = self._copier.copy_layer(node.operation)
        layer.name = node.name
        return layer

    def _copy_weights(self, operation: Any) -> None:
        """Copy the kept slices of a layer's weights, once."""
        new = self._layers[id(operation)]
        if id(new) in self._copied_layers or not getattr(operation, "weights", None):
            return
        self._copied_layers.add(id(new))
        if is_graph(operation):
            return  # a nested model: its layers were copied one by one
        scales = {id(variable): factor for variable, factor in self.graph.scales[id(operation)]}
        for old, target in zip(operation.weights, new.weights, strict=True):
            value = old.numpy()
            for axis, ids in self.coupling.weight_axes[id(old)].items():
                flags = self.kept.get_flags(ids)
                if not flags.all():
                    value = np.compress(flags, value, axis=axis)
            if id(old) in scales:
                value = value * np.asarray(scales[id(old)](self.kept), value.dtype)
            target.assign(value)
            self.new_weights[id(old)] = target
        if isinstance(new, keras.layers.Layer):
            update_derived_state(new)


def _strip_build_config(config: Any) -> None:
    """Remove the shapes that inner layers were built with from a config."""
    if isinstance(config, dict):
        config.pop("build_config", None)
        for value in config.values():
            _strip_build_config(value)
    elif isinstance(config, list | tuple):
        for value in config:
            _strip_build_config(value)

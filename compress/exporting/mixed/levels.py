"""The precisions that a layer may have, as LiteRT Quantizer's recipes say them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from compress.exporting.mixed.units import Unit

Recipe = list[dict[str, Any]]
FLOAT32, INT8 = "float32", "int8"


def _weights(bits: int, computed: str) -> dict[str, Any]:
    """Returns what holds weights in whole numbers by channel, activations in floats.

    Args:
        bits: Of a weight.
        computed: "INTEGER": activations are rounded as they come; "FLOAT": weights are unpacked.
    """
    return {
        "weight_tensor_config": _tensor(bits, True, "CHANNELWISE"),
        "compute_precision": computed,
        "explicit_dequantize": computed == "FLOAT",
    }


def _static(weights: int, activations: int) -> dict[str, Any]:
    """Returns what computes in whole numbers: weights by channel, what passes by tensor.

    Args:
        weights: Bits, symmetric.
        activations: Bits; 16 are symmetric: LiteRT's kernels ask for it.
    """
    return {
        "activation_tensor_config": _tensor(activations, activations == 16, "TENSORWISE"),
        "weight_tensor_config": _tensor(weights, True, "CHANNELWISE"),
        "compute_precision": "INTEGER",
        "explicit_dequantize": False,
    }


def _tensor(bits: int, symmetric: bool, granularity: str, dtype: str = "INT") -> dict[str, Any]:
    return {"num_bits": bits, "symmetric": symmetric, "granularity": granularity, "dtype": dtype}


_MIN_MAX, _CAST = "min_max_uniform_quantize", "float_casting"
_HALF = {
    "weight_tensor_config": _tensor(16, True, "TENSORWISE", "FLOAT"),
    "compute_precision": "FLOAT",
    "explicit_dequantize": True,
}
ENTRIES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    # what has no kernel of four bits has eight: the last entry that an operation can have counts
    "int4": ((_MIN_MAX, _static(8, 8)), (_MIN_MAX, _static(4, 8))),
    "dynamic4": ((_MIN_MAX, _weights(8, "INTEGER")), (_MIN_MAX, _weights(4, "INTEGER"))),
    INT8: ((_MIN_MAX, _static(8, 8)),),
    "dynamic": ((_MIN_MAX, _weights(8, "INTEGER")),),
    "int16": ((_MIN_MAX, _static(8, 16)),),
    "float16": ((_CAST, _HALF),),
    FLOAT32: (),
}
"""Level (of `compress.plan.LEVELS`) -> (algorithm, configuration) of its entries."""


def _entry(regex: str, algorithm: str, configuration: dict[str, Any]) -> dict[str, Any]:
    return {
        "regex": regex,
        "operation": "*",
        "algorithm_key": algorithm,
        "op_config": configuration,
    }


INT4_WEIGHTS: Recipe = [
    # the last that an operation can have counts; expressions differ, for equal ones are one entry
    _entry(".*", _MIN_MAX, _weights(8, "INTEGER")),
    _entry("^.*", _MIN_MAX, _weights(4, "FLOAT")),
    _entry("^.*$", _MIN_MAX, _weights(4, "INTEGER")),
]


WHOLE = ("int4", INT8, "int16")
"""Levels at which what passes is whole numbers."""
IN_LOOPS = ("dynamic4", "dynamic", "float16", FLOAT32)
"""Levels that loops may have."""
BITS = {"int4": 4, "dynamic4": 4, INT8: 8, "dynamic": 8, "int16": 8, "float16": 16, FLOAT32: 32}
"""Of a weight."""


def recipe_of(levels: Mapping[Unit, str]) -> Recipe:
    """Returns the recipe of a file whose units have these levels.

    Other operations are as given, and those that are slow in whole numbers.
    """
    recipe: Recipe = []
    for level, entries in ENTRIES.items():
        scopes = [
            scope
            for unit, own in levels.items()
            if own == level
            for scope in unit.scopes
            if level not in WHOLE or scope not in unit.slow
        ]
        for place, (algorithm, configuration) in enumerate(entries if scopes else ()):
            # entries of one expression replace each other: each is written its own way
            recipe.append(_entry(_any_of(scopes, place), algorithm, configuration))
    return recipe


def _any_of(scopes: Sequence[str], place: int) -> str:
    return f"^(?:{'|'.join(map(re.escape, scopes))}){'$' if place == 0 else '(?=$)'}"

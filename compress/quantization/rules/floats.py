"""What stays in floats, and why."""

from __future__ import annotations

from compress.quantization.call import Call
from compress.quantization.rules._base import KeptInFloats, layer_rule
from compress.quantization.values import Value


@layer_rule("LSTM", "GRU", "SimpleRNN", "Bidirectional", "RNN", "ConvLSTM1D", "ConvLSTM2D")
def recurrent(call: Call) -> list[Value]:
    """Steps that feed each other."""
    why = "its steps feed each other: the converter has no integer kernel for it"
    if type(call.layer).__name__ == "LSTM":
        why += " (where LiteRT has one operation for it, its weights have 8 bits in the file)"
    return call.in_float(why)


@layer_rule("LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization")
def by_example(call: Call) -> list[Value]:
    """Statistics of each example."""
    return call.in_float("it normalizes by each example's own statistics, in many float operations")


@layer_rule("Embedding")
def embedding(call: Call) -> Value | list[Value]:
    """A table of whole numbers, looked up."""
    from compress.quantization.layers import QuantizedTable

    if call.layer.mask_zero:
        raise KeptInFloats("it masks: what is masked is no whole number")
    if getattr(call.layer, "lora_enabled", False) or getattr(call.layer, "quantization_mode", None):
        raise KeptInFloats("LoRA and tables that Keras has quantized are left as they are")
    table = call.building.range(f"{call.path}_table")
    layer = QuantizedTable(call.layer, table, name=call.building.name(call.path))
    return Value(call.path, layer(call.inputs[0].tensor), table)

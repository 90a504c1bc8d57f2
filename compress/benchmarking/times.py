"""`channel_times`: how a model's time follows from its widths and blocks, measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.arguments import check_arguments
from compress.exporting.side_by_side import litert_files
from compress.model.io import as_model
from compress.plan import ChannelOptions
from compress.plan.keywords import PRUNE_CHANNELS
from compress.prune.channels.analysis import coupling_of
from compress.prune.channels.coupling.blocks import blocks_of
from compress.prune.channels.selection.allowed import allowed_for, ladder
from compress.prune.channels.selection.measured_times import measured_times

if TYPE_CHECKING:
    from typing import Unpack

    import keras

    from compress.plan.settings import PruneChannelsSettings
    from compress.prune.channels.selection.times import TimeModel


@check_arguments()
def channel_times(
    model: keras.Model | str | Path,
    options: ChannelOptions | None = None,
    *,
    format: str = "float32",
    threads: int = 1,
    budget: float | None = None,
    seed: int = 0,
    input_shape: Any = None,
    on_progress: Callable[[str, float], None] | None = None,
    **settings: Unpack[PruneChannelsSettings],
) -> TimeModel:
    """Measures what every choice of widths and blocks takes: LiteRT, on this machine, now.

    Each call of the model is timed by itself at some widths; a few whole nets put the sum right.
    What comes out is the `cost` of `prune_channels`: channels leave where they take time.

    Args:
        model: A Keras model, or the path of its file; it stays as it is.
        options: The plan's section: what may leave, `round_to`, `min_kept`, `blocks`.
        format: Of the files: "float32", "float16", "dynamic" or "int8".
        threads: Of the runtime, at least 1.
        budget: Seconds of timing calls, and as many of timing nets, above 0; default: until each
            call is known to 3 %, and two seconds a net.
        seed: Of the order of measuring.
        input_shape: Of one example, where the model's own has open sizes.
        on_progress: Called with (text, share that is done).
        **settings: Other fields of `ChannelOptions`.

    Returns:
        A function of kept units (..., groups) and present blocks (..., blocks) -> milliseconds
        (...), estimated from what was measured: time a file before you call it faster. Its
        `calibration` says how far off sums of calls were, `estimated` what could not be timed.

    Raises:
        InputError: A model or option that `prune_channels` refuses, or an open input size.
        RunFailed: No call could be measured.

    Example:
        >>> times = channel_times(model, budget=0.5)
        >>> times.calibration.nets  # prune_channels(model, cost=times, share=0.5): half of the time
        8

    Reference:
        Shen et al. 2022, "Structural Pruning via Latency-Saliency Knapsack", section 3.2; there
        a table of layers alone, here one put right by whole nets.
    """
    found = PRUNE_CHANNELS.section("channels", options, ChannelOptions, settings)
    coupling = coupling_of(as_model(model), input_shape)
    allowed = allowed_for(coupling, found, ladder(found)[-1])
    blocks = blocks_of(coupling) if found.blocks else ()
    return measured_times(
        coupling, allowed, litert_files, blocks, format=format, threads=threads, budget=budget,
        seed=seed, on_progress=on_progress,
    )[0]  # fmt: skip

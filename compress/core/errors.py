"""The errors a user can cause, and what each one means to the command line.

Every message names the thing, the rule, what was received and the remedy. The
command line prints the message alone (no traceback) and leaves with `exit_code`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST = 2000
"""Characters of a message; what is longer was made so by a value, and is cut in the middle."""
LONGEST_VALUE = 200
"""Characters of one received value in a message."""


class ParetuneError(Exception):
    """Base of all errors that paretune raises on purpose.

    Args:
        message: Becomes one line of printable characters: values that it echoes may hold
            line breaks, or codes that move a terminal's cursor.
    """

    exit_code = 2

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message, LONGEST))


class InputError(ParetuneError, ValueError):
    """An argument, a file or a data set breaks a rule that the message states."""


class FeasibleError(InputError):
    """A target cannot be met by this model, though it may fit others; nothing else is wrong."""


class MissingDependency(ParetuneError, ImportError):
    """An optional package is not installed; the message ends in the install line."""


class TrainingDiverged(ParetuneError):
    """Training produced NaN, infinity or an exploding loss; the message is the reason."""

    exit_code = 1


class RunFailed(ParetuneError):
    """A run could not produce its result although its input was valid."""

    exit_code = 1


SYNONYMS = {
    **dict.fromkeys(("fp16", "f16", "half"), ("float16",)),
    **dict.fromkeys(("fp32", "f32", "float"), ("float32",)),
    **dict.fromkeys(("i8", "uint8", "int8_full", "full_int8", "quantized"), ("int8",)),
    **dict.fromkeys(("dynamic_range", "drq", "weight_only"), ("dynamic",)),
    **dict.fromkeys(("flops", "mac", "madds", "multiply_adds", "mult_adds"), ("macs",)),
    **dict.fromkeys(("parameters", "param", "weights"), ("params",)),
    **dict.fromkeys(("size", "bytes", "file_size"), ("size_bytes",)),
    **dict.fromkeys(("latency", "time", "ms"), ("latency_ms",)),
    **dict.fromkeys(("acc", "top1", "top_1"), ("accuracy",)),
    "f1": ("f1_macro",),
    "precision": ("precision_macro",),
    "recall": ("recall_macro",),
    **dict.fromkeys(("auc", "auroc"), ("roc_auc",)),
    **dict.fromkeys(("tflite", "lite", "xnnpack"), ("litert",)),
    **dict.fromkeys(("onnxruntime", "ort"), ("onnx",)),
    **dict.fromkeys(("tf", "keras"), ("tensorflow",)),
    **dict.fromkeys(("cuda", "nvidia", "gpu:0"), ("gpu",)),
    **dict.fromkeys(("classification", "classes", "softmax"), ("multiclass",)),
    "sigmoid": ("binary",),
    **dict.fromkeys(("multi_label", "multi-label", "tagging"), ("multilabel",)),
    **dict.fromkeys(("standard", "zscore", "z-score", "standardise"), ("standardize",)),
    **dict.fromkeys(("rescale", "0-1", "[0,1]", "minmax"), ("unit",)),
    **dict.fromkeys(("hinton", "kl"), ("kd",)),
    **dict.fromkeys(("bayes", "bayesian"), ("tpe",)),
    **dict.fromkeys(("magnitude", "l2_norm"), ("l2",)),
}
"""What else things are called, in small letters, with our names for them."""


def unknown_name(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """Build the error for a name that is not among `choices`, nearest spelling first.

    Args:
        kind: What the name stands for, as the user knows it ("sampler").
        name: What was received.
        choices: Every valid name.

    Returns:
        The error to raise; its message lists all choices behind what may be meant.
    """
    names, shown = sorted(choices), one_line(name)
    near = nearest(shown, names)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return InputError(f"Unknown {kind} '{shown}'.{hint} Choices: {', '.join(names)}.")


def removed_name(kind: str, name: object, instead: str) -> InputError:
    """Build the error for a name that earlier versions took.

    Args:
        kind: What the name stands for, as the user knows it ("sampler").
        name: What was received.
        instead: A sentence or two: why it was removed, and what to use instead.
    """
    return InputError(f"{kind[:1].upper()}{kind[1:]} '{one_line(name)}' was removed. {instead}")


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Return the name that may be meant by another one, alone in a list; none: an empty list."""
    known = list(names)
    meant = [other for other in SYNONYMS.get(name.lower(), ()) if other in known]
    return meant[:1] or difflib.get_close_matches(name, known, n=1)


def one_line(value: object, limit: int = LONGEST_VALUE) -> str:
    """Render a value on one line of printable characters, cut in the middle where it is long.

    Args:
        value: Anything; of a text its characters, not its quotes.
        limit: Characters, at least 100.
    """
    try:
        text = str(value)
    except ValueError:  # Python does not write whole numbers of thousands of digits
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else "a value"
    except RecursionError:
        text = f"a {type(value).__name__}, deeply nested"
    # of long texts only the ends are looked at
    shown = printable(text[: limit + 1])
    if len(shown) <= limit:
        return shown
    head, tail = limit // 2, limit // 4
    end = printable(text[-tail:])[-tail:]
    return f"{shown[:head]} ... ({len(text):,} characters in all) ... {end}"


def reason_of(error: BaseException, limit: int = 300) -> str:
    """Return what a library's error says, on one line: without colours and Keras's frame."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    text = text.split("Arguments received by")[0]
    text = re.split("Exception encountered(?: when calling|:)", text)[-1]
    words = " ".join(re.sub(r"^ *(layer )?\S+\.call\(\)\.", "", text).split())
    return one_line(words or type(error).__name__, limit)


def is_too_small(error: BaseException) -> bool:
    """Tell whether a layer refuses its input because nothing would be left of it.

    Keras and TensorFlow say of such a convolution or pooling that a dimension comes out as zero or
    negative.
    """
    return "zero or negative" in str(error) or "egative dimension" in str(error)


def printable(text: str) -> str:
    """Spell out every character that would not be seen as itself: `\\n`, `\\x1b`, `\\u202e`.

    A control character would steer a terminal, a mark of direction turn a line round, and half
    of a surrogate pair cannot be written at all. Letters of all scripts stay.
    """
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


# controls, marks of direction, other line ends, halves of pairs, and the two codes that are
# no character
_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)

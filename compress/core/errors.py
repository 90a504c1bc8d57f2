"""Errors that a user can cause, with the exit code of the command line for each.

Every message names the subject, the rule, the received value and the remedy. The command line
prints the message without a traceback and exits with `exit_code`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

MAX_MESSAGE_LENGTH = 2000
"""Maximum number of characters of a message; longer messages are cut in the middle."""
MAX_VALUE_LENGTH = 200
"""Maximum number of characters of one received value in a message."""


class ParetuneError(Exception):
    """Base class of all errors that paretune raises on purpose.

    Args:
        message: The message. It is converted to one line of printable characters, because received
            values may contain line breaks or terminal escape codes.
    """

    exit_code = 2

    def __init__(self, message: object = "") -> None:
        super().__init__(to_one_line(message, MAX_MESSAGE_LENGTH))


class InputError(ParetuneError, ValueError):
    """An argument, a file or a data set violates a rule, which the message states."""


class FeasibleError(InputError):
    """A target is out of reach for this model, although the input is valid otherwise."""


class MissingDependency(ParetuneError, ImportError):
    """An optional package is not installed; the message ends with the install command."""


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
"""Common synonyms in lower case, with the names used in paretune."""


def build_unknown_name_error(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """Build the error for a name that is not among `choices`, with the closest match.

    Args:
        kind: The kind of thing, in the user's terms ("sampler").
        name: The received name.
        choices: All valid names.

    Returns:
        The error to raise; its message lists the closest match and all choices.
    """
    names, shown = sorted(choices), to_one_line(name)
    suggestions = find_nearest_name(shown, names)
    hint = f" Did you mean '{suggestions[0]}'?" if suggestions else ""
    return InputError(f"Unknown {kind} '{shown}'.{hint} Choices: {', '.join(names)}.")


def build_removed_name_error(kind: str, name: object, instead: str) -> InputError:
    """Build the error for a name that was removed in an earlier version.

    Args:
        kind: The kind of thing, in the user's terms ("sampler").
        name: The received name.
        instead: One or two sentences: the reason for the removal, and the replacement.
    """
    return InputError(f"{kind[:1].upper()}{kind[1:]} '{to_one_line(name)}' was removed. {instead}")


def find_nearest_name(name: str, names: Iterable[str]) -> list[str]:
    """Return a list with the closest match of a name, or an empty list.

    Args:
        name: The received name.
        names: All valid names.
    """
    candidates = list(names)
    synonyms = [other for other in SYNONYMS.get(name.lower(), ()) if other in candidates]
    return synonyms[:1] or difflib.get_close_matches(name, candidates, n=1)


def to_one_line(value: object, limit: int = MAX_VALUE_LENGTH) -> str:
    """Render a value on one line of printable characters; a long text is cut in the middle.

    Args:
        value: Any value; a string is rendered without quotes.
        limit: Maximum number of characters, at least 100.
    """
    try:
        text = str(value)
    except ValueError:  # Python does not convert integers with thousands of digits
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else "a value"
    except RecursionError:
        text = f"a {type(value).__name__}, deeply nested"
    # only the ends of long texts are processed
    shown = escape_unprintable(text[: limit + 1])
    if len(shown) <= limit:
        return shown
    head, tail = limit // 2, limit // 4
    end = escape_unprintable(text[-tail:])[-tail:]
    return f"{shown[:head]} ... ({len(text):,} characters in all) ... {end}"


def extract_reason(error: BaseException, limit: int = 300) -> str:
    """Return the message of a library's error on one line, without colours and Keras's frame.

    Args:
        error: The error.
        limit: Maximum number of characters, at least 100.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    text = text.split("Arguments received by")[0]
    text = re.split("Exception encountered(?: when calling|:)", text)[-1]
    words = " ".join(re.sub(r"^ *(layer )?\S+\.call\(\)\.", "", text).split())
    return to_one_line(words or type(error).__name__, limit)


def is_input_too_small(error: BaseException) -> bool:
    """Return whether a layer rejects its input because its output would be empty.

    Which of Keras and TensorFlow notices it first, and so the words, differ with the processor.
    """
    reasons = ("zero or negative", "egative dimension", "an empty output", "spatial dimension")
    return any(reason in str(error) for reason in reasons)


def escape_unprintable(text: str) -> str:
    """Escape all characters that are not visible as themselves: `\\n`, `\\x1b`, `\\u202e`.

    Control characters would move a terminal's cursor, direction marks would reverse a line, and
    surrogates cannot be written. Letters of all scripts are unchanged.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


# control characters, direction marks, line separators, surrogates, noncharacters
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)

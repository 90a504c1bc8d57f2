"""The errors a user can cause, and what each one means to the command line.

Every message names the thing, the rule, what was received and the remedy. The
command line prints the message alone (no traceback) and leaves with `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ParetuneError(Exception):
    """Base of all errors that paretune raises on purpose."""

    exit_code = 2


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


def unknown_name(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """Builds the error for a name that is not among `choices`, nearest spelling first.

    Args:
        kind: What the name stands for, as the user knows it ("sampler").
        name: What was received.
        choices: Every valid name.

    Returns:
        The error to raise; its message lists all choices.
    """
    names = sorted(choices)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return InputError(f"Unknown {kind} '{name}'. Choices: {', '.join(names)}.{hint}")

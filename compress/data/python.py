"""`package.module:function`: a data set that the user's own code makes."""

from __future__ import annotations

import inspect
from typing import Any

from compress.core.errors import InputError, ParetuneError
from compress.core.user_code import resolve, told


def call(target: str) -> Any:
    """Calls the function that `target` names and returns what it returns.

    Raises:
        InputError: There is none, it wants arguments, or it raises an error.
    """
    function = resolve(target)
    try:
        inspect.signature(function).bind()
    except TypeError:
        raise InputError(
            f"'{target}' must take no arguments. Received: a function of "
            f"{inspect.signature(function)}."
        ) from None
    except ValueError:
        pass  # some callables have no signature to look at; the call will tell
    try:
        return function()
    except ParetuneError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"'{target}' must return its result. It raised {told(error)}.") from error

"""`package.module:function`: a data set that the user's own code makes."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from compress.core.errors import InputError, ParetuneError
from compress.core.user_code import resolve, told
from compress.data._base import Dataset
from compress.data.adapters import answered_by, labelled
from compress.data.answers import Answering
from compress.data.kinds import Asked
from compress.data.leaks import check_parts
from compress.data.tasks import UNLABELLED
from compress.plan.data import AUTO


def load(asked: Asked, seed: int, answers: Answering | None) -> Dataset:
    """Makes a data set of what the user's function returns; arrays and streams are fed as is.

    Args:
        asked: Names the function, and says what labels mean.
        seed: Of the splits.
        answers: Of data without labels: what a model answers.

    Raises:
        InputError: See `call`; or the function returns something else.
    """
    options = asked.options
    for name in ("group_column", "time_column"):
        if getattr(options, name):
            raise InputError(
                f"{name} goes with tables and .npz files. Received: {getattr(options, name)} for "
                f"'{options.source}'. Return a compress.data.Dataset of parts that are split so."
            )
    result = call(options.source)
    if isinstance(result, Dataset):
        return check_parts(result, ("val", "test"))
    if options.normalize not in ("auto", "none"):
        raise InputError(
            "normalize goes with files and names: what a function returns is fed as it is. "
            f"Received: {options.normalize}. Scale it there."
        )
    how: dict[str, Any] = {
        "head": asked.head,
        "seed": seed,
        "label": options.label,
        "val_fraction": options.val_fraction,
        "test_fraction": options.test_fraction,
    }
    try:
        if options.task == UNLABELLED and answers is not None:
            found = answered_by(answers, result, **how)
        else:
            task = None if options.task == AUTO else options.task
            found = labelled(result, task=task, **how)
    except InputError as error:
        raise InputError(
            f"'{options.source}' must return a compress.data.Dataset, (x, y), a stream of such "
            f"pairs or a Hugging Face data set. Received: a {type(result).__name__}. {error}"
        ) from None
    return replace(found, name=options.source)


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

"""How many threads linear algebra takes beside TensorFlow's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Lets NumPy's and SciPy's linear algebra run on one thread for a time.

    TensorFlow's threads and those of BLAS wait actively for work: where both are as many as
    there are cores, factoring one matrix of 576 columns takes eight times as long.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield


@contextmanager
def all_blas_threads() -> Iterator[None]:
    """Lets linear algebra run on all cores for a time in which TensorFlow has nothing to do."""
    from threadpoolctl import threadpool_limits

    from compress.core.platform import host

    with threadpool_limits(limits=host().cores(), user_api="blas"):
        yield

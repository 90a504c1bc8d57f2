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
    """Lets linear algebra take TensorFlow's threads for a time in which that has nothing to do."""
    import tensorflow as tf
    from threadpoolctl import threadpool_limits

    from compress.core import linux

    # what the user, or a search with several workers, has set; 0: every core
    threads = tf.config.threading.get_intra_op_parallelism_threads() or linux.cores()
    with threadpool_limits(limits=threads, user_api="blas"):
        yield

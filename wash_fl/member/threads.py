"""Computing on one core."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute in one thread meanwhile: the same bits as on a device."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def processes_of_one_thread() -> Iterator[None]:
    """Have processes that are started meanwhile compute in one thread each, NumPy's BLAS as well.

    PyTorch can be told later, as by :func:`one_thread`; a BLAS that has made its threads keeps them, and
    those that are idle spin on cores that other processes need.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before

"""Tests of computing on one core: for a while, and in processes that are started meanwhile."""

import os
import subprocess
import sys

import pytest
import torch

from wash_fl.member.threads import one_thread, processes_of_one_thread

NAME = "OMP_NUM_THREADS"


def test_torch_has_as_many_threads_afterwards_as_before():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("before", [None, "3"])
def test_processes_that_are_started_meanwhile_have_one_thread_and_numpys_blas_too(monkeypatch, before):
    if before is None:
        monkeypatch.delenv(NAME, raising=False)
    else:
        monkeypatch.setenv(NAME, before)
    # On a machine of one core it cannot fail.
    program = (
        "import os, numpy; numpy.ones(100_000) @ numpy.ones(100_000); "
        "print(len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 1)"
    )
    with pytest.raises(KeyError), processes_of_one_thread():
        threads = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert threads.stdout.strip() == "1"
        raise KeyError
    assert os.environ.get(NAME) == before

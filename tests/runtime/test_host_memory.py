"""The allocator keeps what is freed: who asked for it takes no page faults for scratch memory it had before."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys, numpy as np
from dal_jax.runtime import host_memory
if sys.argv[1] == "keep":
    assert host_memory.keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(100 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_scratch_memory_is_paged_in_once():
    keep, leave = _faults("keep"), _faults("leave")
    assert keep < 100
    assert leave > 10 * keep


def _faults(mode):
    run = subprocess.run([sys.executable, "-c", _PROGRAM, mode], capture_output=True, check=True, text=True)
    return int(run.stdout)

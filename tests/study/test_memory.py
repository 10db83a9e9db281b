"""Peak memory of this process and those below it."""

import subprocess
import sys

import numpy as np

from smgeo.study.memory import PeakMemory

MB = 1_000_000


def test_memory_that_was_given_back_and_that_of_processes_below_counts():
    with PeakMemory() as before:
        pass
    with PeakMemory() as memory:
        held = np.ones(300 * MB, dtype="uint8")
        command = [sys.executable, "-c", f"import time; held = b'1' * {200 * MB}; print(flush=True); time.sleep(1.2)"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as below:
            below.stdout.readline()
            below.wait()
        held = None
    assert held is None
    # Both at once; a shell's worth of Python more or less.
    assert 450 * MB < memory.bytes - before.bytes < 700 * MB

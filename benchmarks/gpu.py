"""One GPU, by JAX: training of one network against the plain loop, and the 100-trial search in one process.

Run: KERAS_BACKEND=jax python benchmarks/gpu.py [TRIALS]       (needs JAX with CUDA: pip install 'jax[cuda12]')
The array, the models and the peers are those of networks.py and search.py. Without a GPU it says so and ends; TRIALS is 100 by default.
"""

from __future__ import annotations

import os
import sys
import tempfile

os.environ.setdefault("KERAS_BACKEND", "jax")
# Trials run in a process of their own, which shares the GPU with this one.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import networks
import search


def main() -> None:
    device = jax.devices()[0]
    if device.platform != "gpu":
        print("no GPU at hand: JAX sees", ", ".join(str(d) for d in jax.devices()))
        return
    print(device.device_kind)
    for what in ("ann", "gru"):
        networks.compare(what)
    asked = search.arguments(["ann", "--trials", *(sys.argv[1:2] or ["100"]), "--concurrent", "1"])
    with tempfile.TemporaryDirectory() as folder:
        search.search("ann", asked, folder)


if __name__ == "__main__":
    main()

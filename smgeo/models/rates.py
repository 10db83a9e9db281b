"""Batch sizes and learning rates of networks, chosen by the number of rows.

Keras' batch of 32 leaves most of a processor idle, and a batch of 4,096 leaves ten steps an epoch if there are few rows.
"""

from __future__ import annotations

import numpy as np

# Least steps of an epoch where the batch size is chosen here: with fewer a network learns little from an epoch.
_STEPS = 100


def choose_batch(rows: int, least: int, most: int) -> int:
    """Return the largest power of two that leaves 100 steps an epoch, from `least` to `most`.

    >>> choose_batch(427_000, 32, 4096), choose_batch(12_000, 32, 4096), choose_batch(500, 32, 4096)
    (4096, 64, 32)
    """
    fitting = 2 ** int(np.log2(max(rows / _STEPS, 1)))
    return int(min(max(fitting, least), most))


def choose_rate(optimizer: str, batch: int) -> float:
    """Return Keras' default learning rate, which is for batches of 32, scaled to larger ones.

    By the root of the batch for Adam and RMSprop (Malladi et al. 2022, NeurIPS 35, 7697-7711), in proportion to it for SGD, up
    to 0.3 (Goyal et al. 2017, arXiv:1706.02677).

    >>> choose_rate("adam", 2048), choose_rate("sgd", 64)
    (0.008, 0.02)
    """
    share = batch / 32
    return min(0.01 * share, 0.3) if optimizer == "sgd" else float(0.001 * np.sqrt(share))


def rate_at(rate: float, epoch: int, epochs: int) -> float:
    """Return the learning rate of an epoch, from 1, along half a cosine that begins at `rate` and would be 0 after the last.

    >>> [round(rate_at(0.01, epoch, 4), 5) for epoch in (1, 2, 3, 4)]
    [0.01, 0.00854, 0.005, 0.00146]
    """
    return float(rate * (1 + np.cos(np.pi * (epoch - 1) / epochs)) / 2)

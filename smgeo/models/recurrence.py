"""GRU and LSTM layers that TensorFlow trains fast on a CPU: the loop over days and its gradient are written out.

Keras leaves the gradient to TensorFlow, which keeps some twenty numbers of each unit and day, each with a call of its own. Here the input of
all days is multiplied by its weights at once, the gradient is a second loop backwards with what the first one kept, and that of the weights is one
product at the end. Weights, their names and results are those of Keras' layers, and on a GPU and with JAX those are taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

from dask.system import CPU_COUNT

if TYPE_CHECKING:
    from keras import Layer
    from tensorflow import Tensor, TensorArray

    Gradient: TypeAlias = Callable[..., tuple[Tensor, ...]]
    # Given inputs (n, days, channels), first states and weights, returns the last states (n, units) and the outputs of all days.
    Run: TypeAlias = Callable[..., tuple[Tensor, ...]]

# Rows of a part of a batch, at least and as a rule: parts run side by side, and none waits for another after each product.
_LEAST_ROWS, _PART_ROWS = 4, 64


def recurrent_layer(keras: ModuleType, name: str) -> type[Layer]:
    """Return the layer "GRU" or "LSTM": Keras' own, or one that keeps its contract and trains faster, where TensorFlow runs on a CPU."""
    own: type[Layer] = getattr(keras.layers, name)
    if keras.backend.backend() != "tensorflow":
        return own
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return own
    runs: dict[str, Run] = {"GRU": _run_gru, "LSTM": _run_lstm}
    run = runs[name]

    def inner_loop(
        self: Layer, sequences: Tensor, initial_state: list[Tensor], mask: Tensor | None, training: bool = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        cell = self.cell
        weights = [tf.convert_to_tensor(w) for w in (cell.kernel, cell.recurrent_kernel, cell.bias)]
        rows = [sequences, *initial_state]
        # Estimates are compiled as a whole (`make_predictor`); the number of rows of a process in a team changes.
        whole = not training or sequences.shape[0] is None
        *states, outputs = run(*rows, *weights) if whole else _in_parts(run, rows, weights)
        return states[0], outputs, states

    return type(name, (own,), {"inner_loop": inner_loop})  # its name is that of the weights in a file


def _in_parts(run: Run, rows: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Return what `run` returns, of parts of the rows that are compiled by XLA and run side by side."""
    import tensorflow as tf

    count, threads = rows[0].shape[0], _threads()
    parts = max(min(threads, count // _LEAST_ROWS), count // _PART_ROWS, 1)
    edges = [count * k // parts for k in range(parts + 1)]
    compiled = tf.function(run, jit_compile=True, autograph=False)
    each = [compiled(*(r[a:b] for r in rows), *weights) for a, b in pairwise(edges)]
    return [tf.concat(same, 0) for same in zip(*each, strict=True)]


def _threads() -> int:
    """Return the number of threads that TensorFlow uses for one operation."""
    import tensorflow as tf

    asked = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return tf.config.threading.get_intra_op_parallelism_threads() or (int(asked) if asked.isdigit() else 0) or CPU_COUNT


def _along_days(sequences: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Return what inputs add to the gates, (days, n, gates x units)."""
    import tensorflow as tf

    return tf.matmul(tf.transpose(sequences, (1, 0, 2)), kernel) + bias


def _by_rows(states: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.transpose(states, (1, 0, 2))


def _run_gru(sequences: Tensor, first: Tensor, kernel: Tensor, recurrent: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    import tensorflow as tf

    units = first.shape[-1]
    # Gates of update and reset add the two biases; of the candidate the second one is multiplied by the reset gate.
    both = bias[0] + tf.concat([bias[1, : 2 * units], tf.zeros(units, bias.dtype)], 0)
    states = _gru(_along_days(sequences, kernel, both), first, recurrent, bias[1, 2 * units :])
    return states[-1], _by_rows(states)


def _run_lstm(
    sequences: Tensor, first: Tensor, first_cell: Tensor, kernel: Tensor, recurrent: Tensor, bias: Tensor
) -> tuple[Tensor, ...]:
    states, cells = _lstm(_along_days(sequences, kernel, bias), first, first_cell, recurrent)
    return states[-1], cells[-1], _by_rows(states)


def _arrays(like: Tensor, *widths: int) -> list[TensorArray]:
    """Return arrays for the days of `like` (days, n, ...), with so many numbers of each of the n."""
    import tensorflow as tf

    days = tf.shape(like)[0]
    return [tf.TensorArray(like.dtype, days, element_shape=(like.shape[1], w)) for w in widths]


def _product(states: Tensor, gates: Tensor) -> Tensor:
    """Return the gradient of weights between states and gates, (units, gates x units), over all days and rows."""
    import tensorflow as tf

    flat = [tf.reshape(part, (-1, part.shape[-1])) for part in (states, gates)]
    return tf.matmul(*flat, transpose_a=True)


def _gru(inputs: Tensor, first: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Return states of all days, (days, n, units): gates z and r and candidate g of Cho et al. 2014, r applied after the product."""
    import tensorflow as tf

    units = first.shape[-1]

    @tf.custom_gradient  # type: ignore[untyped-decorator] # TensorFlow has no types
    def run(inputs: Tensor, first: Tensor, weights: Tensor, bias: Tensor) -> tuple[Tensor, Gradient]:
        days = tf.shape(inputs)[0]

        def step(day: Tensor, h: Tensor, *kept: TensorArray) -> tuple[Tensor, ...]:
            x, of_h = (tf.split(part, 3, axis=1) for part in (inputs[day], tf.matmul(h, weights)))
            z, r, n = tf.sigmoid(x[0] + of_h[0]), tf.sigmoid(x[1] + of_h[1]), of_h[2] + bias
            g = tf.tanh(x[2] + r * n)
            h = g + z * (h - g)
            return day + 1, h, *(a.write(day, v) for a, v in zip(kept, (h, z, r, n, g), strict=True))

        start = (0, first, *_arrays(inputs, *[units] * 5))
        _, _, *kept = tf.while_loop(lambda day, *_: day < days, step, start, maximum_iterations=days)
        states, z, r, n, g = (a.stack() for a in kept)

        def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
            last = tf.concat([first[None], states[:-1]], 0)
            of_g = (1 - z) * (1 - g * g)
            # What a change of the state is multiplied by, for each gate.
            of_gates = tf.stack([(last - g) * z * (1 - z), of_g * n * r * (1 - r), of_g * r], 2)
            back = tf.transpose(weights)

            def step(day: Tensor, dh: Tensor, gates: TensorArray, changes: TensorArray) -> tuple[Tensor, ...]:
                dh += upstream[day]
                of_day = tf.reshape(dh[:, None] * of_gates[day], (-1, 3 * units))
                gates, changes = gates.write(day, of_day), changes.write(day, dh)
                return day - 1, dh * z[day] + tf.matmul(of_day, back), gates, changes

            start = (days - 1, tf.zeros_like(first), *_arrays(inputs, 3 * units, units))
            _, dh, *kept = tf.while_loop(lambda day, *_: day >= 0, step, start, maximum_iterations=days)
            gates, changes = (a.stack() for a in kept)
            of_inputs = tf.concat([gates[..., : 2 * units], changes * of_g], -1)
            return of_inputs, dh, _product(last, gates), tf.reduce_sum(gates[..., 2 * units :], (0, 1))

        return states, gradient

    states: Tensor = run(inputs, first, weights, bias)
    return states


def _lstm(inputs: Tensor, first: Tensor, first_cell: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs and cells of all days, (days, n, units); gates in the order of Keras: input i, forget f, candidate g, output o."""
    import tensorflow as tf

    units = first.shape[-1]

    @tf.custom_gradient  # type: ignore[untyped-decorator] # TensorFlow has no types
    def run(
        inputs: Tensor, first: Tensor, first_cell: Tensor, weights: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Gradient]:
        days = tf.shape(inputs)[0]

        def step(day: Tensor, h: Tensor, c: Tensor, *kept: TensorArray) -> tuple[Tensor, ...]:
            gates = inputs[day] + tf.matmul(h, weights)
            i, f, g, o = tf.split(gates, 4, axis=1)
            i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
            c = f * c + i * g
            h = o * tf.tanh(c)
            return day + 1, h, c, *(a.write(day, v) for a, v in zip(kept, (h, c, i, f, g, o), strict=True))

        start = (0, first, first_cell, *_arrays(inputs, *[units] * 6))
        _, _, _, *kept = tf.while_loop(lambda day, *_: day < days, step, start, maximum_iterations=days)
        states, cells, i, f, g, o = (a.stack() for a in kept)

        def gradient(upstream: Tensor, of_cells: Tensor) -> tuple[Tensor, ...]:
            last = tf.concat([first[None], states[:-1]], 0)
            last_cell = tf.concat([first_cell[None], cells[:-1]], 0)
            t = tf.tanh(cells)
            # What a change of the cell is multiplied by, for the gates of input, forgetting and candidate.
            of_gates = tf.stack([g * i * (1 - i), last_cell * f * (1 - f), i * (1 - g * g)], 2)
            # What a change of the output is multiplied by, for its gate and for the cell.
            of_output, of_cell = t * o * (1 - o), o * (1 - t * t)
            back = tf.transpose(weights)

            def step(day: Tensor, dh: Tensor, dc: Tensor, gates: TensorArray) -> tuple[Tensor, ...]:
                dh += upstream[day]
                dc += of_cells[day] + dh * of_cell[day]
                three = tf.reshape(dc[:, None] * of_gates[day], (-1, 3 * units))
                of_day = tf.concat([three, dh * of_output[day]], 1)
                return day - 1, tf.matmul(of_day, back), dc * f[day], gates.write(day, of_day)

            start = (days - 1, tf.zeros_like(first), tf.zeros_like(first), *_arrays(inputs, 4 * units))
            _, dh, dc, kept = tf.while_loop(lambda day, *_: day >= 0, step, start, maximum_iterations=days)
            gates = kept.stack()
            return gates, dh, dc, _product(last, gates)

        return (states, cells), gradient

    outputs: tuple[Tensor, Tensor] = run(inputs, first, first_cell, weights)
    return outputs

"""Which rows and steps of a batch run when, and on which core.

- A sequence may have any length: only a block of steps, not the sequence, has a fixed shape.
- Rows that have ended leave: rows are sorted by length, and a block takes those still running.
- Cores work at once: rows do not depend on each other, so each core takes a shard of them.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from layers.blocks_tensorflow import Tensors, backward_block, forward_block
from layers.derivatives import Equations
from layers.xla_tensorflow import compiles_caller

STEPS = 32  # of a block: many against the cost of starting one, few against the caches
ROWS = 8  # row counts are rounded up to a multiple, so that few block shapes are compiled
SHARDS = 4  # at most, of a batch of unknown size, which may be small
UNROLLED = 16  # up to so many blocks are written out instead of looped over

#: A size that is known (int) or computed in the graph.
Size = Any


def cores() -> int:
    """Return how many operations TensorFlow runs at once."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return tf.config.threading.get_inter_op_parallelism_threads() or here or 1


def block_length(time: int) -> int:
    """Return the number of steps near `STEPS` that divides ``time``, or that fills it best."""
    if time <= STEPS:
        return time
    near = [k for k in range(STEPS // 2, STEPS * 3 // 2) if time % k == 0]
    return min(near, key=lambda k: abs(k - STEPS)) if near else -(-time // -(-time // STEPS))


def is_zero(size: Size) -> bool:
    """Return whether a size is known to be 0."""
    return isinstance(size, int) and size == 0


class Schedule:
    """How a batch is divided: its rows into shards, one per core, and its steps into blocks.

    Args:
        x: <float>[batch, time, inputs].
        mask: bool [batch, time], True where a step is real; None if all are.
        truncate: k of truncated backpropagation through time, or None.
        concurrent_layers: how many layers share the cores.

    Attributes:
        shards: the `Shard` of each core.
        steps: the number of steps of a block.
        blocks: the number of blocks.
        sorted: whether rows are sorted by length, the longest first.
    """

    def __init__(
        self, x: tf.Tensor, mask: tf.Tensor | None, truncate: int | None, concurrent_layers: int
    ) -> None:
        batch, time = x.shape[:2]
        self.batch, self.time = (
            dynamic if static is None else static
            for static, dynamic in zip((batch, time), tf.unstack(tf.shape(x)[:2]), strict=True)
        )
        # In a function that XLA compiles as a whole, shapes are fixed and so is the schedule.
        free = not compiles_caller()
        on_gpu = bool(tf.config.get_visible_devices("GPU"))
        count = max(1, cores() // concurrent_layers) if free and not on_gpu else 1
        self._divide_rows(batch, count)
        self._divide_steps(time)
        self.order: tf.Tensor | None = None
        mask = self._prepare_mask(mask, sort=free)
        self.sorted = self.order is not None
        count = len(self.sizes)
        masks = [None] * count if mask is None else self._split_rows(mask)
        cuts = [None] * count if truncate is None else self._cuts(truncate, mask)
        self.shards = [
            Shard(self, *of_shard) for of_shard in zip(self.sizes, masks, cuts, strict=True)
        ]

    def _divide_rows(self, batch: int | None, count: int) -> None:
        """Set the rows of each of up to ``count`` shards, and how many are padding."""
        self.padded_rows: Size = 0
        if batch is None:
            # Padded, so that a smaller last batch needs no new block shapes.
            count = min(count, SHARDS)
            full = ROWS * count
            self.padded_rows = -self.batch % tf.where(self.batch < full, count, full)
            self.sizes = [(self.batch + self.padded_rows) // count] * count
        else:
            count = max(1, min(count, batch // ROWS))
            self.sizes = [len(range(shard, batch, count)) for shard in range(count)]

    def _divide_steps(self, time: int | None) -> None:
        """Set the steps of a block, the number of blocks, and how many steps are padding."""
        self.steps = STEPS if time is None else block_length(time)
        self.blocks: Size = -(-self.time // self.steps)
        if time is None:
            self.blocks = tf.maximum(1, self.blocks)
        self.padded_steps: Size = self.blocks * self.steps - self.time

    def _prepare_mask(self, mask: tf.Tensor | None, sort: bool) -> tf.Tensor | None:
        """Return the mask of padded and sorted rows, and set their order."""
        if mask is not None:
            mask = self._pad(mask)
            if sort:
                # Longest first, dealt out like cards: each shard has its share of each length.
                count = len(self.sizes)
                lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
                order = tf.argsort(lengths, direction="DESCENDING", stable=True)
                self.order = tf.concat([order[shard::count] for shard in range(count)], axis=0)
                self.inverse = tf.argsort(self.order)
                mask = tf.gather(mask, self.order)
        elif not is_zero(self.padded_steps):
            real = tf.range(self.time + self.padded_steps) < self.time
            mask = tf.broadcast_to(
                real, [self.batch + self.padded_rows, self.time + self.padded_steps]
            )
        return mask

    def _cuts(self, truncate: int, mask: tf.Tensor | None) -> list[tf.Tensor]:
        """Return, for each shard, before which steps truncated BPTT cuts."""
        if mask is None:
            index = tf.range(self.time)[None]
            return [(index > 0) & (index % truncate == 0)] * len(self.sizes)
        real = tf.cast(mask, tf.int32)
        index = tf.cumsum(real, axis=1) - real
        return self._split_rows((index > 0) & (index % truncate == 0) & mask)

    def _pad(self, rows: tf.Tensor, time: bool = True) -> tf.Tensor:
        """Append rows of zeros, and steps of zeros up to whole blocks."""
        paddings = [[0, self.padded_rows], [0, self.padded_steps]]
        if not time:
            paddings = paddings[:1]
        if all(is_zero(end) for _, end in paddings):
            return rows
        return tf.pad(rows, paddings + [[0, 0]] * (len(rows.shape) - len(paddings)))

    def _split_rows(self, rows: tf.Tensor) -> list[tf.Tensor]:
        if len(self.sizes) == 1:
            return [rows]
        shards: list[tf.Tensor] = tf.split(rows, self.sizes, num=len(self.sizes))
        return shards

    def split(self, rows: tf.Tensor, time: bool = True) -> list[tf.Tensor]:
        """Return [batch, ...] as one array for each shard.

        Args:
            time: whether the second axis is time.
        """
        rows = self._pad(rows, time)
        return self._split_rows(rows if self.order is None else tf.gather(rows, self.order))

    def merge(self, shards: Sequence[tf.Tensor], time: bool = True) -> tf.Tensor:
        """Invert `split`."""
        rows = shards[0] if len(shards) == 1 else tf.concat(shards, axis=0)
        if self.order is not None:
            rows = tf.gather(rows, self.inverse)
        rows = rows if is_zero(self.padded_rows) else rows[: self.batch]
        return rows[:, : self.time] if time and not is_zero(self.padded_steps) else rows


class UnrolledBlocks:
    """What blocks that are written out one after the other recorded, [rows, steps, ...] each."""

    def __init__(self, blocks: Sequence[tf.Tensor]) -> None:
        self.blocks = blocks

    def read(self, j: int) -> tf.Tensor:
        """Return what block ``j`` recorded."""
        return self.blocks[j]

    def along_time(self) -> tf.Tensor:
        """Return all blocks as [rows, steps of all blocks, ...]."""
        return self.blocks[0] if len(self.blocks) == 1 else tf.concat(self.blocks, axis=1)


class LoopedBlocks:
    """As `UnrolledBlocks`, of blocks that run in a loop."""

    def __init__(self, array: tf.TensorArray, shape: tf.TensorShape) -> None:
        self.array, self.shape = array, shape

    def read(self, j: tf.Tensor) -> tf.Tensor:
        """Return what block ``j`` recorded."""
        return tf.ensure_shape(self.array.read(j), self.shape)

    def along_time(self) -> tf.Tensor:
        """Return all blocks as [rows, steps of all blocks, ...]."""
        blocks = self.array.stack()
        flat = [tf.shape(blocks)[1], -1, self.shape[-1]]
        return tf.reshape(tf.transpose(blocks, [1, 0, 2, 3]), flat)


Recorded = Sequence[UnrolledBlocks | LoopedBlocks]


class Shard:
    """The rows that one core takes through time.

    Args:
        schedule: how the batch is divided.
        rows: their number.
        mask: bool [rows, time], or None.
        cuts: bool [rows or 1, time], or None; see `bptt.backward`.
    """

    def __init__(
        self, schedule: Schedule, rows: Size, mask: tf.Tensor | None, cuts: tf.Tensor | None
    ) -> None:
        self.schedule, self.rows, self.mask, self.cuts = schedule, rows, mask, cuts

    def block(self, sequence: tf.Tensor | None, j: Size, rows: Size = None) -> tf.Tensor | None:
        """Return the steps of block ``j``, [rows, steps, ...]."""
        if sequence is None:
            return None
        steps, features = self.schedule.steps, sequence.shape[2:]
        rows = self.rows if rows is None else rows
        if sequence.shape[0] == 1:
            rows = 1  # the same for all rows
        begin = [0, j * steps, *[0] * len(features)]
        block = tf.slice(sequence, begin, [rows, steps, *features])
        return tf.ensure_shape(block, [None, steps, *features])

    def running(self, j: Size) -> Size:
        """Return how many rows block ``j`` takes; None for all.

        Rows are sorted: those behind have no real step in it.
        """
        if not self.schedule.sorted:
            return None
        has_step = tf.reduce_any(self.block(self.mask, j), axis=1)
        last = tf.reduce_max(tf.where(has_step, tf.range(1, tf.size(has_step) + 1), 0))
        return tf.clip_by_value((last + ROWS - 1) // ROWS * ROWS, 0, self.rows)

    def loop(
        self,
        body: Callable[[Size, Any], tuple[list[tf.Tensor], list[tf.Tensor]]],
        states: list[tf.Tensor],
        reverse: bool = False,
    ) -> tuple[list[tf.Tensor], list[Any]]:
        """Apply ``body(j, states) -> (states, recorded)`` to all blocks, the last first if reverse.

        Returns:
            The last states, and what was recorded, see `UnrolledBlocks`.
        """
        blocks = self.schedule.blocks
        if isinstance(blocks, int) and blocks <= UNROLLED:
            steps: list[Any] = [None] * blocks
            for j in reversed(range(blocks)) if reverse else range(blocks):
                states, steps[j] = body(j, states)
            return states, [UnrolledBlocks(r) for r in zip(*steps, strict=True)]
        # For the number of arrays and their types only: unused results are not computed.
        _, like = body(0, states)
        arrays = [tf.TensorArray(r.dtype, size=blocks, infer_shape=False) for r in like]

        def step(j: Size, before: Any, arrays: Any) -> Any:
            after, recorded = body(j, before)
            for new, old in zip(after, before, strict=True):
                new.set_shape(old.shape)
            arrays = [array.write(j, v) for array, v in zip(arrays, recorded, strict=True)]
            return j - 1 if reverse else j + 1, after, arrays

        _, states, arrays = tf.while_loop(
            lambda j, *_: j >= 0 if reverse else j < blocks,
            step,
            (blocks - 1 if reverse else 0, states, arrays),
            parallel_iterations=1,
        )
        return states, [LoopedBlocks(a, v.shape) for a, v in zip(arrays, like, strict=True)]

    def forward(
        self,
        equations: type[Equations],
        x: tf.Tensor,
        states: Tensors,
        weights: Tensors,
        sequences: bool,
    ) -> tuple[tf.Tensor | None, list[tf.Tensor], Recorded]:
        """Run all steps of the rows.

        Returns:
            The hidden states [rows, time, units] (None without ``sequences``), the last states,
            and what `backward` needs.
        """

        def body(j: Size, states: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
            n = self.running(j)
            before = [s[:n] for s in states]
            last, after, saved = forward_block(
                equations, self.block(x, j, n), before, *weights, self.block(self.mask, j, n)
            )
            recorded = [*before, *after, *saved]
            hidden = after[0]
            if n is not None:  # rows that have ended keep their states
                ended = [s[n:] for s in states]
                last = [tf.concat(s, axis=0) for s in zip(last, ended, strict=True)]
                shape = [self.rows - n, self.schedule.steps, hidden.shape[-1]]
                repeated = tf.broadcast_to(ended[0][:, None], shape)
                hidden = tf.concat([hidden, repeated], axis=0)
            return last, [*recorded, hidden] if sequences else recorded

        last, recorded = self.loop(body, list(states))
        return recorded.pop().along_time() if sequences else None, last, recorded

    def backward(
        self,
        equations: type[Equations],
        x: tf.Tensor,
        recorded: Recorded,
        weights: Tensors,
        W_transposed: tf.Tensor,
        d_hidden: tf.Tensor | None,
        d_last: Tensors,
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Return ∂L/∂x [rows, time, inputs], and ∂L/∂ the first states and the weights.

        Args:
            recorded: the last result of `forward`.
            d_hidden: ∂L/∂ the hidden states [rows, time, units]; None for zero.
            d_last: ∂L/∂ the last states.
        """
        count = len(d_last)

        def body(j: Size, sums: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
            d_states, d_weights = sums[:count], sums[count:]
            n = self.running(j)
            now = [r.read(j) for r in recorded]
            d_steps = self.block(d_hidden, j)
            dx, d_before, *new = backward_block(
                equations,
                self.block(x, j, n),
                now[:count],
                now[count : 2 * count],
                now[2 * count :],
                weights[0],
                W_transposed,
                self.block(self.mask, j, n),
                self.block(self.cuts, j, n),
                None if d_steps is None else d_steps[:n],
                [d[:n] for d in d_states],
            )
            if n is not None:
                dx = tf.pad(dx, [[0, self.rows - n], [0, 0], [0, 0]])
                ended = [d[n:] for d in d_states]
                if d_steps is not None:
                    ended[0] += tf.reduce_sum(d_steps[n:], axis=1)
                d_before = [tf.concat(d, axis=0) for d in zip(d_before, ended, strict=True)]
            d_weights = [a + tf.cast(d, a.dtype) for a, d in zip(d_weights, new, strict=True)]
            return [*d_before, *d_weights], [dx]

        # A sum over many steps: 16 bits would lose the small terms.
        wide = tf.float32 if x.dtype.size == 2 else x.dtype
        zeros = [tf.zeros_like(w, dtype=wide) for w in weights]
        sums, (dx,) = self.loop(body, [*d_last, *zeros], reverse=True)
        return dx.along_time(), sums[:count], sums[count:]

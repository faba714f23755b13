"""`layers.bptt` on TensorFlow, on CPU cores: compiled blocks of steps in an ordinary graph.

A block of steps, forwards or backwards, is compiled by XLA: its loop over time is then machine
code that reuses the same few buffers. The blocks are joined by TensorFlow's own loop, so that

- a sequence may have any length: only the block, not the sequence, has a fixed shape;
- rows that have ended leave: rows are sorted by length, and a block takes those still running;
- cores work at once: rows do not depend on each other, so each core takes a share of them.

The values are those of `layers.unfold`, the gradients within rounding.
"""

import os

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.ops import control_flow_util

from layers import bptt

STEPS = 32  # of a block: many against the cost of starting one, few against the caches
ROWS = 8  # row counts are rounded up to a multiple, so that few block shapes are compiled
PARTS = 4  # at most, of a batch of unknown size, which may be small
UNROLLED = 16  # blocks that are written out one after the other rather than looped over


def is_compiled(tensor):
    """Whether ``tensor`` is being traced for a graph, and not a value."""
    return not tf.is_tensor(tensor) or tf.is_symbolic_tensor(tensor)


def scan(step, carried, xs, reverse=False):
    """``step(carried, x) -> (carried, y)`` over the first axis of ``xs``; XLA wants it known."""

    def entry(t):
        return tf.nest.map_structure(lambda x: x[t], xs)

    first = tf.nest.flatten(xs)[0]
    time = tf.shape(first)[0] if first.shape[0] is None else first.shape[0]
    # Only the shapes are used: nothing that is not used is computed in a graph.
    _, like = step(carried, entry(0))
    recorded = [tf.TensorArray(y.dtype, size=time, element_shape=y.shape) for y in like]

    def body(t, carried, recorded):
        carried, ys = step(carried, entry(t))
        recorded = [r.write(t, y) for r, y in zip(recorded, ys, strict=True)]
        return t - 1 if reverse else t + 1, carried, recorded

    _, carried, recorded = tf.while_loop(
        lambda t, *_: t >= 0 if reverse else t < time,
        body,
        (time - 1 if reverse else 0, list(carried), recorded),
        maximum_iterations=time,
    )
    return carried, [r.stack() for r in recorded]


def join(arrays):
    """Side by side along the last axis. The barriers keep XLA from computing each element of
    the result behind a choice of where it comes from, which its vectoriser cannot handle."""
    joined = tf.concat(xla.optimization_barrier(*arrays), axis=-1)
    return xla.optimization_barrier(joined)[0]


def turned(sequence):
    """[batch, time, ...] to [time, batch, ...] or back; a mask [batch, time] to [..., 1]."""
    if sequence is None:
        return None
    sequence = sequence[..., None] if len(sequence.shape) == 2 else sequence
    return tf.transpose(sequence, [1, 0, 2])


@tf.function(jit_compile=True, autograph=False)
def forward_block(equations, x, states, U, W, b, b_recurrent, mask):
    """`bptt.forward` of [batch, time, ...], the hidden states after each step turned back."""
    last, after, kept = bptt.forward(
        equations, scan, turned(x), states, U, W, b, b_recurrent, turned(mask)
    )
    return last, [turned(after[0]), *after[1:]], kept


@tf.function(jit_compile=True, autograph=False)
def backward_block(equations, x, states, after, kept, U, W_turned, mask, cuts, d_hidden, d_last):
    """`bptt.backward` of [batch, time, ...] and of what `forward_block` returned."""
    dx, *gradients = bptt.backward(
        equations,
        scan,
        join,
        turned(x),
        states,
        [turned(after[0]), *after[1:]],
        kept,
        U,
        W_turned,
        turned(mask),
        turned(cuts),
        turned(d_hidden),
        d_last,
    )
    return turned(dx), *gradients


def unfold(
    equations, x, states, U, W, b, b_recurrent, mask=None, truncate=None, sequences=True, share=1
):
    """All steps of a sequence, with the gradient derived by hand.

    Args:
        equations: one of `layers.bptt`.
        x: [batch, time, inputs], in the order of processing.
        states: the states before the first step, each [batch, units].
        U, W, b, b_recurrent: the weights, in the dtype of x.
        mask: bool [batch, time], True where a step is real, or None.
        truncate: None, or k for truncated backpropagation through time.
        sequences: whether the hidden states of all steps are wanted.
        share: how many layers the cores are shared with.

    Returns:
        The hidden states [batch, time, units], None if not wanted, and the last states, each
        [batch, units].
    """
    plan = Plan(x, mask, truncate, share)

    @tf.custom_gradient
    def through_time(x, U, W, b, b_recurrent, *states):
        weights = (U, W, b, b_recurrent)
        # By part, and then by kind: what each part returns, side by side.
        hidden, last, saved = zip(
            *(
                part.forward(equations, x, states, weights, sequences)
                for part, x, *states in zip(
                    plan.parts,
                    plan.split(x),
                    *(plan.split(s, time=False) for s in states),
                    strict=True,
                )
            ),
            strict=True,
        )
        hidden = [plan.merge(hidden)] if sequences else []
        last = [plan.merge(s, time=False) for s in zip(*last, strict=True)]

        def gradient(*d_outputs):
            d_hidden = plan.split(d_outputs[0]) if sequences else [None] * len(plan.parts)
            d_last = [plan.split(d, time=False) for d in d_outputs[len(hidden) :]]
            W_turned = tf.transpose(W)
            dx, d_states, d_weights = zip(
                *(
                    part.backward(equations, x, saved, weights, W_turned, d_hidden, d_last)
                    for part, x, saved, d_hidden, *d_last in zip(
                        plan.parts, plan.split(x), saved, d_hidden, *d_last, strict=True
                    )
                ),
                strict=True,
            )
            return [
                plan.merge(dx),
                *(
                    tf.cast(tf.add_n(d), w.dtype)
                    for w, d in zip(weights, zip(*d_weights, strict=True), strict=True)
                ),
                *(plan.merge(d, time=False) for d in zip(*d_states, strict=True)),
            ]

        return (*hidden, *last), gradient

    outputs = through_time(x, U, W, b, b_recurrent, *states)
    return (outputs[0], list(outputs[1:])) if sequences else (None, list(outputs))


def cores():
    """How many operations TensorFlow runs at once."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return tf.config.threading.get_inter_op_parallelism_threads() or here or 1


class Plan:
    """How a batch is cut: into parts of rows, a core each, and those into blocks of steps."""

    def __init__(self, x, mask, truncate, share):
        batch, time = x.shape[:2]
        self.batch, self.time = (
            dynamic if static is None else static
            for static, dynamic in zip((batch, time), tf.unstack(tf.shape(x)[:2]), strict=True)
        )
        # Inside somebody else's XLA computation every shape is fixed and so is the schedule.
        free = not control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
        on_gpu = bool(tf.config.get_visible_devices("GPU"))
        count = max(1, cores() // share) if free and not on_gpu else 1
        if batch is None:
            # Filled up, so that a smaller last batch needs no new blocks.
            count = min(count, PARTS)
            self.added = -self.batch % tf.where(self.batch < ROWS * count, count, ROWS * count)
            self.sizes = [(self.batch + self.added) // count] * count
        else:
            self.added = 0
            count = max(1, min(count, batch // ROWS))
            self.sizes = [len(range(part, batch, count)) for part in range(count)]
        self.steps = STEPS if time is None else block_length(time)
        self.blocks = -(-self.time // self.steps)
        if time is None:
            self.blocks = tf.maximum(1, self.blocks)
        self.filled = self.blocks * self.steps - self.time

        self.order = None
        if mask is not None:
            mask = self.fill(mask)
            if free:
                # Longest first, dealt out like cards: each part has its share of each length.
                steps = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
                order = tf.argsort(steps, direction="DESCENDING", stable=True)
                self.order = tf.concat([order[part::count] for part in range(count)], axis=0)
                self.inverse = tf.argsort(self.order)
                mask = tf.gather(mask, self.order)
        elif not is_zero(self.filled):
            real = tf.range(self.time + self.filled) < self.time
            mask = tf.broadcast_to(real, [self.batch + self.added, self.time + self.filled])
        masks = [None] * count if mask is None else self.parted(mask)
        cuts = [None] * count
        if truncate is not None and mask is not None:
            takes = tf.cast(mask, tf.int32)
            taken = tf.cumsum(takes, axis=1) - takes
            cuts = self.parted((taken > 0) & (taken % truncate == 0) & mask)
        elif truncate is not None:
            taken = tf.range(self.time)[None]
            cuts = [(taken > 0) & (taken % truncate == 0)] * count
        self.parts = [Part(self, *of_part) for of_part in zip(self.sizes, masks, cuts, strict=True)]

    def fill(self, rows, time=True):
        """Rows of zeros, and behind the last step steps of zeros, up to whole blocks."""
        paddings = [[0, self.added], [0, self.filled]] if time else [[0, self.added]]
        if all(is_zero(end) for _, end in paddings):
            return rows
        return tf.pad(rows, paddings + [[0, 0]] * (len(rows.shape) - len(paddings)))

    def split(self, rows, time=True):
        """[batch, ...] to one array for each part."""
        rows = self.fill(rows, time)
        return self.parted(rows if self.order is None else tf.gather(rows, self.order))

    def parted(self, rows):
        return [rows] if len(self.sizes) == 1 else tf.split(rows, self.sizes, num=len(self.sizes))

    def merge(self, parts, time=True):
        """The inverse of `split`."""
        rows = parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)
        if self.order is not None:
            rows = tf.gather(rows, self.inverse)
        rows = rows if is_zero(self.added) else rows[: self.batch]
        return rows[:, : self.time] if time and not is_zero(self.filled) else rows


def is_zero(number):
    return isinstance(number, int) and number == 0


def block_length(time):
    """The number of steps near `STEPS` that divides ``time``, or that fills it best."""
    if time <= STEPS:
        return time
    near = [k for k in range(STEPS // 2, STEPS * 3 // 2) if time % k == 0]
    return min(near, key=lambda k: abs(k - STEPS)) if near else -(-time // -(-time // STEPS))


class Written:
    """What blocks recorded, written out one after the other."""

    def __init__(self, blocks):
        self.read = blocks.__getitem__
        self.along_time = lambda: blocks[0] if len(blocks) == 1 else tf.concat(blocks, axis=1)


class Looped:
    """What blocks recorded, in a loop."""

    def __init__(self, array, shape):
        self.array, self.shape = array, shape

    def read(self, j):
        return tf.ensure_shape(self.array.read(j), self.shape)

    def along_time(self):
        """[rows, steps of all blocks, ...] of blocks [rows, steps, ...]."""
        blocks = self.array.stack()
        flat = [tf.shape(blocks)[1], -1, self.shape[-1]]
        return tf.reshape(tf.transpose(blocks, [1, 0, 2, 3]), flat)


class Part:
    """The rows that one core takes through time."""

    def __init__(self, plan, rows, mask, cuts):
        self.plan, self.rows, self.mask, self.cuts = plan, rows, mask, cuts

    def block(self, sequence, j, rows=None):
        """The steps of block j, [rows, steps, ...]."""
        if sequence is None:
            return None
        steps, features = self.plan.steps, sequence.shape[2:]
        rows = self.rows if rows is None else rows
        if sequence.shape[0] == 1:
            rows = 1  # the same for all rows
        begin = [0, j * steps, *[0] * len(features)]
        cut = tf.slice(sequence, begin, [rows, steps, *features])
        return tf.ensure_shape(cut, [None, steps, *features])

    def running(self, j):
        """How many rows block j takes: rows are sorted, and those behind have no step in it."""
        if self.plan.order is None:
            return None
        has_step = tf.reduce_any(self.block(self.mask, j), axis=1)
        last = tf.reduce_max(tf.where(has_step, tf.range(1, tf.size(has_step) + 1), 0))
        return tf.clip_by_value((last + ROWS - 1) // ROWS * ROWS, 0, self.rows)

    def loop(self, body, carried, reverse=False):
        """``body(j, carried) -> (carried, recorded)`` for all blocks."""
        blocks = self.plan.blocks
        if isinstance(blocks, int) and blocks <= UNROLLED:
            steps = [None] * blocks
            for j in reversed(range(blocks)) if reverse else range(blocks):
                carried, steps[j] = body(j, carried)
            return carried, [Written(r) for r in zip(*steps, strict=True)]
        # Only how many there are and of which type: nothing that is not used is computed.
        _, like = body(0, carried)
        recorded = [tf.TensorArray(r.dtype, size=blocks, infer_shape=False) for r in like]

        def step(j, before, recorded):
            carried, new = body(j, before)
            for now, then in zip(carried, before, strict=True):
                now.set_shape(then.shape)
            recorded = [r.write(j, v) for r, v in zip(recorded, new, strict=True)]
            return j - 1 if reverse else j + 1, carried, recorded

        _, carried, recorded = tf.while_loop(
            lambda j, *_: j >= 0 if reverse else j < blocks,
            step,
            (blocks - 1 if reverse else 0, carried, recorded),
            parallel_iterations=1,
        )
        return carried, [Looped(r, v.shape) for r, v in zip(recorded, like, strict=True)]

    def forward(self, equations, x, states, weights, sequences):
        """The hidden states [rows, time, units], the last states, and what `backward` wants."""

        def body(j, states):
            n = self.running(j)
            before = [s[:n] for s in states]
            last, after, kept = forward_block(
                equations, self.block(x, j, n), before, *weights, self.block(self.mask, j, n)
            )
            recorded = [*before, *after, *kept]
            hidden = after[0]
            if n is not None:  # the others keep the state they came with
                ended = [s[n:] for s in states]
                last = [tf.concat(s, axis=0) for s in zip(last, ended, strict=True)]
                steps = [self.rows - n, self.plan.steps, hidden.shape[-1]]
                ended = tf.broadcast_to(ended[0][:, None], steps)
                hidden = tf.concat([hidden, ended], axis=0)
            return last, [*recorded, hidden] if sequences else recorded

        last, recorded = self.loop(body, list(states))
        return recorded.pop().along_time() if sequences else None, last, recorded

    def backward(self, equations, x, recorded, weights, W_turned, d_hidden, d_last):
        """∂L/∂x [rows, time, inputs], the gradients of the first states and of the weights."""
        states = len(d_last)

        def body(j, carried):
            d_states, d_weights = carried[:states], carried[states:]
            n = self.running(j)
            now = [r.read(j) for r in recorded]
            d_steps = self.block(d_hidden, j)
            dx, d_before, *new = backward_block(
                equations,
                self.block(x, j, n),
                now[:states],
                now[states : 2 * states],
                now[2 * states :],
                weights[0],
                W_turned,
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

        # A sum over many steps: 16 bits would lose the small ones.
        wide = tf.float32 if x.dtype.size == 2 else x.dtype
        zeros = [tf.zeros_like(w, dtype=wide) for w in weights]
        carried, (dx,) = self.loop(body, [*d_last, *zeros], reverse=True)
        return dx.along_time(), carried[:states], carried[states:]

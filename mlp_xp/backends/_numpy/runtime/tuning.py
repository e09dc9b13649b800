"""Sizes and memory positions that both the thread pool and the machine code use."""

from __future__ import annotations

from typing import NamedTuple

# The pool's shared memory, in 64-bit integers. A cache line has 8 integers. Values that are written
# at different times are in different lines. The values are the number of the current kernel call
# (its ticket), the call's address, the number of threads, the number of threads that sleep until
# the next call, and whether the calling thread sleeps.
TICKET, TASK, N_THREADS, N_ASLEEP, CALLER_SLEEPS = 0, 8, 9, 16, 24
# The calling thread's measurements of its steps; see `choose_threads`.
LAST_TABLE, IS_ALONE, N_STEPS, NANOSECONDS, AS_BEFORE, STRETCH = range(32, 38)
# Then each part of a kernel call has a cache line, with the last ticket for which the part was
# started, and the last ticket for which it was done.
CONTROL, CONTROL_OF_THREAD = 40, 8
BEGUN, DONE = CONTROL, CONTROL + 1
QUIT = -1  # The ticket that stops the threads; kernel calls have the tickets 1, 2, ...
# How many times a waiting thread polls before it sleeps. This takes about 30 microseconds, roughly
# the cost of waking up. While a thread sleeps, other programs and threads can use its processor.
SPINS = 1000
# A trial runs `TRIED_STEPS` steps with one thread instead of all, or with all instead of one; the
# first `UNMEASURED` steps are not measured. The first trial begins after `FIRST_STRETCH` steps per
# thread. Each failed trial doubles this interval, up to `LONGEST_STRETCH`. Steps longer than
# `LONGEST_TRIED` nanoseconds always use all threads, which is faster even if another program runs.
TRIED_STEPS, UNMEASURED = 8, 2
FIRST_STRETCH, LONGEST_STRETCH, LONGEST_TRIED = 32, 4096, 300_000

# The minimum size at which threads divide an array. For smaller arrays, synchronizing threads takes
# longer than it saves.
LEAST_NUMBERS = 30_000
# Three limits for a gradient that an update computes itself. `LEAST_TILED` is the gradient's
# minimum number of columns. `SAMPLES_AT_ONCE` is the number of samples processed at a time to
# compute x^T dy, such that the rows of x fit in the second-level cache. `FUSED_ROW` is the maximum
# size in bytes of a row of the gradient, since eight rows must fit in the first-level cache, or 24
# rows in the second-level cache.
LEAST_TILED, SAMPLES_AT_ONCE, FUSED_ROW = 32, 256, 4096
# The size in bytes of a thread's work space, for rows of the gradient and packed columns of x, or
# for the thread's part of a matrix product.
SCRATCH = 1 << 18
# The part for rows of the gradient; the rest is for packed columns and a loop's record.
GRADIENT_BYTES = SCRATCH // 2
# A batch with at least `LEAST_COLUMNS` columns per thread is divided among threads by columns, not
# by rows. If the gradient has at least `LEAST_PACKED` columns, or dy is packed, an update packs
# `PANEL` columns of x at a time.
LEAST_COLUMNS, PANEL, LEAST_PACKED = 256, 48, 128
# The minimum size of a block of a large sum.
BLOCK = 1 << 11


def fits_in_update(n_samples: int, n_columns: int, item_bytes: int) -> bool:
    """Whether an update can compute a gradient x^T dy of this size itself."""
    is_row = LEAST_TILED <= n_columns <= FUSED_ROW // item_bytes
    return is_row and n_samples <= SAMPLES_AT_ONCE


def rows_of_block(n_columns: int) -> int:
    """Return the number of rows in a block of a large sum: a divisor or a multiple of `PANEL`.

    A block has about 2,000 elements or more, which makes up for the overhead of calling its loop.
    """
    found = (n for n in (8, 16, 24) if n * n_columns >= BLOCK)
    return next(found, -(-BLOCK // (PANEL * n_columns)) * PANEL)


class Tile(NamedTuple):
    """The part of a product that is kept in registers: rows, vectors per row, bytes per vector.

    With ``packs_small``, operands of small products are packed, too. On Zen 3, products of a batch
    of 128 rows are 1.2 to 1.8 times as fast with packed operands, since the caches have few sets
    for rows that are far apart. On Zen 5 with AVX-512, packing does not pay off in these products.
    """

    rows: int
    vectors: int
    vector_bytes: int
    packs_small: bool = False

    @property
    def gradient_rows(self) -> int:
        """The number of gradient rows that a loop computes at a time, a divisor of `PANEL`.

        More rows reuse a packed panel of dy more often.
        """
        return 6 * self.rows if self.packs_small else self.rows


# The tiles use 24 of 32 registers in AVX-512, 12 of 16 in AVX2, and 4 of 8 tile registers in AMX.
AVX512_TILE, AMX_TILE = Tile(8, 3, 64), Tile(32, 2, 64)
AVX2_TILE = Tile(4, 3, 32, packs_small=True)

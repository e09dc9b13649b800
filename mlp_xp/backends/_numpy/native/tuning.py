"""Sizes and memory positions that the thread pool and the machine code both use."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "AMX_TILE",
    "AS_BEFORE",
    "AVX2_TILE",
    "AVX512_TILE",
    "BEGUN",
    "CALLER_SLEEPS",
    "DONE",
    "FIRST_STRETCH",
    "FUSED_ROW",
    "IS_ALONE",
    "JOB",
    "LAST_TABLE",
    "LEAST_COLUMNS",
    "LEAST_NUMBERS",
    "LEAST_PACKED",
    "LEAST_TILED",
    "LONGEST_STRETCH",
    "LONGEST_TRIED",
    "MAIL",
    "MAIL_OF_THREAD",
    "NANOSECONDS",
    "N_ASLEEP",
    "N_STEPS",
    "N_THREADS",
    "PANEL",
    "QUIT",
    "SAMPLES_AT_ONCE",
    "SCRATCH",
    "SPINS",
    "STRETCH",
    "TICKET",
    "TRIED_STEPS",
    "UNMEASURED",
    "Tile",
]

# The pool's shared memory, in 64-bit integers. A cache line has 8 of them, and values that are
# written at different times are in different lines. The values: the number of the current kernel
# call (its ticket), its address, the number of threads, how many of them sleep until the next call,
# and whether the calling thread sleeps.
TICKET, JOB, N_THREADS, N_ASLEEP, CALLER_SLEEPS = 0, 8, 9, 16, 24
# The calling thread's measurements of its steps; see `choose_threads`.
LAST_TABLE, IS_ALONE, N_STEPS, NANOSECONDS, AS_BEFORE, STRETCH = range(32, 38)
# Then one line per part of a kernel call: the last tickets for which the part was started and done.
MAIL, MAIL_OF_THREAD = 40, 8
BEGUN, DONE = MAIL, MAIL + 1
QUIT = -1  # The ticket that stops the threads; kernel calls have 1, 2, ...
# The number of checks before a waiting thread sleeps, about 30 microseconds, as long as waking up
# takes. Another program, or the thread that it waits for, may need the processor.
SPINS = 1000
# One thread is tried instead of all, or the reverse, for `TRIED_STEPS` steps, of which the first
# are not measured. The first trial is after `FIRST_STRETCH` steps per thread; each failed one
# doubles that number, up to `LONGEST_STRETCH`. Steps longer than `LONGEST_TRIED` nanoseconds always
# use all threads, which is faster even if another program runs.
TRIED_STEPS, UNMEASURED = 8, 2
FIRST_STRETCH, LONGEST_STRETCH, LONGEST_TRIED = 32, 4096, 300_000

# The minimum size of an array that threads share; for smaller ones, synchronizing costs more.
LEAST_NUMBERS = 30_000
# The minimum number of columns of a gradient that an update computes itself. The number of samples
# that x^T dy processes at a time: the rows of x would not fit in the second-level cache otherwise.
# The maximum size in bytes of a row of the gradient: eight must fit in the first-level cache.
LEAST_TILED, SAMPLES_AT_ONCE, FUSED_ROW = 32, 256, 4096
# Bytes of work space per thread, for such rows and packed columns of x, or a part of a product.
SCRATCH = 1 << 18
# The number of columns per thread from which a batch is divided by columns, not by rows. The number
# of columns that an update packs together, and the minimum width of the gradient for packing.
LEAST_COLUMNS, PANEL, LEAST_PACKED = 256, 48, 128


class Tile(NamedTuple):
    """The part of a result that registers hold: rows, vectors per row, bytes per vector."""

    rows: int
    vectors: int
    vector_bytes: int


# The tiles use 24 of 32 registers in AVX-512, 12 of 16 in AVX2, and 4 of 8 tile registers in AMX.
AVX512_TILE, AVX2_TILE, AMX_TILE = Tile(8, 3, 64), Tile(4, 3, 32), Tile(32, 2, 64)

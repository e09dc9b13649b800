"""Sizes and positions that the thread pool and the machine code agree on."""

from __future__ import annotations

__all__ = [
    "DONE",
    "FUSED_ROW",
    "JOB",
    "LARGEST_RIGHT",
    "LEAST_COLUMNS",
    "LEAST_NUMBERS",
    "LEAST_PACKED",
    "LEAST_TILED",
    "MAIL",
    "MAIL_OF_THREAD",
    "N_THREADS",
    "PANEL",
    "QUIT",
    "SAMPLES_AT_ONCE",
    "SCRATCH",
    "TICKET",
]

# The mailbox of a pool, in 64-bit integers, of which a cache line holds 8: each side writes to
# lines of its own. The number of the job to be done, its address, and how many threads there are.
TICKET, JOB, N_THREADS = 0, 8, 9
# Before what each thread writes: the ticket that it has done.
MAIL, MAIL_OF_THREAD = 16, 8
DONE = MAIL
QUIT = -1  # The ticket of no job: those have 1, 2, ...

# The fewest numbers of an array that threads share: below, meeting costs more than it brings.
LEAST_NUMBERS = 30_000
# The fewest columns of a product that is our own. Samples that our own x^T dy takes at a time: more
# lines of x, as far apart as its rows, find no place in the second-level cache. The most bytes of
# dy, as it passes with every eight rows of the result: with more a BLAS is faster. Bytes of a row
# of a result of which eight fit the first-level cache.
LEAST_TILED, SAMPLES_AT_ONCE, LARGEST_RIGHT, FUSED_ROW = 32, 256, 1 << 19, 4096
# Bytes of work space of each thread: such rows and packed columns of x, or a part of a product.
SCRATCH = 1 << 18
# Columns of a batch for each thread, so that it takes columns and not rows. How many columns an
# update packs together, and how wide its result must be for that to pay.
LEAST_COLUMNS, PANEL, LEAST_PACKED = 256, 48, 128

"""Sizes and positions that the thread pool and the machine code agree on."""

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

# The mailbox of a pool, in 64-bit integers, of which a cache line holds 8: what is written at
# different times is in different lines. The number of the job to be done, its address, how many
# threads there are, how many of them sleep until the next job, and whether the caller sleeps.
TICKET, JOB, N_THREADS, N_ASLEEP, CALLER_SLEEPS = 0, 8, 9, 16, 24
# What the caller knows of its steps: see `choose_threads`.
LAST_TABLE, IS_ALONE, N_STEPS, NANOSECONDS, AS_BEFORE, STRETCH = range(32, 38)
# After it, a line for each part of a job: the last ticket whose part a thread has begun, and done.
MAIL, MAIL_OF_THREAD = 40, 8
BEGUN, DONE = MAIL, MAIL + 1
QUIT = -1  # The ticket of no job: those have 1, 2, ...
# How often a thread looks for what it waits for before it sleeps, some 30 microseconds: another
# program may need its processor, the thread that it waits for too. Waking takes about as long.
SPINS = 1000
# Steps that are tried on one thread, or on all again, and how many of them are not measured. Steps
# before the first try for each thread, and before later ones at most. Longer steps, in nanoseconds,
# are not tried: several threads gain there, beside another program too.
TRIED_STEPS, UNMEASURED = 8, 2
FIRST_STRETCH, LONGEST_STRETCH, LONGEST_TRIED = 32, 4096, 300_000

# The fewest numbers of an array that threads share: below, meeting costs more than it brings.
LEAST_NUMBERS = 30_000
# The fewest columns of a gradient that an update computes. Samples that our own x^T dy takes at a
# time: more lines of x, as far apart as its rows, find no place in the second-level cache. Bytes of
# a row of a result of which eight fit the first-level cache.
LEAST_TILED, SAMPLES_AT_ONCE, FUSED_ROW = 32, 256, 4096
# Bytes of work space of each thread: such rows and packed columns of x, or a part of a product.
SCRATCH = 1 << 18
# Columns of a batch for each thread, so that it takes columns and not rows. How many columns an
# update packs together, and how wide its result must be for that to pay.
LEAST_COLUMNS, PANEL, LEAST_PACKED = 256, 48, 128


class Tile(NamedTuple):
    """A tile of results in the registers: rows, vectors of columns, and bytes of a vector."""

    rows: int
    vectors: int
    vector_bytes: int


# 24 of the 32 registers of AVX-512, 12 of the 16 of AVX2, and 4 of the 8 tiles of AMX.
AVX512_TILE, AVX2_TILE, AMX_TILE = Tile(8, 3, 64), Tile(4, 3, 32), Tile(32, 2, 64)

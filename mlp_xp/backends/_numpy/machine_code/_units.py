"""The units that machine code is compiled in: one a kind of job, and one that does a whole table.

Each unit reads its job, a row of 64-bit words, and does the part of a thread. This module needs
numba, and is loaded only where something has to be compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, types

from mlp_xp.backends._numpy.jobs import (
    ACTIVATE,
    CODE,
    DONE,
    GATHER,
    GEMM,
    JOB,
    MAIL,
    PARTS,
    PICK_WORDS,
    QUIT,
    SCALAR,
    SCRATCH,
    SOFTMAX,
    SUM,
    TAKE,
    TICKET,
    UPDATE,
    WORDS,
    WORK,
    Unit,
)
from mlp_xp.backends._numpy.machine_code._loops import (
    copy,
    gather,
    make_activation,
    make_update,
    softmax,
    sum_rows,
)
from mlp_xp.backends._numpy.machine_code._products import make_gemm
from mlp_xp.backends._numpy.machine_code._words import call, jit, load, pointer, rest, share, store

__all__ = ["signature", "source"]


def signature(unit: Unit) -> Any:
    """Return the signature of a unit in machine code."""
    if unit.kind == WORK:
        return types.int64(*[types.int64] * 10)
    return types.void(*[types.int64] * 5)


def source(unit: Unit) -> Callable[..., Any]:
    """Return the function that a unit is compiled from."""
    if unit.kind == WORK:
        return work
    return _MAKERS[unit.kind](bool(unit.is_double), unit.variant)


def _gather(is_double: bool, is_bytes: int) -> Any:
    kind = np.float64 if is_double else np.float32
    source = np.uint8 if is_bytes else kind

    def unit(job, part, parts, totals, scratch):  # type: ignore[no-untyped-def]
        w = carray(pointer(job), WORDS, np.int64)
        size, n, width = w[3], w[4], w[5]
        low, high = share(n, part, parts), share(n, part + 1, parts)
        x, rows = carray(pointer(w[6]), (size, width), source), carray(pointer(w[7]), n, np.int32)
        shift, scale = carray(pointer(w[8]), width, kind), carray(pointer(w[9]), width, kind)
        out = carray(pointer(w[10]), (n, width), kind)
        gather(x, rows, w[7] != 0, shift, scale, w[8] != 0, out, low, high)

    return unit


def _sum(is_double: bool, _: int) -> Any:
    kind = np.float64 if is_double else np.float32

    def unit(job, part, parts, totals, scratch):  # type: ignore[no-untyped-def]
        w = carray(pointer(job), WORDS, np.int64)
        low, high = share(w[4], part, parts), share(w[4], part + 1, parts)
        x = carray(pointer(w[5]), (w[3], w[4]), kind)
        sum_rows(x, carray(pointer(w[6]), w[4], kind), low, high)

    return unit


def _activate(is_double: bool, function: int) -> Any:
    kind = np.float64 if is_double else np.float32
    activate, activate_back = make_activation(function)

    def unit(job, part, parts, totals, scratch):  # type: ignore[no-untyped-def]
        w = carray(pointer(job), WORDS, np.int64)
        low, high = share(w[3], part, parts), share(w[3], part + 1, parts)
        x = carray(pointer(w[4]), w[3], kind)[low:high]
        out = carray(pointer(w[6]), w[3], kind)[low:high]
        if w[5]:
            activate_back(x, carray(pointer(w[5]), w[3], kind)[low:high], out)
        else:
            activate(x, out)

    return unit


def _take(is_double: bool, _: int) -> Any:
    def unit(job, part, parts, totals, scratch):  # type: ignore[no-untyped-def]
        w = carray(pointer(job), WORDS, np.int64)
        for i in range(w[4]):
            row = carray(pointer(w[7]), w[4], np.int32)[i] if w[7] else i
            row += w[3] if row < 0 else 0
            copy(w[6] + 4 * w[5] * row, w[8] + 4 * w[5] * i, w[5])

    return unit


def _scalar(is_double: bool, _: int) -> Any:
    kind = np.float64 if is_double else np.float32

    def unit(job, part, parts, totals, scratch):  # type: ignore[no-untyped-def]
        w = carray(pointer(job), WORDS, np.int64)
        a, b = carray(pointer(w[4]), 1, kind)[0], carray(pointer(w[5]), 1, kind)[0]
        carray(pointer(w[6]), 1, kind)[0] = a * b if w[3] else a + b

    return unit


def _softmax(is_double: bool, _: int) -> Any:
    kind = np.float64 if is_double else np.float32

    def unit(job, part, parts, totals, scratch):  # type: ignore[no-untyped-def]
        w = carray(pointer(job), WORDS, np.int64)
        n, k = w[3], w[4]
        logits, labels = carray(pointer(w[5]), (n, k), kind), carray(pointer(w[6]), n, np.int32)
        weights = carray(pointer(w[7]), n, kind)
        smoothing = kind(carray(pointer(w[8]), 1, np.float64)[0])
        value, dlogits = carray(pointer(w[9]), 1, kind), carray(pointer(w[10]), (n, k), kind)
        softmax(logits, labels, weights, w[7] != 0, smoothing, value, dlogits)

    return unit


_MAKERS = {
    GEMM: make_gemm,
    SUM: _sum,
    GATHER: _gather,
    TAKE: _take,
    ACTIVATE: _activate,
    SOFTMAX: _softmax,
    SCALAR: _scalar,
    UPDATE: make_update,
}


# --- a table of jobs ------------------------------------------------------------------------------


@jit
def _is_inside(w):  # type: ignore[no-untyped-def]
    """Whether a job takes rows that are there, counted from either end as NumPy does."""
    if (w[0] != GATHER and w[0] != TAKE) or w[7] == 0:
        return True
    rows = carray(pointer(w[7]), w[4], np.int32)
    lowest, highest = np.int64(0), np.int64(-1)
    for i in range(rows.size):
        lowest, highest = min(lowest, rows[i]), max(highest, rows[i])
    return -w[3] <= lowest and highest < w[3]


@jit
def _add_penalty(w, parts, totals):  # type: ignore[no-untyped-def]
    """Write the penalty: half its factor times the squares that the threads have summed."""
    squares = 0.0
    for part in range(parts):
        squares += totals[part * 8]
    if w[2]:
        factor = carray(pointer(w[8]), 1, np.float64)[0]
        carray(pointer(w[9]), 1, np.float64)[0] = 0.5 * factor * squares
    else:
        factor32 = carray(pointer(w[8]), 1, np.float32)[0]
        carray(pointer(w[9]), 1, np.float32)[0] = np.float32(0.5 * factor32 * squares)


def work(mail, totals, scratch, table, n_jobs, picks, n_picks, start, stop, part):  # type: ignore[no-untyped-def]
    """Do the jobs of a table for each of some steps, or serve the thread that does.

    The caller is part 0: it does the jobs one after the other, and has the other threads, if there
    are any, do their part of each job that is worth it. They wait for the next ticket, do their
    part, and go on until the ticket is `QUIT`: one word says all, so that nothing can be seen half.

    Parameters
    ----------
    mail : address of (MAIL + 8 * parts,) int64
        With the number of threads at `PARTS`.
    totals : address of (8 * parts,) float64, to work with
    scratch : address of (parts, SCRATCH) bytes, to work with
    table : address of (n_jobs, WORDS) int64
        Word 1 is whether a job is worth sharing out. Not used by those who serve.
    picks : address of (n_picks, PICK_WORDS) int64
        What is brought to its place before each step.
    start, stop : int
        The steps.
    part : int

    Returns
    -------
    int
        How many jobs of the table were done in the last step: all, unless the next one takes rows
        that are not there.
    """
    letters = carray(pointer(mail), MAIL, np.int64)
    parts, ticket = letters[PARTS], np.int64(0)
    if part > 0:
        while True:
            turn = 0
            while load(mail + 8 * TICKET) == ticket:
                rest(turn)
                turn += 1
            ticket = load(mail + 8 * TICKET)
            if ticket == QUIT:
                return 0
            place = load(mail + 8 * JOB)
            job = carray(pointer(place), WORDS, np.int64)
            call(job[CODE], place, part, parts, totals, scratch + part * SCRATCH)
            store(mail + 8 * (DONE + 8 * part), ticket)
    moves = carray(pointer(picks), (n_picks, PICK_WORDS), np.int64)
    sums = carray(pointer(totals), 8 * parts, np.float64)
    for step in range(start, stop):
        for i in range(n_picks):
            copy(moves[i, 0] + step * moves[i, 1], moves[i, 3], moves[i, 2])
        for i in range(n_jobs):
            place = table + i * WORDS * 8
            job = carray(pointer(place), WORDS, np.int64)
            if not _is_inside(job):
                return i
            team = parts if job[1] else 1
            if team > 1:
                letters[JOB] = place
                ticket = letters[TICKET] + 1
                store(mail + 8 * TICKET, ticket)
            call(job[CODE], place, 0, team, totals, scratch)
            for other in range(1, team):
                turn = 0
                while load(mail + 8 * (DONE + 8 * other)) != ticket:
                    rest(turn)
                    turn += 1
            if job[0] == UPDATE and job[9] != 0:
                _add_penalty(job, team, sums)
    return n_jobs

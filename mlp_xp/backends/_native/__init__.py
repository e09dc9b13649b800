"""Jobs in machine code for NumPy: products, gathers, losses and updates, alone or by a team.

A job is a row of 64-bit words: what to do, and the addresses and sizes to do it with. Rows are
written once, when a step is planned; then `work` does a whole table of them in one call, without
the interpreter. With a team each job is shared out among threads that wait here and never need the
interpreter either. The products are those of SciPy's BLAS, held to one thread, called from each
thread for its own part of the result: between jobs our threads meet within a microsecond, where
those of a BLAS, of OpenMP and of Python take from ten to fifty.

This module needs numba, and is loaded by the first training.
"""

from __future__ import annotations

import numpy as np
from numba import carray, config

from mlp_xp.backends._jobs import (
    ACTIVATE,
    GATHER,
    GEMM,
    SCALAR,
    SOFTMAX,
    SUM,
    TAKE,
    UPDATE,
    UPDATE_WORDS,
    WORDS,
)
from mlp_xp.backends._native._loops import (
    activate,
    activate_back,
    copy,
    gather,
    softmax,
    sum_rows,
    update,
)
from mlp_xp.backends._native._products import gemm, routines
from mlp_xp.backends._native._words import jit, load, pointer, rest, share, store

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set, so nothing compiles jobs.")

__all__ = ["MAIL", "PARTS", "QUIT", "TICKET", "routines", "work"]

# The mailbox of a team, in words: a line of the cache (8 words) for what one side writes.
TICKET, JOB, PARTS, DONE = 0, 8, 9, 16
MAIL = 16  # words before those of each thread, which are 8
QUIT = -1  # The ticket of no job: those have 1, 2, ...


@jit
def _loop(w, like, part, parts):  # type: ignore[no-untyped-def]
    """Do a part of a job on numbers of the dtype of ``like``; give the squares of an update."""
    number, kind = like.dtype.type, like.dtype
    if w[0] == UPDATE:
        numbers = carray(pointer(w[6]), 5, np.float64)
        rate = carray(pointer(w[7]), 1, kind)[0]
        l2 = carray(pointer(w[8]), 1, kind)[0] if w[8] else number(0)
        shrink = carray(pointer(w[10]), 1, kind)[0] if w[10] else number(1)
        arrays = carray(pointer(w[4]), (w[3], UPDATE_WORDS), np.int64)
        return update(arrays, w[5], numbers, rate, shrink, l2, like, part, parts)
    if w[0] == GATHER:
        size, n, width = w[3], w[4], w[5]
        low, high = share(n, part, parts), share(n, part + 1, parts)
        has_rows, has_scaling = w[7] != 0, w[8] != 0
        rows = carray(pointer(w[7]), n, np.int32)
        shift, scale = carray(pointer(w[8]), width, kind), carray(pointer(w[9]), width, kind)
        out = carray(pointer(w[10]), (n, width), kind)
        if w[11]:
            bytes_ = carray(pointer(w[6]), (size, width), np.uint8)
            gather(bytes_, rows, has_rows, shift, scale, has_scaling, out, low, high)
        else:
            x = carray(pointer(w[6]), (size, width), kind)
            gather(x, rows, has_rows, shift, scale, has_scaling, out, low, high)
    elif w[0] == SUM:
        low, high = share(w[4], part, parts), share(w[4], part + 1, parts)
        x = carray(pointer(w[5]), (w[3], w[4]), kind)
        sum_rows(x, carray(pointer(w[6]), w[4], kind), low, high)
    elif w[0] == ACTIVATE:
        low, high = share(w[3], part, parts), share(w[3], part + 1, parts)
        x = carray(pointer(w[4]), w[3], kind)[low:high]
        out = carray(pointer(w[6]), w[3], kind)[low:high]
        if w[5]:
            dy = carray(pointer(w[5]), w[3], kind)[low:high]
            activate_back(w[7], x, dy, out)
        else:
            activate(w[7], x, out)
    elif w[0] == TAKE:
        for i in range(w[4]):
            row = carray(pointer(w[7]), w[4], np.int32)[i] if w[7] else i
            row += w[3] if row < 0 else 0
            copy(w[6] + 4 * w[5] * row, w[8] + 4 * w[5] * i, w[5])
    elif w[0] == SCALAR:
        a, b = carray(pointer(w[4]), 1, kind)[0], carray(pointer(w[5]), 1, kind)[0]
        carray(pointer(w[6]), 1, kind)[0] = a * b if w[3] else a + b
    elif w[0] == SOFTMAX and part == 0:
        n, k = w[3], w[4]
        logits, labels = carray(pointer(w[5]), (n, k), kind), carray(pointer(w[6]), n, np.int32)
        weights = carray(pointer(w[7]), n, kind)
        smoothing = number(carray(pointer(w[8]), 1, np.float64)[0])
        value, dlogits = carray(pointer(w[9]), 1, kind), carray(pointer(w[10]), (n, k), kind)
        softmax(logits, labels, weights, w[7] != 0, smoothing, value, dlogits)
    return number(0)


@jit
def _do(w, part, parts, totals, routines):  # type: ignore[no-untyped-def]
    """Do a part of a job."""
    if w[0] == GEMM:
        gemm(w, part, parts, routines)
    elif w[2]:
        totals[8 * part] = _loop(w, np.empty(0, np.float64), part, parts)
    else:
        totals[8 * part] = _loop(w, np.empty(0, np.float32), part, parts)


@jit
def _is_inside(w):  # type: ignore[no-untyped-def]
    """Tell whether a job takes rows that are there, counted from either end as NumPy does."""
    if (w[0] != GATHER and w[0] != TAKE) or w[7] == 0:
        return True
    rows = carray(pointer(w[7]), w[4], np.int32)
    lowest, highest = np.int64(0), np.int64(-1)
    for i in range(rows.size):
        lowest, highest = min(lowest, rows[i]), max(highest, rows[i])
    return -w[3] <= lowest and highest < w[3]


@jit
def _put_together(w, parts, totals):  # type: ignore[no-untyped-def]
    """Give the penalty: half its factor times the squares that the parts have summed up."""
    squares = 0.0
    for part in range(parts):
        squares += totals[part * 8]
    if w[2]:
        factor = carray(pointer(w[8]), 1, np.float64)[0]
        carray(pointer(w[9]), 1, np.float64)[0] = 0.5 * factor * squares
    else:
        factor32 = carray(pointer(w[8]), 1, np.float32)[0]
        carray(pointer(w[9]), 1, np.float32)[0] = np.float32(0.5 * factor32 * squares)


# --- the team -------------------------------------------------------------------------------------


@jit
def work(mail, totals, routines, table, picks, start, stop, part):  # type: ignore[no-untyped-def]
    """Do the jobs of a table for each of some steps, or serve whoever does.

    The caller is part 0: it does the jobs one after the other, and has the other parts, if there
    are any, do theirs of each job that is worth it. They wait for the next ticket, do their part,
    and go on until the ticket is `QUIT`: one word says all, so that nothing can be seen half.

    Parameters
    ----------
    mail : (MAIL + 8 * parts,) int64
        With the number of parts at `PARTS`.
    totals : (8 * parts,) float64, to work with
    routines : as `routines` gives them
    table : (jobs, WORDS) int64
        Word 1 tells whether a job is worth sharing out. Not used by those who serve.
    picks : (picks, PICK_WORDS) int64
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
    address, parts, ticket = mail.ctypes.data, mail[PARTS], 0
    if part > 0:
        while True:
            turn = 0
            while load(address + 8 * TICKET) == ticket:
                rest(turn)
                turn += 1
            ticket = load(address + 8 * TICKET)
            if ticket == QUIT:
                return 0
            job = carray(pointer(load(address + 8 * JOB)), WORDS, np.int64)
            _do(job, part, parts, totals, routines)
            store(address + 8 * (DONE + 8 * part), ticket)
    for step in range(start, stop):
        for i in range(picks.shape[0]):
            copy(picks[i, 0] + step * picks[i, 1], picks[i, 3], picks[i, 2])
        for i in range(table.shape[0]):
            place = table.ctypes.data + i * WORDS * 8
            job = carray(pointer(place), WORDS, np.int64)
            if not _is_inside(job):
                return i
            team = parts if job[1] else 1
            if team > 1:
                mail[JOB] = place
                ticket = mail[TICKET] + 1
                store(address + 8 * TICKET, ticket)
            _do(job, part, team, totals, routines)
            for other in range(1, team):
                turn = 0
                while load(address + 8 * (DONE + 8 * other)) != ticket:
                    rest(turn)
                    turn += 1
            if job[0] == UPDATE and job[9] != 0:
                _put_together(job, team, totals)
    return table.shape[0]

"""The progress bar on a terminal, and its lines in a file."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest
from fake_fit import fit, record

from mlp_xp.callbacks import ProgressBar


def test_a_terminal_gets_a_bar_for_each_fit(terminal):
    bar = ProgressBar()
    for _ in range(2):
        screen = terminal()
        fit(bar, [record(1), record(2, validation_score=0.75)])
        shown = screen.getvalue()
        assert "epoch 2/2" in shown
        assert "loss 0.5000  validation 0.7500" in shown
        assert "━" in shown
        # The cursor comes back, and prints go to the terminal again.
        assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
        assert sys.stdout is screen


def test_the_bar_shows_how_far_the_fit_is_and_the_time_left(terminal):
    screen, bar, model = terminal(), ProgressBar(), SimpleNamespace(max_iter=4)
    bar.on_fit_begin(model)
    bar.on_epoch_end(model, record(1))
    bar.on_step_end(model, 5, 10)
    task = bar._live.tasks[0]
    assert (task.completed, task.total) == (15 / 40, 1.0)
    assert task.fields == {"epoch": 2, "facts": "loss 1.0000", "left": "0:00 left"}
    bar.on_fit_end(model)
    assert re.search(r"epoch 2/4 .*━.* loss 1.0000 0:00 left", screen.getvalue())


def test_the_bar_moves_also_where_an_epoch_has_no_steps(terminal):
    terminal()
    bar, model = ProgressBar(), SimpleNamespace(max_iter=4)
    bar.on_fit_begin(model)
    bar.on_epoch_end(model, record(1))
    task = bar._live.tasks[0]
    assert (task.completed, task.total) == (0.25, 1.0)
    bar.on_fit_end(model)


def test_steps_that_are_quick_are_not_all_drawn(terminal):
    terminal()
    bar, model = ProgressBar(), SimpleNamespace(max_iter=1)
    bar.on_fit_begin(model)
    for done in range(1, 1000):
        bar.on_step_end(model, done, 10**9)
    assert bar._live.tasks[0].completed < 999 / 10**9
    bar.on_fit_end(model)


@pytest.mark.parametrize(("max_iter", "printed"), [(3, [1, 2, 3]), (50, [3, 5, 8, 10])])
def test_a_file_gets_about_twenty_lines_and_the_last(max_iter, printed, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar, model = ProgressBar(), SimpleNamespace(max_iter=max_iter)
    for _ in range(2):  # as by early stopping, after ten epochs
        fit(bar, [record(epoch) for epoch in range(1, 1 + min(10, max_iter))], model=model)
        lines = capsys.readouterr().out.splitlines()
        assert [int(line[6:].split("/")[0]) for line in lines] == printed
        assert all(line.isprintable() for line in lines)
        assert lines[-1].startswith(f"epoch {printed[-1]:{len(str(max_iter))}}/{max_iter}  loss 0.")
        assert lines[-1].endswith(" left")


def test_the_time_left_is_that_of_the_epochs_to_come(capsys, clock):
    bar, model = ProgressBar(), SimpleNamespace(max_iter=3)
    bar.on_fit_begin(model)
    clock.now += 90.0
    bar.on_epoch_end(model, record(1, validation_score=0.25))
    assert capsys.readouterr().out == "epoch 1/3  loss 1.0000  validation 0.2500  3:00 left\n"


def test_the_first_step_which_may_compile_does_not_count(terminal, clock):
    terminal()
    bar, model = ProgressBar(), SimpleNamespace(max_iter=10)
    bar.on_fit_begin(model)
    assert bar._live.tasks[0].fields["facts"] == "preparing the first step"
    clock.now += 18.0
    for done in range(1, 11):
        bar.on_step_end(model, done, 10)
        clock.now += 1.0
    assert bar._live.tasks[0].fields["left"] == "1:30 left"
    bar.on_fit_end(model)


def test_the_time_left_is_that_of_the_fit_where_it_ends_it(capsys, clock):
    bar, model = ProgressBar(), SimpleNamespace(max_iter=10**6, max_time=200.0)
    bar.on_fit_begin(model)
    for epoch in range(1, 41):
        clock.now += 5.0
        bar.on_epoch_end(model, record(epoch))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert lines[0].endswith(" 3:10 left")
    assert lines[-1].endswith(" 0:00 left")


def test_a_warm_start_is_shown_from_its_own_beginning(capsys):
    fit(ProgressBar(), [record(epoch) for epoch in (8, 9)])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]

"""The progress bar on a terminal, and its lines in a file."""

import re
import signal
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from fake_fit import fit, record
from helpers import last_line, wait_until

from mlp_xp._utils.signals import interrupts
from mlp_xp.callbacks import ProgressBar
from mlp_xp.training.loop.records import Running


@contextmanager
def begun(max_iter, **settings):
    """Yield a bar in a fit, and the fit's model."""
    bar, model = ProgressBar(), SimpleNamespace(max_iter=max_iter, **settings)
    bar.on_fit_begin(model)
    yield bar, model
    bar.on_fit_end(model)


def test_a_terminal_gets_a_bar_for_each_fit(terminal, clock):
    bar = ProgressBar()
    for _ in range(2):
        screen = terminal()
        fit(bar, [record(1), record(2, validation_score=0.75)])
        expected = r"epoch 2/2 ━+ 100 %  loss 0\.5000  validation 0\.7500  took 0:00"
        assert re.fullmatch(expected, last_line(screen.getvalue()))
        # The cursor comes back, and prints go to the terminal again.
        shown = screen.getvalue()
        assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
        assert sys.stdout is screen


@pytest.mark.parametrize(
    ("width", "facts"),
    [(40, ""), (50, r"  loss 0\.2500"), (80, r"  loss 0\.2500  validation 0\.7500")],
)
def test_progress_bar_fits_on_one_line(terminal, clock, monkeypatch, width, facts):
    monkeypatch.setenv("COLUMNS", str(width))
    screen = terminal()
    with begun(4) as (bar, model):
        bar.on_epoch_end(model, record(1, validation_score=0.75))
        bar.on_progress(model, 6, 10, Running(0.25, None))
    assert re.fullmatch(rf"epoch 2/4 ━+╸? +40 %{facts}  0:00 left", last_line(screen.getvalue()))
    assert len(last_line(screen.getvalue())) <= width


@pytest.mark.parametrize(
    ("scoring", "score", "shown"),
    [
        ("refinement", -0.25, "refinement 0.2500"),
        ("loss", -0.5, "validation loss 0.5000"),
        ("neg_log_loss", -0.25, "validation -0.2500"),
    ],
)
def test_a_loss_is_not_shown_negated(scoring, score, shown, capsys):
    with begun(1, scoring=scoring) as (bar, model):
        bar.on_epoch_end(model, record(1, validation_score=score, validation_loss=0.5))
    assert f"loss 1.0000  {shown}  " in capsys.readouterr().out


def test_the_time_left_ticks_between_two_reports(terminal, clock):
    screen = terminal()
    with begun(100) as (bar, model):
        clock.now += 0.05
        bar.on_epoch_end(model, record(1))
        wait_until(lambda: "0:05 left" in last_line(screen.getvalue()))
        clock.now += 1.4
        wait_until(lambda: "0:04 left" in last_line(screen.getvalue()))


def test_progress_bar_acknowledges_ctrl_c_at_once(terminal):
    screen = terminal()
    with interrupts(), begun(4) as (bar, model):
        bar.on_progress(model, 5, 10, None)
        signal.raise_signal(signal.SIGINT)
        wait_until(lambda: last_line(screen.getvalue()).endswith("12 %  stopping after this step"))
        bar.on_epoch_end(model, record(1))
    assert "100 %" not in screen.getvalue()


@pytest.mark.parametrize(("max_iter", "printed"), [(3, [1, 2, 3]), (50, [3, 5, 8, 10])])
def test_redirected_output_gets_about_twenty_lines_and_the_last_epoch(
    max_iter, printed, capsys, monkeypatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar, model = ProgressBar(), SimpleNamespace(max_iter=max_iter)
    for _ in range(2):  # as by early stopping, after ten epochs
        fit(bar, [record(epoch) for epoch in range(1, 1 + min(10, max_iter))], model=model)
        lines = capsys.readouterr().out.splitlines()
        assert [int(line[6:].split("/")[0]) for line in lines] == printed
        assert all(line.isprintable() for line in lines)
        assert lines[-1].startswith(f"epoch {printed[-1]:{len(str(max_iter))}}/{max_iter}  loss 0.")
        assert lines[-1].endswith(" left")


def test_progress_bar_estimates_time_left_from_epochs_or_max_time(capsys, clock):
    with begun(3) as (bar, model):
        clock.now += 90.0
        bar.on_epoch_end(model, record(1, validation_score=0.25))
    assert capsys.readouterr().out == "epoch 1/3  loss 1.0000  validation 0.2500  3:00 left\n"
    with begun(10**6, max_time=200.0) as (bar, model):
        for epoch in range(1, 41):
            clock.now += 5.0
            bar.on_epoch_end(model, record(epoch))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert [line.split("  ")[-1] for line in (lines[0], lines[-1])] == ["3:10 left", "0:00 left"]


def test_progress_bar_continues_after_resume_and_restarts_for_a_warm_start(capsys):
    bar, model = ProgressBar(), SimpleNamespace(max_iter=4, n_iter_=2)
    bar.on_fit_resume(model)
    for epoch in (3, 4):
        bar.on_epoch_end(model, record(epoch))
    bar.on_fit_end(model)
    fit(ProgressBar(), [record(epoch) for epoch in (8, 9)])
    lines = [line[:9] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["epoch 3/4", "epoch 4/4", "epoch 1/2", "epoch 2/2"]

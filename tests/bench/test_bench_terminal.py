"""What `mlp-xp bench` prints: tables of any width, and one line of progress."""

from __future__ import annotations

import io
import re

import pytest

OURS = "mlp_xp, NumPy"


def printed(module, result, file=None) -> list[str]:
    file = io.StringIO() if file is None else file
    module("terminal").print_tables(result, file)
    return re.sub(r"\x1b\[[\d;]*m", "", file.getvalue()).splitlines()


def line(lines: list[str], start: str, after: str = "") -> str:
    first = next(i for i, text in enumerate(lines) if text.startswith(after))
    return next(text for text in lines[first:] if text.startswith(start))


def test_narrow_terminals_lack_the_last_columns(module, result, terminal, monkeypatch):
    known = ["JAX", "800", "ms", "1.14", "12,800", "68%", "300"]
    for width, n_shown in ((80, 7), (50, 5)):
        screen = terminal()
        monkeypatch.setenv("COLUMNS", str(width))
        lines = printed(module, result, screen)
        assert line(lines, "JAX", "medium 3072").split() == known[:n_shown]
        assert max(map(len, lines)) <= width
        assert "…" not in "\n".join(lines)


def test_a_pipe_gets_all_columns_in_plain_text(module, result, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "50")
    file = io.StringIO()
    module("terminal").print_tables(result, file)
    assert "\x1b" not in file.getvalue()
    assert "800 ms to 800 ms" in line(file.getvalue().splitlines(), "JAX", "medium 3072")
    assert "import of MLPClassifier, after that of scikit-learn's  " in file.getvalue()


def test_what_could_not_be_compared_has_a_line_that_says_why(module, result):
    lines = printed(module, result)
    absent = "not compared: thinc is not installed"
    assert line(lines, "thinc", "medium 3072").endswith(absent)
    assert line(lines, "thinc", "start-up").endswith(absent)
    assert line(lines, "torch script").endswith("not compared: ModuleNotFoundError: torch")
    assert line(lines, "torch", "seconds of an epoch by images in a batch").endswith(absent)
    assert line(lines, "to compare with thinc too").endswith('[peers]"')

    # Without our own time no ratio is shown.
    medium = result["workloads"]["medium"]
    broken = {"cannot_run": "its process ended with status -9: \x1b[2Jkilled"}
    medium["contenders"][OURS] |= broken
    del medium["contenders"][OURS]["seconds"]
    result["drop_in"]["lbfgs, iris, threads 1"]["contenders"][OURS] = broken
    lines = printed(module, result)
    mark = r"not compared: its process ended with status -9: \x1b[2Jkilled"
    assert line(lines, OURS, "medium 3072").endswith(mark)
    assert "800 ms  not compared" in line(lines, "JAX", "medium 3072")
    script = line(lines, "lbfgs, iris, 1 thread", "as a drop-in")
    assert re.fullmatch(r".*thread +not compared +180 ms +not compared .*", script)
    assert line(lines, f"lbfgs, iris, 1 thread: {OURS}").endswith(mark)

    medium["contenders"] = {}
    said = line(printed(module, result), "the chosen contenders")
    assert said.endswith("not compared: they take no part in this")


def test_a_search_that_fails_is_reported(module, monkeypatch):
    searches = module("searches")
    done = searches.subprocess.CompletedProcess([], 1, "", "Traceback\nImportError: no jax\n")
    monkeypatch.setattr(searches.subprocess, "run", lambda *_, **__: done)
    turns: list[str] = []
    found = searches.measure_search(2, turns.append, ["jax"])
    assert turns == [f"jax, {who}, round 1 of 2" for who in (searches.OURS, searches.ALONE)]
    assert found["jax"]["contenders"][searches.OURS] == {"cannot_run": "ImportError: no jax"}
    assert "ImportError: no jax" in searches.search_section(found)
    table = module("terminal")._search_table(found["jax"])
    assert table.rows == []
    assert set(table.missing.values()) == {"ImportError: no jax"}


def run_two_parts(module) -> None:
    with module("progress").open_progress({"tiny": 2, "lab": 4}) as progress:
        progress.begin("tiny", "tiny 64-100-10")
        progress.announce("torch, warming up")  # It fails: there is no second turn.
        progress.begin("lab", "lab 3072-64-10")
        progress.announce("torch, warming up")
        progress.announce("torch, round 1 of 3")


def test_without_a_terminal_each_part_has_a_line(module, capsys):
    run_two_parts(module)
    assert capsys.readouterr().err.splitlines() == [
        "part 1 of 2, tiny 64-100-10  (0 s so far)",
        "part 2 of 2, lab 3072-64-10  (0 s so far)",
    ]


@pytest.mark.parametrize("width", [50, 80])
def test_a_terminal_has_one_line_of_progress(module, capsys, monkeypatch, width):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    run_two_parts(module)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().err)
    drawn = [" ".join(part.split()) for part in re.split(r"[\r\n]+", text) if part.strip()]
    assert max(map(len, drawn)) <= width
    assert re.fullmatch(r"1/2 tiny: torch, warm.*[━╸╺]+ 0 % 0:00 so far", drawn[1])
    # The part begins where the turns of the former one end.
    assert re.fullmatch(r"2/2 lab: preparing [━╸╺]+ 33 % \d:\d\d left", drawn[2])
    assert re.fullmatch(r"2/2 lab: torch, rou.*[━╸╺]+ 50 % \d:\d\d left", drawn[4])
    assert re.fullmatch(r"2/2 lab: done [━╸╺]+ 100 % took 0:00", drawn[-1])


def test_turns_are_counted_as_they_are_announced(module, monkeypatch):
    drop_in, startup = module("drop_in"), module("startup")
    chosen = drop_in.comparisons(quick=True)
    assert drop_in.drop_in_turns(chosen, 5) == len(chosen) * 2 * 6
    assert startup.startup_turns(7) == 4 * (len(startup.IMPORTS) + 1)
    turns: list[str] = []
    assert module("turns").measure({}, 3, turns.append) == {}
    assert turns == []
    monkeypatch.setattr(startup, "measure_process", lambda library: [1.0, 2.0])
    startup.measure_startup(2, turns.append)
    assert len(turns) == startup.startup_turns(2)
    assert turns[-1] == f"{startup.AFTER}, round 2 of 2"

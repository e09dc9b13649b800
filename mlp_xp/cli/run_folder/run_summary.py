"""Histories and summaries of runs, read from their folders without loading their networks."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from mlp_xp._utils.storage.files import TEXT_LIMIT, check_text, read_file
from mlp_xp.cli.run_folder.config import CONFIG, read_config
from mlp_xp.cli.terminal.text import readable
from mlp_xp.recipes import FILES
from mlp_xp.saving import encode
from mlp_xp.training.loop.records import Record

_CURE = "expected a folder that `mlp-xp train` wrote; `mlp-xp runs` lists them"
_LARGEST = 1e300  # Results with a larger magnitude are invalid.
_HISTORY = "history.csv"
# The curves to plot: axis label -> name of the curve -> column of the history.
CURVES = {
    "loss": {
        "training": "loss",
        "validation": "validation_loss",
        "refinement": "validation_refinement",
    },
    "accuracy [%]": {"training": "accuracy", "validation": "validation_accuracy"},
    "R²": {"validation": "validation_r2"},
    "score": {"validation": "validation_score"},
    "learning rate": {"": "learning_rate"},
}


class RunSummary(NamedTuple):
    """A run's folder, the content of its ``config.json``, and one row per epoch."""

    folder: Path
    config: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def params(self) -> dict[str, Any]:
        """The estimator's parameters as JSON values."""
        return cast("dict[str, Any]", self.config["settings"]["params"])

    @property
    def loss(self) -> str:
        """The loss, as text, with the unit of standardized targets."""
        loss = readable(self.params.get("loss")).replace("_", " ")
        return f"{loss} (standardized)" if self.params.get("target_scaling") else loss

    @property
    def data(self) -> str:
        """The name of the data set, or of the user's own file or folder."""
        name: str = self.config["settings"]["data"]
        return Path(self.config["settings"]["data_path"]).name if name == FILES else name

    @property
    def result(self) -> dict[str, Any]:
        """The result of the run; empty if the run has not ended."""
        return cast("dict[str, Any]", self.config.get("result", {}))

    @property
    def state(self) -> str:
        """The state of the run: "complete", "interrupted" or "not ended"."""
        if not self.result:
            return "not ended"
        return "interrupted" if self.result.get("interrupted") else "complete"

    @property
    def scores(self) -> dict[str, float]:
        """The test scores by name, the most important first; empty if the run has not ended."""
        return {name: value for name, value in self.result.items() if name.startswith("test_")}


def best_epoch(result: Mapping[str, Any]) -> int | None:
    """Return the epoch whose network was kept, or None if it is the last."""
    kept = result.get("kept_epoch")
    return None if kept == result.get("epochs") else kept


def read_summary(folder: Path) -> RunSummary:
    """Read the summary of a run; raise ValueError if the folder is damaged or not a run."""
    config = read_config(folder, _CURE)
    try:
        run = RunSummary(folder, config, read_history(folder))
        _check(run)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error!s:.200}"
        raise ValueError(f"{folder} is damaged or not a run ({reason}): {_CURE}") from error
    return run


def _check(run: RunSummary) -> None:
    """Raise TypeError for values that tables and reports cannot show."""
    config, result = run.config, run.result
    mappings = (run.params, config["backend"], config.get("versions", {}), result)
    texts = (run.data, config["backend"].get("name", ""))
    for values, kind in ((mappings, dict), (texts, str)):
        for value in values:
            if not isinstance(value, kind):
                raise TypeError(f"expected a {kind.__name__}, got {value!r:.80}")
    for name in (*run.scores, "epochs", "seconds", "images_per_second"):
        if not (type(result.get(name, 0)) in (int, float) and abs(result.get(name, 0)) < _LARGEST):
            raise TypeError(f"{name} must be a number, got {result[name]!r:.80}")
    readable([*run.params.values()])


def find_runs(folder: Path) -> Iterator[tuple[Path, RunSummary | None]]:
    """Yield the folder and summary of each run, by name; the summary of a damaged run is None."""
    for path in sorted(folder.glob(f"*/{CONFIG}")):
        try:
            yield path.parent, read_summary(path.parent)
        except (OSError, ValueError):
            if _is_of_run(path):
                yield path.parent, None


def _is_of_run(path: Path) -> bool:
    """Whether an invalid ``config.json`` may be from a run rather than from another program."""
    try:
        return "settings" in read_config(path.parent, _CURE)
    except (OSError, ValueError):
        return True


def changed_settings(model: Any, params: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters that differ from the estimator's defaults, as text."""
    defaults = type(model)().get_params(deep=False)
    return {
        name: readable(value)
        for name, value in params.items()
        if name not in defaults or value != encode(name, defaults[name], name)
    }


def date_of(folder: Path) -> str:
    """Return the time at which a run last wrote its settings or result."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime((folder / CONFIG).stat().st_mtime))


def history_rows(records: Sequence[Record], score: str) -> list[dict[str, Any]]:
    """Return one row per record, with the validation score in the column ``validation_<score>``.

    Scores that are negative losses are converted to losses. ``validation_loss`` is always a column.
    """
    rows = []
    for record in records:
        row = record._asdict()
        value = row.pop("validation_score")
        if score != "loss":
            is_loss = score == "refinement" and value is not None
            row[f"validation_{score}"] = -value if is_loss else value
        rows.append(row)
    return rows


def write_history(folder: Path, records: Sequence[Record], score: str) -> None:
    """Write ``history.csv``, with one row per epoch."""
    blank = Record._make([None] * len(Record._fields))
    names, *rows = history_rows([blank, *records], score)
    with (folder / _HISTORY).open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of ``history.csv``, with None for missing values; [] if it does not exist."""
    path = folder / _HISTORY
    if not path.exists():
        return []
    content = read_file(path, TEXT_LIMIT)
    try:
        check_text(content, b",\n\r")
        names, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
        return [
            {name: float(text) if text else None for name, text in zip(names, row, strict=True)}
            for row in rows
        ]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{_HISTORY}: {error}") from error

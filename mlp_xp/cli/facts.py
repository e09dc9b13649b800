"""The facts about runs, from the files in their folders, without their networks."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp.cli.options import FILES
from mlp_xp.cli.runs import CONFIG
from mlp_xp.saving import encode, read_json

__all__ = [
    "Run",
    "changed_settings",
    "date_of",
    "find_runs",
    "number_text",
    "read_facts",
    "readable",
    "score_name",
    "score_text",
    "seconds_text",
    "value_text",
]

_CURE = "expected a folder that `mlp-xp train` wrote; `mlp-xp runs` lists them"
_LARGEST = 1e300  # Of a number in a result.


class Run(NamedTuple):
    """The facts about a run.

    Attributes
    ----------
    folder : Path
    config : dict
        The content of ``config.json``.
    history : list of dict
        A row for each epoch, with None where nothing was measured.
    """

    folder: Path
    config: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the estimator, as JSON has them."""
        params: dict[str, Any] = self.config["settings"]["params"]
        return params

    @property
    def data(self) -> str:
        """The name of the data set, or of the user's own file or folder."""
        name: str = self.config["settings"]["data"]
        return Path(self.config["settings"]["data_path"]).name if name == FILES else name

    @property
    def result(self) -> dict[str, Any]:
        """The result; empty where the run has not ended."""
        result: dict[str, Any] = self.config.get("result", {})
        return result

    @property
    def state(self) -> str:
        """Whether the run is complete."""
        if not self.result:
            return "not ended"
        return "interrupted" if self.result.get("interrupted") else "complete"

    @property
    def scores(self) -> dict[str, float]:
        """The test scores by name, the most important first; empty where the run has not ended."""
        return {name: value for name, value in self.result.items() if name.startswith("test_")}

    @property
    def score(self) -> tuple[str, float] | None:
        """The name of the first test score and its value, None where the run has not ended."""
        return next(iter(self.scores.items()), None)


def read_facts(folder: Path) -> Run:
    """Read the facts about a run.

    Raises
    ------
    ValueError
        If the folder is not that of a run, or is damaged.
    """
    config = read_json(folder / CONFIG, _CURE)
    try:
        run = Run(folder, config, _read_history(folder / "history.csv"))
        _check(run)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, csv.Error) as error:
        raise ValueError(f"{folder} is damaged, or no run ({error!r:.200}): {_CURE}") from error
    return run


def _check(run: Run) -> None:
    """Raise an error where the files hold other kinds of values than tables and pages show."""
    config, result = run.config, run.result
    mappings = (run.params, config["backend"], config.get("versions", {}), result)
    texts = (run.data, config["backend"].get("name", ""))
    for values, kind in ((mappings, dict), (texts, str)):
        for value in values:
            if not isinstance(value, kind):
                raise TypeError(f"{value!r:.80} is no {kind.__name__}")
    for name in (*run.scores, "epochs", "seconds", "images_per_second"):
        if not (type(result.get(name, 0)) in (int, float) and abs(result.get(name, 0)) < _LARGEST):
            raise TypeError(f"{name} is {result[name]!r:.80}, expected a number")
    readable([*run.params.values()])


def find_runs(folder: Path) -> Iterator[tuple[Path, Run | None]]:
    """Yield the runs in a folder by their names, also those in progress; None where damaged."""
    for path in sorted(folder.glob(f"*/{CONFIG}")):
        try:
            yield path.parent, read_facts(path.parent)
        except (OSError, ValueError):
            if _is_of_run(path):
                yield path.parent, None


def _is_of_run(path: Path) -> bool:
    """Whether a configuration that cannot be read may be that of a run, not of another program."""
    try:
        return "settings" in read_json(path, _CURE)
    except (OSError, ValueError):
        return True


def _read_history(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: float(text) if text else None for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def changed_settings(model: Any, params: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters that differ from the defaults of an estimator, for a reader.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.cli.facts import changed_settings
    >>> changed_settings(MLPClassifier(), {"hidden_layer_sizes": {"tuple": [8, 4]}, "alpha": 1e-4})
    {'hidden_layer_sizes': '8, 4'}
    """
    defaults = type(model)().get_params(deep=False)
    return {
        name: readable(value)
        for name, value in params.items()
        if name not in defaults or value != encode(name, defaults[name], name)
    }


def readable(value: Any) -> str:
    """Return a setting as a reader expects it, from the form that JSON has.

    Examples
    --------
    >>> from mlp_xp.cli.facts import readable
    >>> readable({"class": "AdamW", "weight_decay": 0.05})
    'AdamW(weight_decay=0.05)'
    >>> readable({"tuple": [512, 256]}), readable({"float": "inf"}), readable(None)
    ('512, 256', 'inf', 'none')
    """
    if isinstance(value, dict) and "class" in value:
        given = ", ".join(f"{k}={readable(v)}" for k, v in value.items() if k != "class")
        return f"{value['class']}({given})"
    if isinstance(value, dict) and len(value) == 1:
        (form, content), *_ = value.items()
        return readable(content) if form in ("tuple", "float") else str(content)
    if isinstance(value, list):
        return ", ".join(map(readable, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def score_name(name: str) -> str:
    """Return the name of a score for a reader.

    Examples
    --------
    >>> from mlp_xp.cli.facts import score_name
    >>> score_name("test_accuracy"), score_name("test_rmse")
    ('test accuracy', 'test RMSE')
    """
    part, _, metric = name.partition("_")
    return f"{part} {metric if metric == 'accuracy' else metric.upper()}"


def score_text(name: str, value: float) -> str:
    """Return a score, an accuracy in percent.

    Examples
    --------
    >>> from mlp_xp.cli.facts import score_text
    >>> score_text("test_accuracy", 0.5901), score_text("test_r2", 0.93)
    ('59.01 %', '0.9300')
    >>> score_text("test_rmse", 21345.6)
    '21,346'
    """
    if name.endswith("accuracy"):
        return f"{100 * value:.2f} %"
    return f"{value:.4f}" if name.endswith("r2") and value > -10 else value_text(value)


def value_text(value: float) -> str:
    """Return a number to predict, or an error of it, to four digits or more.

    Examples
    --------
    >>> from mlp_xp.cli.facts import value_text
    >>> value_text(231456.7), value_text(3.14159), value_text(-0.00012345)
    ('231,457', '3.142', '-0.0001234')
    """
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e15 else f"{value:.4g}"


def seconds_text(seconds: float) -> str:
    """Return a time of three digits or so.

    Examples
    --------
    >>> from mlp_xp.cli.facts import seconds_text
    >>> seconds_text(0.5123), seconds_text(27.84), seconds_text(3671.0)
    ('0.51 s', '27.8 s', '1:01:11')
    """
    if seconds >= 100:
        minutes, whole = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d} min"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"


def number_text(value: float) -> str:
    """Return a count with separators."""
    return "" if not math.isfinite(value) else f"{value:,.0f}"


def date_of(folder: Path) -> str:
    """Return when a run last wrote its settings or result."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime((folder / CONFIG).stat().st_mtime))

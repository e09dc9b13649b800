"""The finished configurations of a tuned ensemble's search, to resume it from."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.storage.durable import make_folder, replacing
from mlp_xp.estimators.tuning.search import Search, Trial
from mlp_xp.saving import load_model, read_json, save_model
from mlp_xp.saving._files import errors_name

_CURE = "expected a folder that SearchCheckpoint wrote"


class SearchCheckpoint:
    """The finished configurations of a search, stored in a folder.

    Pass it to `fit` of a tuned ensemble. If the search is interrupted, the same call to `fit`
    resumes after the last finished configuration, with the remaining time.

    Parameters
    ----------
    folder : str or path-like
        Created if missing. Delete it when the search is complete.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> from mlp_xp import MLPClassifier, MLPTunedClassifier
    >>> from mlp_xp.callbacks import SearchCheckpoint
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPTunedClassifier(MLPClassifier(5, max_iter=9), n_folds=2, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept = SearchCheckpoint(folder)
    ...     model = model.set_params(n_configurations=2).fit(X, y, checkpoint=kept)
    ...     model = model.set_params(n_configurations=3).fit(X, y, checkpoint=kept)  # One more.
    >>> len(model.search_results_["name"])
    3
    """

    file = "search.json"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    @property
    def n_folds(self) -> int | None:
        """The number of folds in the stored search; None if nothing is stored."""
        known = self._stored()
        return None if known is None else int(known["n_folds"])

    def _stored(self) -> dict[str, Any] | None:
        path = self.folder / self.file
        return read_json(path, _CURE) if path.exists() else None

    def begin(self, search: Search, n_folds: int) -> None:
        """Read a search's stored results, and store the results of each trial it finishes.

        Raises
        ------
        ValueError
            If the folder belongs to a search with different settings or data.
        """
        make_folder(self.folder)
        identity, known = search.identity(), self._stored()
        if known is not None:
            if known.get("identity") != identity:
                raise ValueError(
                    f"{self.folder} is of a search with other data, folds, settings or seed: use "
                    "the same ones, with an int as `random_state`, or another folder."
                )
            search.clock.start -= float(known["seconds"])
        self._content, self._search = {"identity": identity, "n_folds": n_folds}, search
        search.read, search.write = self._read, self._write

    def _read(self, trial: Trial) -> None:
        """Restore the results of a trial if they are stored."""
        number = trial.configuration.number
        path = self.folder / f"trial-{number}.json"
        if not path.exists():
            return
        with errors_name(path):
            stored = read_json(path, _CURE)
            trial.status = str(stored["status"])
            trial.losses = {i: float(loss) for i, loss in enumerate(stored["losses"])}
            trial.seconds = {i: float(seconds) for i, seconds in enumerate(stored["seconds"])}
        if trial.status != "complete":
            return
        with np.load(self.folder / f"trial-{number}.npz", allow_pickle=False) as outputs:
            trial.outputs = {i: outputs[f"fold_{i}"] for i in trial.losses}
        shared = self._search.samples.shared.names
        for i in trial.losses:
            network = load_model(self.folder / f"trial-{number}-fold-{i}")
            if "columns_" in shared:  # All networks use the same columns.
                network._state = replace(network._state, columns=shared["columns_"])
                network.columns_ = shared["columns_"]
            trial.networks[i] = network

    def _write(self, trial: Trial) -> None:
        """Store the results of a trial."""
        number = trial.configuration.number
        if trial.status == "complete":
            for i, network in trial.networks.items():
                save_model(network, self.folder / f"trial-{number}-fold-{i}")
            with replacing(self.folder / f"trial-{number}.npz") as new, new.open("wb") as file:
                arrays: Any = {f"fold_{i}": array for i, array in trial.outputs.items()}
                np.savez(file, **arrays)
        stored = {
            "status": trial.status,
            "losses": [*trial.losses.values()],
            "seconds": [*trial.seconds.values()],
        }
        self._write_json(f"trial-{number}.json", stored)
        seconds = time.perf_counter() - self._search.clock.start
        self._write_json(self.file, self._content | {"seconds": seconds})

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        with replacing(self.folder / name) as new:
            new.write_text(json.dumps(content))

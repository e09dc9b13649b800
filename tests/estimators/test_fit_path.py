"""The files that a fit with the default settings passes through, as listed in the documentation."""

import re
import sys
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from sklearn.datasets import make_classification

import mlp_xp
from mlp_xp import MLPClassifier
from mlp_xp.callbacks import Callback

PACKAGE = Path(mlp_xp.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
# Decorators, whose functions only call the decorated function.
WRAPPERS = {"estimators/checks/processes.py", "_utils/signals/forks.py"}
# Preparation, the loop, a traced step, the printing of a loop, its linking and its run.
REACHED = {"make_loop", "FitLoop.run", "step", "print_kernel", "addresses", "ThreadPool.run"}


class StopAfterOneEpoch(Callback):
    def on_epoch_end(self, model, record):
        return True


def files_of_page():
    section = PAGE.read_text().split("## A fit, file by file")[1].split("\n## ")[0]
    return re.findall(r"^\| \[`[^]]*`\]\(\.\./mlp_xp/([^)]*)\)", section, re.MULTILINE)


@pytest.mark.usefixtures("machine_code")
def test_a_default_fit_runs_through_the_files_listed_on_the_page():
    pytest.importorskip("numba")
    X, y = make_classification(20_000, 40, random_state=0)
    network = {"hidden_layer_sizes": (256, 256), "max_iter": 10}  # Long enough for machine code.
    rest = {"n_iter_no_change": np.inf, "callbacks": [StopAfterOneEpoch()]}
    model = MLPClassifier(**network, **rest, random_state=0)
    reached, files = set(), set()

    def look(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(PACKAGE)):
            return
        name = code.co_qualname.rpartition("<locals>.")[2]
        if name in REACHED:
            reached.add(name)
            caller: FrameType | None = frame
            while caller is not None:
                file = Path(caller.f_code.co_filename)
                if file.is_relative_to(PACKAGE):
                    files.add(file.relative_to(PACKAGE).as_posix())
                caller = caller.f_back

    sys.setprofile(look)
    try:
        model.fit(X.astype(np.float32), y)
    finally:
        sys.setprofile(None)
    assert reached == REACHED
    assert files - WRAPPERS == set(files_of_page())

"""The page "Many machines": its job scripts, and its search on a cluster of dask."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers import PATIENCE
from sklearn.model_selection import GridSearchCV

from mlp_xp import MLP
from mlp_xp.datasets import load_digits
from mlp_xp.saving import load_model

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "many-machines.md").read_text(encoding="utf-8")
SCRIPTS = sorted((ROOT / "docs" / "jobs").glob("*.sh"))
(SEARCH,) = re.findall(r"^```python\n(import os\n.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)

in_bash = pytest.mark.skipif(os.name == "nt", reason="the scripts are for a shell")


def surroundings(**variables) -> dict[str, str]:
    """Return an environment with the programs of this one, each with one thread."""
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | variables
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return environment


def run(*command, cwd, **variables) -> str:
    """Return what a command prints."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=surroundings(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def script(name: str) -> tuple[str, str]:
    return "bash", str(ROOT / "docs" / "jobs" / name)


def test_the_page_names_every_script():
    assert {path.name for path in SCRIPTS} == set(re.findall(r"\(jobs/(\S+)\)", PAGE))


@in_bash
@pytest.mark.parametrize("path", SCRIPTS)
def test_no_script_has_a_syntax_error(path):
    run("bash", "-n", str(path), cwd=ROOT)
    assert os.access(path, os.X_OK), path


@in_bash
@pytest.mark.matrix
def test_search_on_a_local_cluster_matches_the_serial_search(tmp_path):
    data = load_digits()
    model = MLP((32,), max_iter=5, learning_rate="cosine", random_state=0)
    grid = {"alpha": [1e-4, 1e-2], "learning_rate_init": [1e-3, 1e-2]}
    search = GridSearchCV(model, grid, cv=2).fit(data.x_train, data.y_train)
    (tmp_path / "search.py").write_text(SEARCH)
    for command in ((sys.executable, "-Werror::UserWarning"), script("search.sh")):
        printed = run(*command, "search.py", cwd=tmp_path)
        assert printed == f"{search.best_params_} {search.best_score_:.3f}\n"


OPTIONS = "--data digits --hidden 16 --schedule cosine"


@in_bash
@pytest.mark.matrix
def test_the_hosts_script_trains_a_run(tmp_path):
    (tmp_path / "hosts").write_text("localhost:2\n")
    printed = run(*script("hosts.sh"), "hosts", cwd=tmp_path, OPTIONS=f"{OPTIONS} --epochs 2")
    assert printed.count("epoch 2/2") == 1
    assert load_model(tmp_path / "runs" / "mine").n_iter_ == 2
    again = run(*script("hosts.sh"), "hosts", cwd=tmp_path, OPTIONS=f"{OPTIONS} --epochs 2")
    assert "mine is complete after 2 epochs: nothing to train" in again


@in_bash
@pytest.mark.matrix
def test_slurm_script_resumes_after_sigterm(tmp_path):
    command = script("slurm.sh")
    variables = {"OPTIONS": f"{OPTIONS} --epochs 200 --checkpoint 20", "RUN": "mine"}
    environment = surroundings(**variables)
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=-1, text=True
    ) as job:
        assert job.stdout is not None
        assert any("epoch  20/200" in line for line in job.stdout)
        job.send_signal(signal.SIGTERM)  # To the shell of the job alone, as Slurm does.
        _, err = job.communicate(timeout=PATIENCE)
    assert job.returncode == 143, err
    assert (tmp_path / "mine.partial").exists()
    assert "resumed after" in run(*command, cwd=tmp_path, **variables)
    assert load_model(tmp_path / "mine").n_iter_ == 200
    assert "mine is complete after 200 epochs" in run(*command, cwd=tmp_path, **variables)


TRAIN = """
from mlp_xp import MLP
from mlp_xp.datasets import load_digits

data = load_digits()
model = MLP((16,), max_iter=2, learning_rate="cosine", random_state=0, distributed="torch")
model.fit(data.x_train, data.y_train)
print(f"loss {model.loss_:.4f}")
"""


@in_bash
@pytest.mark.matrix
def test_the_torchrun_script_trains_on_two_ranks(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "train.py").write_text(TRAIN)
    printed = run(*script("torchrun.sh"), "train.py", cwd=tmp_path, RANKS="2", PORT="0")
    data = load_digits()
    whole = MLP((16,), max_iter=2, learning_rate="cosine", random_state=0)
    loss = whole.fit(data.x_train, data.y_train).loss_
    # The ranks share one stream without a buffer, so a line's end may come after the other's text.
    assert re.findall(r"loss \d+\.\d{4}", printed) == [f"loss {loss:.4f}"] * 2

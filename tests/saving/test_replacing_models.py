"""A model is replaced as a whole, for readers, and after errors, kills and a second writer."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from saved_models import X, fitted

from mlp_xp._utils.durable import locked
from mlp_xp.saving import SavingError, load_model, save_model

NAMED = re.compile(r"model-[0-9a-f]{16}\.safetensors")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def same(model, other) -> bool:
    return model.predict_proba(X).tobytes() == other.predict_proba(X).tobytes()


def test_the_weights_of_a_replaced_model_are_named_by_their_content(tmp_path):
    first, second = fitted(), fitted(random_state=1)
    save_model(first, tmp_path)
    assert names(tmp_path) == ["model.json", "model.safetensors"]
    seen = []
    for model in (second, first, first, second):
        save_model(model, tmp_path)
        weights = names(tmp_path)[0]
        assert NAMED.fullmatch(weights)
        assert names(tmp_path) == [weights, "model.json"]
        assert json.loads((tmp_path / "model.json").read_text())["weights"] == weights
        assert same(load_model(tmp_path), model)
        seen.append(weights)
    assert seen[1] == seen[2]
    assert seen[0] == seen[3] != seen[1]


@pytest.mark.parametrize("name", ["../other.safetensors", "model-1.safetensors", 3, None, "model"])
def test_the_name_of_the_weights_is_one_that_a_save_gives(name, tmp_path):
    save_model(fitted(), tmp_path)
    path = tmp_path / "model.json"
    spec = json.loads(path.read_text())
    path.write_text(json.dumps(spec | {"format_version": 5, "weights": name}))
    with pytest.raises(SavingError, match=r"weights is .*, not such as 'model-e3b0c44298fc1c14"):
        load_model(tmp_path)


def test_a_reader_gets_the_old_model_or_the_new_one(tmp_path):
    models = [fitted(), fitted(random_state=1)]
    expected = {model.coefs_[0].tobytes() for model in models}
    save_model(models[0], tmp_path)
    is_over, found, errors = threading.Event(), [], []

    def read() -> None:
        while not is_over.is_set():
            try:
                found.append(load_model(tmp_path).coefs_[0].tobytes())
            except Exception as error:
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    n_saved = 0
    while not errors and (n_saved < 150 or set(found) < expected):
        save_model(models[n_saved % 2], tmp_path)
        n_saved += 1
    is_over.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert set(found) == expected


# Save a model in child processes, the n-th of which is killed before its n-th access to a file of
# the folder, until one is not; print each one's exit status, and wait for a line.
SAVE = """
import os, signal, sys
folder, tests = sys.argv[1:]
sys.path.insert(0, tests)
from saved_models import fitted
from mlp_xp.saving import save_model

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
countdown = 0

def watch(event, args):
    global countdown
    if countdown and event in EVENTS and any(folder in str(arg) for arg in args):
        countdown -= 1
        if not countdown:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
model = fitted(random_state=1)
for number in range(1, 100):
    pid = os.fork()
    if pid == 0:
        countdown = number
        save_model(model, folder)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    if not sys.stdin.readline():
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("has_old", [True, False])
def test_a_kill_before_any_access_to_a_file_leaves_a_whole_model(has_old, tmp_path):
    folder = tmp_path / "model"
    old, new = fitted(), fitted(random_state=1)
    tests = str(Path(__file__).parent)
    command = [sys.executable, "-W", "ignore", "-c", SAVE, str(folder), tests]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        outcomes = []
        if has_old:
            save_model(old, folder)
        for line in process.stdout:
            status = int(line)
            try:
                loaded = load_model(folder)
            except SavingError:
                assert not has_old
                outcomes.append("none")
            else:
                outcomes.append("new" if same(loaded, new) else "old" if same(loaded, old) else "?")
            if status == 0:
                break
            assert status == -signal.SIGKILL
            if has_old:  # Over what the killed one left.
                save_model(old, folder)
                assert len(names(folder)) == 2
            process.stdin.write("\n")
            process.stdin.flush()
        process.stdin.close()
    assert outcomes[-1] == "new"
    assert set(outcomes) == {"old" if has_old else "none", "new"}
    assert len(outcomes) > 8
    assert len(names(folder)) == 2  # All that was left is swept.


def test_a_second_writer_is_an_error_that_says_what_to_do(tmp_path):
    save_model(fitted(), tmp_path)
    with (
        locked(tmp_path),
        pytest.raises(BlockingIOError, match=r"is writing to this folder: wait .* choose another"),
    ):
        save_model(fitted(random_state=1), tmp_path)
    assert same(load_model(tmp_path), fitted())
    save_model(fitted(random_state=1), tmp_path)


def test_every_file_is_on_the_disk_before_the_rename_that_commits_it(tmp_path, monkeypatch):
    events: list[tuple[str, str]] = []
    sync, replace = os.fsync, Path.replace
    paths = {}

    def opened(path, *args, real=os.open, **kwargs):
        descriptor = real(path, *args, **kwargs)
        paths[descriptor] = Path(path).name
        return descriptor

    def synced(descriptor):
        events.append(("flush", paths[descriptor]))
        sync(descriptor)

    def replaced(path, target):
        events.append(("rename", path.name))
        return replace(path, target)

    save_model(fitted(), tmp_path)
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    save_model(fitted(random_state=1), tmp_path)
    kinds = [kind for kind, _ in events]
    assert kinds == ["flush", "rename", "flush"] * 2
    for i in (0, 3):
        assert events[i][1] == events[i + 1][1]  # The file itself, under its temporary name.
        assert events[i + 2][1] == tmp_path.name
    assert "safetensors" in events[0][1]
    assert "model.json" in events[3][1]


def test_two_processes_that_save_leave_a_whole_model(tmp_path):
    models = [fitted(random_state=i) for i in range(4)]
    refused = []

    def write(model) -> None:
        for _ in range(20):
            try:
                save_model(model, tmp_path)
            except BlockingIOError as error:
                refused.append(error)

    writers = [threading.Thread(target=write, args=(model,)) for model in models]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    loaded = load_model(tmp_path)
    assert any(same(loaded, model) for model in models)
    assert len(names(tmp_path)) == 2
    assert len(refused) < 80
    np.testing.assert_equal(any(name.endswith(".partial") for name in names(tmp_path)), False)

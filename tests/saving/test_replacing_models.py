"""A model is replaced as a whole, for readers, and after errors, kills and a second writer."""

import contextlib
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import processes
import pytest
from saved_models import X, fitted, spec_of

from mlp_xp import saving
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
        assert spec_of(tmp_path)["weights"] == weights
        assert same(load_model(tmp_path), model)
        seen.append(weights)
    assert seen[1] == seen[2]
    assert seen[0] == seen[3] != seen[1]


def test_a_model_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    old, new = fitted(), fitted(random_state=1)
    save_model(old, tmp_path)
    read, paths = saving.read_header, []

    def replaced(path):
        paths.append(path)
        if len(paths) == 1:
            save_model(new, tmp_path)
        return read(path)

    monkeypatch.setattr(saving, "read_header", replaced)
    assert same(load_model(tmp_path), new)
    assert len(paths) == 2


@pytest.mark.matrix
def test_readers_and_writers_at_once_get_and_leave_whole_models(tmp_path):
    models = [fitted(random_state=i) for i in range(2)]
    expected = {model.coefs_[0].tobytes() for model in models}
    save_model(models[0], tmp_path)
    found = set()

    def read():
        found.add(load_model(tmp_path).coefs_[0].tobytes())

    def write(model):
        while True:  # Until the other writer is done.
            with contextlib.suppress(BlockingIOError):
                return save_model(model, tmp_path)

    with ThreadPoolExecutor(4) as pool:
        tasks = [(read,), (read,), *((write, model) for model in models)] * 20
        for task in [pool.submit(*task) for task in tasks]:
            task.result()
    read()
    assert found == expected
    assert len(names(tmp_path)) == 2


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


@pytest.mark.matrix
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("has_old", [True, False])
def test_a_kill_before_any_access_to_a_file_leaves_a_whole_model(has_old, tmp_path):
    folder = tmp_path / "model"
    old, new = fitted(), fitted(random_state=1)
    outcomes = []
    if has_old:
        save_model(old, folder)
    with processes.start(SAVE, folder, Path(__file__).parent) as process:
        for line in process.stdout:
            try:
                loaded = load_model(folder)
            except SavingError:
                assert not has_old
                outcomes.append("none")
            else:
                outcomes.append("new" if same(loaded, new) else "old" if same(loaded, old) else "?")
            if int(line) == 0:
                break
            assert int(line) == -signal.SIGKILL
            if has_old:  # Over what the killed one left.
                save_model(old, folder)
                assert len(names(folder)) == 2
            process.stdin.write("\n")
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
    events, paths = [], {}

    def opened(path, *args, real=os.open, **kwargs):
        descriptor = real(path, *args, **kwargs)
        paths[descriptor] = Path(path).name
        return descriptor

    def replaced(path, target, real=Path.replace):
        events.append(("rename", path.name))
        return real(path, target)

    save_model(fitted(), tmp_path)
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", lambda file: events.append(("flush", paths[file])))
    monkeypatch.setattr(Path, "replace", replaced)
    save_model(fitted(random_state=1), tmp_path)
    assert [kind for kind, _ in events] == ["flush", "rename", "flush"] * 2
    for i, part in (0, "safetensors"), (3, "model.json"):
        flushed, renamed, folder = (name for _, name in events[i : i + 3])
        assert part in flushed == renamed  # Under its temporary name.
        assert folder == tmp_path.name

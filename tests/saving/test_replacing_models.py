"""A model is replaced as a whole, or not at all: after errors, kills, and with other writers."""

import math
import os
import re
import runpy
import signal
from pathlib import Path

import numpy as np
import processes
import pytest
from helpers import names
from models import CODES, X, fitted, regressor, rejects, same_bits, spec_of
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPClassifier as SklearnClassifier

from mlp_xp import MLPClassifier, saving
from mlp_xp._utils.storage import durable
from mlp_xp._utils.storage.durable import locked
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.export import from_sklearn
from mlp_xp.nn.losses import Custom
from mlp_xp.optimizers import SGD
from mlp_xp.saving import SavingError, check_can_save, load_model, save_model

NAMED = re.compile(r"model-[0-9a-f]{16}\.safetensors")


def same(model, other) -> bool:
    return model.predict_proba(X).tobytes() == other.predict_proba(X).tobytes()


def test_weights_files_of_replaced_models_are_named_by_content(tmp_path):
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


def test_a_model_replaced_during_loading_is_read_again(tmp_path, monkeypatch):
    old, new, read, paths = fitted(), fitted(random_state=1), saving.read_header, []
    save_model(old, tmp_path)

    def replaced(path):
        paths.append(path)
        if len(paths) == 1:
            save_model(new, tmp_path)
        return read(path)

    monkeypatch.setattr(saving, "read_header", replaced)
    assert same(load_model(tmp_path), new)
    assert len(paths) == 2


# Save a model in child processes, the n-th of which is killed before its n-th access to a file of
# the folder, until one is not; print each one's exit status, and wait for a line.
SAVE = """
import os, signal, sys
folder, tests = sys.argv[1:]
sys.path.insert(0, tests)
from models import fitted
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
def test_a_kill_before_any_file_access_leaves_a_complete_model(has_old, tmp_path):
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
    first, second = fitted(), fitted(random_state=1)
    save_model(first, tmp_path)
    with locked(tmp_path), pytest.raises(BlockingIOError, match=r"wait .* choose another"):
        save_model(second, tmp_path)
    assert same(load_model(tmp_path), first)
    save_model(second, tmp_path)


def test_on_windows_the_lock_file_is_beside_the_folder_so_it_can_be_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    theirs = runpy.run_path(durable.__file__)
    folder = tmp_path / "run"
    folder.mkdir()
    with theirs["locked"](folder):
        assert names(tmp_path) == [".run.lock", "run"]
        assert not names(folder)
        theirs["rename_folder"](folder, tmp_path / "new")
    assert names(tmp_path) == ["new"]


def test_every_file_is_flushed_to_disk_before_the_rename(tmp_path, monkeypatch):
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
    kinds, names = zip(*events, strict=True)
    assert kinds == ("flush", "rename", "flush") * 2
    for i, part in (0, "safetensors"), (3, "model.json"):
        assert part in names[i] == names[i + 1]  # Under its temporary name.
        assert names[i + 2] == tmp_path.name


def my_function(*_, **__):
    """Stand for an activation, a loss or a scorer of the user's own."""


def test_settings_that_json_cannot_represent_cannot_be_saved(tmp_path):
    mine, custom = type("Mine", (SGD,), {})(), Custom(my_function, "exp")
    check_can_save(fitted())
    for params, message in (
        ({"solver": mine}, r"solver is .*Mine.* no JSON form: use a string"),
        ({"activation": my_function}, r"activation is .*my_function.* pickle or joblib"),
        ({"activation": ["relu", my_function]}, r"activation is .*my_function"),
        ({"loss": my_function}, r"loss is .*my_function.* pickle or joblib"),
        ({"loss": custom}, r"loss is Custom\(.* mlp_xp\.nn\.losses"),
        ({"scoring": my_function}, r"scoring is .*my_function.*set_params\(scoring=None\)"),
    ):
        model = regressor().set_params(**params)
        rejects(message, save_model, model, tmp_path)
        rejects(message, check_can_save, model, name=params)
    for save in (check_can_save, lambda model: save_model(model, tmp_path)):
        with pytest.raises(NotFittedError):
            save(MLPClassifier())
    model = fitted()
    model.classes_ = np.asarray([1, "a", None], dtype=object)
    rejects(r"classes_ are of dtype object.*y\.astype\(str\)", save_model, model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_saving_rejects_parameters_changed_since_the_fit(tmp_path):
    model = regressor()
    before = model.get_params()
    for changed, message in (
        ({"residual": True}, r"the fit had Network\(.*residual=False.* they say .*residual=True"),
        ({"hidden_layer_sizes": (6,)}, r"the fit had Network\(.* they say Network\(.*6, 2\)"),
        ({"input_scaling": "standardize"}, "the fit had None, but now they say 'standardize'"),
        ({"precision": "float64"}, "the fit had 'float32', but now they say 'float64'"),
        ({"loss": "huber"}, r"had SquaredError\(\), but now they say Huber\(delta=1\.0\); set"),
        ({"output_activation": "exp"}, "out_activation is 'identity', but params imply 'exp'"),
        ({"alpha": -1.0}, "changed since the fit: The 'alpha' parameter"),
        ({"dropout": [0.1]}, "changed since the fit: `dropout` must be a single value"),
    ):
        rejects(message, save_model, model.set_params(**before | changed), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_diverged_model_is_never_saved(tmp_path):
    model = fitted(normalization="batch", input_scaling="standardize")
    save_model(model, tmp_path)
    good = load_model(tmp_path)
    for name, array in {
        "layers.1.W": model.coefs_[1],
        "layers.0.b": model.intercepts_[0],
        "moments.1.variance": model.moments_[1].variance,
        "scaling.shift": fitted_state(model).scaling.shift,
    }.items():
        first, before = (0,) * array.ndim, array.flat[0]
        for value in (math.nan, math.inf, -math.inf):
            array[first] = value
            said = f"'{name}' has NaN or infinity.* smaller learning_rate"
            rejects(said, save_model, model, tmp_path)
        array[first] = before
    same_bits(load_model(tmp_path).coefs_, good.coefs_, "the model that was there")


def test_objects_that_cannot_be_saved_are_rejected_with_an_alternative(tmp_path):
    theirs = SklearnClassifier(2, max_iter=400, tol=1).fit(X, CODES)
    other = type("MLPClassifier", (), {"__module__": "elsewhere"})()
    for model, message in (
        (Ridge().fit(X, CODES), r"^Ridge is not an .*: use pickle or joblib"),
        (theirs, r"^sklearn's MLPClassifier is .*: convert it with mlp_xp\.export\.from_sklearn$"),
        (other, r"^elsewhere's MLPClassifier is .* use pickle"),
        *((kind, rf"^the class {kind.__name__} .*instance$") for kind in (MLPClassifier, Ridge)),
        (str(tmp_path), r"type save_model\(estimator, folder\)"),
    ):
        rejects(message, save_model, model, tmp_path)
    assert list(tmp_path.iterdir()) == []
    save_model(from_sklearn(theirs), tmp_path)


def test_loading_error_suggests_a_nearby_model_folder(tmp_path):
    save_model(fitted(), tmp_path / ".good.0123abcd.partial")  # Left by a save that was killed.
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / ("long" * 100)):
        rejects(r"a folder that mlp_xp.saving.save_model wrote$", load_model, folder)
    save_model(fitted(), tmp_path / "mine")
    said = f"wrote, such as {re.escape(str(tmp_path / 'mine'))}$"
    for wrong in (tmp_path, tmp_path / "mine" / "model.json"):
        rejects(said, load_model, wrong)


@pytest.mark.parametrize("number", [1, 2])
def test_a_failed_save_keeps_the_old_model(number, tmp_path, monkeypatch):
    old, new = fitted(), fitted(random_state=1, alpha=0.5)
    save_model(old, tmp_path)
    write, written = Path.write_bytes, []

    def full_disk(path, content):
        written.append(path)
        if len(written) == number:
            write(path, content[:10])
            raise OSError("No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(new, tmp_path)
    assert names(tmp_path) == ["model.json", "model.safetensors"]
    loaded = load_model(tmp_path)
    assert loaded.alpha == old.alpha
    assert same(loaded, old)

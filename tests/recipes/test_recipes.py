"""Recipes: every setting in a file, and an error that says what to type."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import bounded, mutate

from mlp_xp import MLP, MLPRegressor, recipes
from mlp_xp.optimizers import Muon
from mlp_xp.optimizers.schedules import Linear, LinearWarmup
from mlp_xp.recipes import names, read_recipe, recipe_parameters

# Without torch.
pytestmark = pytest.mark.filterwarnings("ignore:torch, which the recipe:UserWarning")

FOLDER = Path(recipes.__file__).parent
TABLES = {"table", "table-fast", "table-best", "table-tuned"}
WHOLE = """
description = "a test"
data = "digits"
hidden_layer_sizes = [8, 4]
activation = ["relu", "tanh"]
solver = {class = "Muon", ns_steps = 3, weight_decay = 0.02}
learning_rate = {class = "LinearWarmup", fraction = 0.2, then = {class = "Linear", final = 0.1}}
label_smoothing = 0.1
n_iter_no_change = inf
max_time = 1.5
"""


@pytest.fixture
def write(tmp_path):
    def write(line=""):
        key = re.match("[a-z_]*", line)[0] or "nothing"
        path = tmp_path / "mine.toml"
        path.write_text(re.sub(rf"(?m)^{key} .*\n", "", WHOLE) + line)
        return path

    return write


def test_every_documented_recipe_is_complete():
    promised = {"one-minute", "five-minutes", "ten-minutes", "hour", "record", "fashion-mnist"}
    assert set(names()) == promised | {"default"} | TABLES
    assert {file.suffix for file in FOLDER.iterdir() if file.is_file()} == {".py", ".toml"}
    for name in names():
        model = getattr(made := MLP.from_recipe(name, random_state=3), "estimator", made)
        assert made.random_state == 3
        read = read_recipe(name, recipe_parameters(MLP))
        assert read.description, name
        assert (read.data == "files") == (name in TABLES), name
        assert set(read.params) <= set(model.get_params()), name
        if name not in TABLES | {"default"}:
            assert model.max_time in (60, 300, 600, 3600), name
            assert model.max_iter == 100_000, name


def test_a_recipe_file_sets_parameters_by_name(write):
    model = MLP.from_recipe(write())
    expected = MLP(
        (8, 4),
        ("relu", "tanh"),
        solver=Muon(ns_steps=3, weight_decay=0.02),
        learning_rate=LinearWarmup(0.2, then=Linear(0.1)),
        label_smoothing=0.1,
        n_iter_no_change=float("inf"),
        max_time=1.5,
    )
    assert model.get_params() == expected.get_params()


def test_a_recipe_can_be_based_on_another(write):
    path = write()
    path.write_text('based_on = "table"\nalpha = 0.5\n[regression]\nmax_iter = 3\n')
    base, mine = MLPRegressor.from_recipe("table"), MLPRegressor.from_recipe(path)
    changed = {name for name, value in base.get_params().items() if getattr(mine, name) != value}
    assert changed == {"alpha", "max_iter"}
    assert mine.scoring == "loss"  # From the section [regression] of the recipe.


def test_a_recipe_can_have_a_table_of_constraints(write):
    path = write("[monotonic_cst]\nincome = 1\ndebt = -1\n")
    assert MLP.from_recipe(path).monotonic_cst == {"income": 1, "debt": -1}


def test_keyword_arguments_override_recipe_settings(write):
    model = MLP.from_recipe(str(write()), max_time=None, random_state=3)
    assert (model.max_time, model.random_state, model.label_smoothing) == (None, 3, 0.1)
    with pytest.raises(ValueError, match="Invalid parameter 'lable_smoothing'"):
        MLP.from_recipe("one-minute", lable_smoothing=0.1)
    path = write()
    path.write_text('description = "d"\ndata = "digits"\nloss = "huber"\nmax_iter = 7\n')
    model = MLPRegressor.from_recipe(path, random_state=0)
    assert (model.loss, model.max_iter, model.random_state) == ("huber", 7, 0)
    with pytest.raises(ValueError, match="'label_smoothing' is not one of"):
        MLPRegressor.from_recipe("one-minute")


def test_recipe_can_have_settings_for_only_one_task(write):
    path = write('[classification]\nalpha = 0.25\n[regression]\nloss = "huber"\n')
    assert MLP.from_recipe(path).alpha == 0.25
    path.write_text(path.read_text().replace("label_smoothing", "alpha"))
    assert (
        MLPRegressor.from_recipe(path).get_params().items()
        >= {"alpha": 0.1, "loss": "huber"}.items()
    )
    for name in TABLES:
        made = MLPRegressor.from_recipe(name), MLP.from_recipe(name)
        regressor, classifier = (getattr(model, "estimator", model) for model in made)
        assert (regressor.target_scaling, classifier.missing_values) == ("standardize", "impute")


MISTAKES = [
    ("classification = 1", "classification, regression, ensemble, tuned must be tables of param"),
    ("[ensemble]\nn_estimator = 2", r"'n_estimator' is not one of .*mean 'n_estimators'\?\)"),
    ("[tuned]\nmax_predict_cost = 0", "'max_predict_cost' parameter of MLPTunedClassifier"),
    ('based_on = "tabel"', r"`based_on` is 'tabel', not one of .*\(did you mean 'table'"),
    ("[ensemble]\nn_estimators = 0", "'n_estimators' parameter of MLPEnsembleClassifier"),
    ("lable_smoothing = 0.1", r"'lable_smoothing' is not one of .*mean 'label_smoothing'\?\)"),
    ("callbacks = []", "'callbacks' is not one of"),
    ("description = 1", "`description` must be a string, got 1"),
    ('data = "cifar"', r"data is 'cifar', not one of cifar10, .* \(did you mean 'cifar10'"),
    ("label_smoothing = 2.0", r"'label_smoothing' parameter of MLPClassifier .* Got 2.0"),
    ('label_smoothing = "much"', r"a float in the range \[0.0, 1.0\). Got 'much'"),
    ('activation = "geul"', "'activation' parameter of MLPClassifier must be a str among"),
    ('solver = {class = "Moun"}', r"solver is 'Moun', not one of .*\(did you mean 'Muon'\?\)"),
    ('solver = {class = "Cosine"}', "solver is 'Cosine', not one of SGD, Adam"),
    ('solver = {class = "Muon", steps = 3}', "Muon has no 'steps', .*did you mean 'ns_steps'"),
    ('solver = {class = "Muon", ns_steps = "3"}', "ns_steps='3', which must have the type of 4"),
    ('solver = {class = "Muon", momentum = 2.0}', "solver: `momentum` must be .* got 2.0"),
    ("solver = {ns_steps = 3}", "solver is the table .* which has no 'class'"),
    ('dropout = {class = "Muon"}', "dropout is 'Muon', not one of none"),
    ("max_time = 0", "'max_time' parameter"),
    ('hidden_layer_sizes = ["8"]', "hidden_layer_sizes must be integers"),
    ("alpha = ", "not a valid TOML file"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_recipe_error_names_the_file_key_and_remedy(line, message, write):
    path = write(line)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}(: | is).*{message}"):
        MLP.from_recipe(path)


def test_an_unknown_recipe_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"recipe 'one-minut' is not one of .*mean 'one-minute'"):
        MLP.from_recipe("one-minut")
    with pytest.raises(FileNotFoundError, match=r"recipe .*yours.toml does not exist"):
        MLP.from_recipe(tmp_path / "yours.toml")


NESTED = {
    "lists": "alpha = " + "[" * 5000,
    "lists that end": "alpha = " + "[" * 300 + "]" * 300,
    "tables": "alpha = " + "{a = " * 1200,
    "a dotted key": "solver" + ".a" * 3500 + " = 1",
    "a dotted key for a text": "description" + ".a" * 3500 + " = 1",
    "a schedule": "learning_rate = " + '{class = "LinearWarmup", then = ' * 200 + "1" + "}" * 200,
    "a long number": "alpha = " + "9" * 6000,
    "a long dotted key": "solver" + ".a" * 50_000 + " = 1",
    "a long file": "#" * 100_000,
}


@pytest.mark.parametrize("name", NESTED)
def test_recipe_files_designed_to_exhaust_memory_are_rejected(name, write):
    said = "nested too deeply|valid TOML|the type of|has no 'class'|'alpha' par|more than the 8192"
    path = write(NESTED[name])
    with bounded(), pytest.raises((ValueError, OSError), match=said) as caught:
        MLP.from_recipe(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.matrix) for s in (1, 2))])
def test_randomly_modified_recipe_files_load_or_raise_a_clear_error(seed, write):
    rng, said = np.random.default_rng(seed), []
    wholes = [(FOLDER / f"{name}.toml").read_bytes() for name in names()]
    path = write()
    for whole in wholes * 15:
        path.write_bytes(mutate(whole, wholes, rng))
        with bounded():
            try:
                MLP.from_recipe(path)
            except ValueError as error:
                said.append(str(error))
    assert all(text.startswith(str(path)) and len(text) < 5000 for text in said)

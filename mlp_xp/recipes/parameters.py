"""The table of all parameters, with their valid values and descriptions.

The table defines the estimators' constraints and docstrings, the options of ``mlp-xp train``, and
which parameters may differ in a resumed fit and between processes. To add a parameter, add a row
here, and the parameter to the signatures in `mlp_xp.estimators.classifier` and
`mlp_xp.estimators.regressor`.
"""

import math
from numbers import Integral
from typing import Any, NamedTuple

from mlp_xp.augmentation import Augmentation
from mlp_xp.backends import BACKENDS, LOW_PRECISIONS
from mlp_xp.nn.blocks import NUMERIC_EMBEDDINGS, NumericEmbedding
from mlp_xp.nn.hidden import Layer
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.nn.losses import CLASSIFICATION_LOSSES, OUTPUTS, REGRESSION_LOSSES
from mlp_xp.optimizers import OPTIMIZERS, Optimizer
from mlp_xp.optimizers.schedules import SCHEDULES
from mlp_xp.recipes.directions import parse_directions

# The input scalings that tables support. Each scales every numeric column separately, on the host.
TABLE_SCALINGS = "standardize", "robust", "quantile"

GROUPS = NETWORK, LOSS, OPTIMIZATION, ONE_SOLVER, END, DATA, WHERE, OUTPUT = (
    "Network",
    "Loss",
    "Optimization",
    "Settings of one solver or schedule",
    "Validation and the end of a fit",
    "Data",
    "Where and how to compute",
    "Output",
)


class Number(NamedTuple):
    """A number within limits, e.g. "float in [0, 1)" in a docstring."""

    kind: type[int] | type[float] = float
    above: float = -math.inf
    at_least: float = -math.inf
    below: float = math.inf
    at_most: float = math.inf

    def __str__(self) -> str:
        """Return the limits as a type for numpydoc."""
        end = f"{self.below})" if self.at_most == math.inf else f"{self.at_most}]"
        limits = f"in [{self.at_least}, {end}"
        if end == "inf)":
            is_least = self.above == -math.inf
            limits = f"of at least {self.at_least}" if is_least else f"above {self.above}"
        return f"{self.kind.__name__} {limits}"


class Option(NamedTuple):
    """An option of ``mlp-xp train`` for a field or parameter, by default with the same name.

    ``help`` is by default the parameter's `summary`, and {} in it stands for the names to choose
    from. ``type`` is a `Number`, names, or a function that parses text; by default it follows from
    the parameter's values. ``const`` is the value if the option is typed alone. ``shown`` describes
    the default, which is otherwise the value in the recipe.
    """

    metavar: str | None = None
    help: str = ""
    name: str = ""
    type: Any = None
    const: Any = None
    shown: str = ""

    def flag(self, name: str) -> str:
        """Return the option as it is typed, given the name of its field or parameter."""
        return f"--{(self.name or name).replace('_', '-')}"


class Parameter(NamedTuple):
    """A parameter of the estimators.

    ``values`` are scikit-learn's constraints, except that a tuple lists names, and that a string
    "module:Class" stands for a class that is slow to import. ``type`` is the type in the docstring,
    where {} stands for the names or the `Number`; if it is "", the docstring lists the values. If
    ``free_on_resume`` is true, a resumed fit may change the parameter. If ``own_per_rank`` is true,
    each process of a fit may have its own value.
    """

    default: Any
    values: Any
    group: str
    type: str = ""
    option: Option | None = None
    free_on_resume: bool = False
    own_per_rank: bool = False
    text: str = ""

    @property
    def known(self) -> Any:
        """The names to choose from, or the limits of a number, otherwise None."""
        return next((value for value in self.values if isinstance(value, tuple)), None)

    @property
    def summary(self) -> str:
        """The first sentence of the text, without capital letter and period."""
        text = " ".join(self.text.split()).partition(". ")[0].rstrip(".")
        return text[0].lower() + text[1:]

    def described(self, name: str) -> str:
        """Return the parameter's entry in a docstring."""
        kind = self.type.format(_type_text(self.known)) or " or ".join(map(_type_text, self.values))
        default = f'"{self.default}"' if isinstance(self.default, str) else self.default
        text = self.text.strip().replace("\n        ", "\n    ")
        return f"{name} : {kind}, default={default}\n    {text}\n"


def _type_text(value: Any) -> str:
    """Return a constraint as a type for numpydoc."""
    if isinstance(value, Number) or not isinstance(value, tuple):
        return "bool" if value == "boolean" else str(value)
    names = ", ".join(f'"{name}"' for name in value)
    return f"{{{names}}}" if len(value) > 1 else names


# The formatter would separate each row's values from its text.
# fmt: off
_SHARED = {
    "hidden_layer_sizes": Parameter(
        (100,), ["array-like", Number(int, at_least=1), Layer], NETWORK,
        "int, object of `mlp_xp.nn.hidden`, or a list of them",
        option=Option("WIDTH", "width of each hidden layer", "hidden"), text="""
        Width of each hidden layer, from first to last; or an object, e.g. ``Branch((1536, 384))``
        for a residual branch with an inverted bottleneck."""),
    "activation": Parameter(
        "relu", [(*ACTIVATIONS,), list, tuple, callable], NETWORK,
        "{}, callable, or a list with one for each hidden layer",
        option=Option("NAME", "of the hidden layers"), text="""
        Activation of the hidden layers. A callable ``f(x, *, xp)`` returns the output and its
        pullback. The first fit checks the pullback by finite differences."""),
    "parametric_activation": Parameter(False, ["boolean"], NETWORK, text="""
        Whether each hidden unit learns the strength of its activation f:
        ``x + slope * (f(x) - x)``, where the slope starts at 1."""),
    "parametrization": Parameter("standard", [("standard", "ntk")], NETWORK, text="""
        "ntk" divides the matrix product of each dense layer by the square root of its number of
        inputs. Initial weights are then normally distributed, and scaled so that each layer's
        outputs have variance 1 over the data. Initial biases are chosen so that each output is 0
        for a random mixture of five samples. `coefs_` are the weights before the division. Not
        available with objects of `mlp_xp.nn.hidden`."""),
    "normalization": Parameter(
        None, [("layer", "batch"), None], NETWORK, option=Option("NAME"), text="""
        Normalization between each hidden dense layer and its activation."""),
    "residual": Parameter(False, ["boolean"], NETWORK, option=Option(), text="""
        Whether a hidden layer adds its input to its output if the two have the same width."""),
    "n_members": Parameter(
        1, [Number(int, at_least=1)], NETWORK, option=Option("N", name="members"), text="""
        Number of networks trained as one (TabM, arXiv:2410.24210); 32 is common. The networks share
        the weights of the hidden layers, but each has its own output layer, biases, and scales for
        the inputs and outputs of layers. Training minimizes the mean of their losses; predictions
        are averaged, and `member_std` returns their spread. All weights are in `other_weights_`;
        there is no `coefs_`."""),
    "dropout": Parameter(
        0.0, [Number(at_least=0, below=1), list, tuple], NETWORK,
        "{}, or a list with one for each hidden layer", option=Option("P"), text="""
        Fraction of the hidden layers' outputs that a training step drops."""),
    "input_dropout": Parameter(0.0, [Number(at_least=0, below=1)], NETWORK, text="""
        Fraction of the features that a training step drops."""),
    "dropout_schedule": Parameter(
        None, [(*SCHEDULES,), *SCHEDULES.values(), None], NETWORK,
        "str, schedule of `mlp_xp.optimizers.schedules`, or None", text="""
        Schedule that multiplies the dropout rates at each step, e.g. "flat_cos". The names are as
        for `learning_rate`, without "adaptive"."""),
    "numeric_embedding": Parameter(
        None, [(*NUMERIC_EMBEDDINGS,), NumericEmbedding, None], NETWORK,
        "{}, object of `mlp_xp.nn.blocks`, or None", text="""
        Replaces each number by an embedding: "pbld" is periodic, with learned frequencies; "ple" is
        piecewise linear between quantiles of the data. ``PBLD(waves=16, outputs=4, sigma=0.1)`` and
        ``PLE(pieces=32, outputs=16)`` set their sizes. Scale the numbers, e.g. with
        `input_scaling`."""),
    "learn_input_scale": Parameter(False, ["boolean"], NETWORK, text="""
        Whether each input of the first layer is multiplied by a learned factor.
        ``solver=ByKind(..., scale_rate=6.0)`` of `mlp_xp.optimizers` gives these factors their own
        learning rate."""),
    "solver": Parameter(
        "adam", [(*OPTIMIZERS, "lbfgs"), Optimizer], OPTIMIZATION,
        "{} or an optimizer of `mlp_xp.optimizers`", option=Option("NAME", "optimizer"), text="""
        Optimizer. If it is given by name, parameters such as `beta_1` are its settings; an object
        such as ``AdamW(weight_decay=0.05)`` has its own settings. "lbfgs" is SciPy's L-BFGS."""),
    "learning_rate": Parameter(
        "constant", [(*SCHEDULES, "adaptive"), *SCHEDULES.values()], OPTIMIZATION,
        "{} or a schedule of `mlp_xp.optimizers.schedules`",
        option=Option(
            "NAME", "of the learning rate (invscaling and adaptive need sgd)", "schedule"
        ), text="""
        Schedule that multiplies `learning_rate_init` at each step; "lbfgs" ignores it. As in
        scikit-learn, "invscaling" and "adaptive" have an effect only with SGD. "adaptive" divides
        the rate by 5 whenever the loss or validation score has not improved for `n_iter_no_change`
        epochs."""),
    "learning_rate_init": Parameter(
        0.001, [Number(above=0)], OPTIMIZATION, option=Option("R", name="learning_rate"), text="""
        Initial or peak learning rate, which the schedule multiplies."""),
    "batch_size": Parameter(
        "auto", [Number(int, at_least=1), ("auto",)], OPTIMIZATION, option=Option("N"), text="""
        Samples per step. "auto" is ``min(200, n_samples)``; "lbfgs" uses all samples."""),
    "max_iter": Parameter(
        200, [Number(int, at_least=1)], OPTIMIZATION, option=Option("N", name="epochs"), text="""
        Maximum number of epochs. Schedules end at this epoch. For "lbfgs", maximum number of
        iterations."""),
    "shuffle": Parameter(True, ["boolean"], OPTIMIZATION, text="""
        Whether to shuffle the samples in each epoch."""),
    "random_state": Parameter(
        None, ["random_state"], OPTIMIZATION, "int, RandomState instance or None",
        option=Option(
            "N", "of weights, order and validation images", "seed",
            Number(int, at_least=0, below=2**32), shown="0",
        ), text="""
        An int gives the same initial weights, batches and dropout on every backend."""),
    "alpha": Parameter(0.0001, [Number(at_least=0)], OPTIMIZATION, option=Option("A"), text="""
        Strength of the L2 penalty on the weights; the penalty is divided by the batch size."""),
    "weight_decay_schedule": Parameter(
        None, [(*SCHEDULES,), *SCHEDULES.values(), None], OPTIMIZATION,
        "str, schedule of `mlp_xp.optimizers.schedules`, or None", text="""
        Schedule that multiplies the weight decay of `solver`, e.g. ``AdamW(weight_decay=0.02)``, at
        each step, in addition to the learning rate."""),
    "max_grad_norm": Parameter(
        None, [Number(above=0), None], OPTIMIZATION, option=Option("G"), text="""
        Maximum global norm of a step's gradients; larger gradients are scaled down to it."""),
    "ema_decay": Parameter(
        None, [Number(at_least=0, below=1), None], OPTIMIZATION, option=Option("D"), text="""
        Decay, such as 0.999, of an exponential moving average of the weights for predictions."""),
    "momentum": Parameter(0.9, [Number(at_least=0, at_most=1)], ONE_SOLVER, text="""
        Fraction of the last update that is added to a step, for "sgd"."""),
    "nesterovs_momentum": Parameter(True, ["boolean"], ONE_SOLVER, text="""
        Whether "sgd" uses Nesterov momentum."""),
    "beta_1": Parameter(0.9, [Number(at_least=0, below=1)], ONE_SOLVER, text="""
        Decay of the average of gradients, for "adam" and "adamw"."""),
    "beta_2": Parameter(0.999, [Number(at_least=0, below=1)], ONE_SOLVER, text="""
        Decay of the average of squared gradients, for "adam" and "adamw"."""),
    "epsilon": Parameter(1e-8, [Number(above=0)], ONE_SOLVER, text="""
        Added to the denominator of the update, for "adam" and "adamw"."""),
    "power_t": Parameter(0.5, [Number(at_least=0)], ONE_SOLVER, text="""
        Exponent of the schedule "invscaling"."""),
    "max_fun": Parameter(15000, [Number(int, at_least=1)], ONE_SOLVER, text="""
        For "lbfgs": maximum number of evaluations of the loss."""),
    "early_stopping": Parameter(
        False, ["boolean"], END, text="""
        Whether to stop if the score on held-out samples no longer improves, and keep the weights of
        the best epoch. The samples are `validation_fraction` of the training data, unless ``X_val``
        and ``y_val`` are passed to `fit`. The split is stratified by class, except for multilabel
        targets, or if one of more than two classes is too rare. "lbfgs" ignores early stopping, as
        in scikit-learn."""),
    "n_iter_no_change": Parameter(
        10, [Number(int, at_least=1), math.inf], END,
        option=Option(
            "N",
            "end after N epochs without a better validation accuracy (10), and keep the best "
            "network; without --validation a tenth of the images is held out",
            "early_stopping", const=10, shown="no",
        ), text="""
        See `tol`; with inf, training does not stop before `max_iter`."""),
    "validation_fraction": Parameter(0.1, [Number(at_least=0, below=1)], END, text="""
        Fraction of the training data that `early_stopping` holds out."""),
    "scoring": Parameter(
        None, [str, callable, None], END, "str, callable or None",
        option=Option(
            "NAME",
            "of the held-out samples, instead of accuracy or R2: loss, refinement (the log loss "
            "after calibration), or a name of scikit-learn's scorers",
        ), text="""
        Score for early stopping: a name of scikit-learn's scorers, ``scorer(model, X, y)``, or
        "loss" for the validation loss; for a classifier also "refinement", the log loss after
        temperature scaling (arXiv:2501.19195), for use with `calibration`. A callable is called
        once before the first epoch, to raise errors early; the model passed to it returns
        predictions only for the held-out samples, in NumPy. None means accuracy for a classifier,
        R2 for a regressor, and "loss" for a regressor that learns quantiles or a standard
        deviation."""),
    "tol": Parameter(1e-4, [Number(at_least=0)], END, text="""
        Training ends when the loss (with early stopping, the validation score) has not improved by
        this amount for `n_iter_no_change` epochs; with "lbfgs", when no entry of the gradient is
        larger than this."""),
    "max_time": Parameter(
        None, [Number(above=0), None], END,
        option=Option("SECONDS", "seconds that the whole command may take"), text="""
        Maximum duration of a `fit` in seconds, including preparation and validation. The
        learning-rate schedule then follows the fraction of the time that has passed, or of
        `max_iter` if that is larger, and the last epoch may end early. Such a fit depends on the
        clock, so `random_state` does not make it reproducible. `partial_fit` ignores the limit;
        "lbfgs" ends before an iteration that would probably exceed it."""),
    "restart_factor": Parameter(
        None, [Number(at_least=1), None], END, text="""
        For tables on which a network overfits: if, with early stopping, the best validation score
        was reached in the first half of the epochs, the network is trained again from its initial
        weights, with a learning rate that is larger by this factor, for 5/8 as many epochs. The
        second network is kept if its score is better by 8 %. `history_` has the epochs of both. Not
        used with fewer than 150 validation samples, `max_time`, `warm_start` of a fitted network,
        `partial_fit`, "lbfgs" or "adaptive"."""),
    "coverage_by": Parameter(
        None, [str, Integral, None], END, "str, int or None",
        option=Option("COLUMN"), text="""
        The name or position of a column whose values are groups, e.g. regions: intervals and sets
        of classes then contain the given fraction of targets in each group, not only on average.
        Each group needs held-out samples, e.g. 19 for an interval of 0.9. In a table, the column
        must be categorical."""),
    "warm_start": Parameter(False, ["boolean"], END, free_on_resume=True, text="""
        Whether `fit` continues with the weights and optimizer state of the last fit."""),
    "categorical_features": Parameter(
        None, [("from_dtype",), "array-like", None], DATA, "{}, array-like or None", text="""
        The columns of X that are categories: "from_dtype" selects the columns of a data frame
        (pandas, polars, pyarrow) that are categorical, text, objects or bools; or pass names,
        positions or a mask. None allows only numbers. A missing value is a category. Rare
        categories, in fewer than 5 rows (or 1 % of the rows, if there are fewer than 500), are
        merged into one. A category that appears only in later data is treated as rare. Dates become
        year, day of year, weekday and second of day."""),
    "missing_values": Parameter("error", [("error", "impute")], DATA, text="""
        What to do with missing numbers and dates (NaN, None, NA). "impute" replaces them by the
        column's median in the training data, and adds an input that is 1 where a value was
        missing."""),
    "max_one_hot": Parameter(8, [Number(int, at_least=0), math.inf], DATA, text="""
        Columns with at most this number of categories are one-hot encoded. For a column with more,
        the network learns an embedding of each category."""),
    "embedding_dim": Parameter(8, [Number(int, at_least=1)], DATA, text="""
        Size of each category's embedding."""),
    "monotonic_cst": Parameter(
        None, ["array-like", dict, None], DATA, "dict, array-like or None",
        option=Option("NAME=1,...", type=parse_directions), text="""
        Columns in which predictions are monotone: 1 if they never decrease as the column grows, -1
        if they never increase, 0 for no constraint. A dict has entries for some columns of a data
        frame, e.g. ``{"income": 1, "debt": -1}``; an array has one entry per column. For a
        classifier of two classes, it constrains the probability of the second class. The signs of
        the weights guarantee it, so it also holds far from the training data. Only for numbers and
        dates; a constrained date is one number, without season and weekday."""),
    "input_scaling": Parameter(
        None, [(*TABLE_SCALINGS, "zca", "pca"), "mlp_xp.training.data.input_scaling:Whiten", None],
        DATA, "{}, Whiten, or None", text="""
        "standardize" gives each feature mean 0 and standard deviation 1 over the training data,
        without sample weights, on the device; uint8 data remain uint8 until they are used in a
        batch. "robust" subtracts the median, divides by the interquartile range, and shrinks
        outliers smoothly to less than 3 in magnitude; "quantile" makes each feature normally
        distributed. Both are computed on the host, and do not change a table's categories. "zca"
        and "pca" also remove correlations; they compute the eigenvectors of a (features, features)
        matrix, and multiply each batch by a matrix of this size."""),
    "augmentation": Parameter(
        None, [Augmentation, list, tuple, None], DATA,
        "object or list of objects of `mlp_xp.augmentation`, or None", text="""
        Random changes to the images in each training batch, e.g.
        ``[Flip((3, 32, 32)), Shift((3, 32, 32), pixels=4)]``. Geometric changes are applied first,
        in the given order, then the others. Held-out samples and inputs of predictions are not
        changed. Not available with "lbfgs"."""),
    "tta": Parameter(
        None, [Augmentation, list, tuple, None], DATA, "Flip, Shift, a list of them, or None",
        free_on_resume=True, own_per_rank=True, text="""
        Test-time augmentation: predictions are averaged over all combinations of views. A `Flip`
        has two views, a `Shift` five. Not used during a fit."""),
    "backend": Parameter(
        None, [("auto", *BACKENDS), None], WHERE,
        option=Option(
            "NAME",
            "library to compute with: {}; auto uses a CUDA GPU if one works, else NumPy",
            shown="auto",
        ), free_on_resume=True, text="""
        Array library to compute with. None uses the library and device of the data; a name moves
        the data to that library. "auto" uses CUDA if it works, otherwise NumPy."""),
    "device": Parameter(
        None, "no_validation", WHERE, "str or None",
        option=Option("NAME", "e.g. cpu, cuda:1 or mps", shown="the library's default"),
        free_on_resume=True, own_per_rank=True, text="""
        Device of the backend, e.g. ``"cpu"``, ``"cuda:1"``, ``"xpu"`` or ``"mps"``; None means the
        backend's default."""),
    "precision": Parameter(
        "auto", [("auto", "float32", "float64", *LOW_PRECISIONS)], WHERE, option=Option("NAME"),
        text="""
        Precision of parameters and matrix products. "auto" keeps the data's float32 or float64, and
        uses float32 for uint8; other integers are converted to float64, as in scikit-learn. "tf32",
        "bf16" and "float16" train with faster matrix products, on the backends "cupy", "torch" and
        "jax" ("bf16" also on "numpy"); weights, optimizer state, loss and predictions remain in
        float32. On GPUs, "tf32" rounds the operands of products. "bf16" and "float16" also store
        inputs, activations and gradients in 16 bits, except on "cupy" and "numpy". On "numpy",
        "bf16" needs numba and a processor with AVX512_BF16 (AMD since Zen 4, Intel since Sapphire
        Rapids), and predictions with at least 10^10 multiplications also use bfloat16 products. On
        "torch", "bf16" is slow on x86 processors without AVX-512.
        "float16" scales the loss, and skips steps whose gradients overflow."""),
    "placement": Parameter(
        "auto", [("auto", "resident", "streamed")], WHERE,
        option=Option("NAME"), free_on_resume=True, own_per_rank=True, text="""
        Whether to copy all data to the device at once ("resident") or one batch at a time
        ("streamed"); "auto" copies all data if they fit. Sparse data are streamed, and made dense
        batch by batch."""),
    "distributed": Parameter(
        None, [("mpi", "torch", "tcp"), "mlp_xp.distributed:Distributed", None], WHERE,
        "{}, object of `mlp_xp.distributed.Distributed`, or None",
        option=Option(
            "NAME",
            "share the training among the processes of `mpiexec -n N mlp-xp train` (mpi), or of "
            "torchrun (torch)",
        ), free_on_resume=True, text="""
        How the processes of a distributed fit communicate. Start them with ``mpiexec -n 4 python -m
        mpi4py script.py`` or ``torchrun``; each must call `fit`. Each process computes a part of
        each batch, and all get the same network as a fit in one process, up to rounding. Only
        rank 0 prints, warns, calls callbacks and writes files. Each process computes its own
        predictions."""),
    "verbose": Parameter(
        False, ["verbose"], OUTPUT, "bool", free_on_resume=True, own_per_rank=True, text="""
        Whether to print the loss of each epoch."""),
    "callbacks": Parameter(
        None, [list, tuple, None], OUTPUT, "list of callbacks or None",
        free_on_resume=True, own_per_rank=True, text="""
        Objects whose methods are called during a fit; see `mlp_xp.callbacks`."""),
}

CLASSIFIER = _SHARED | {
    "loss": Parameter(
        "log_loss", [(*CLASSIFICATION_LOSSES,), callable], LOSS,
        "{}, a loss of `mlp_xp.nn.losses`, or callable", text="""
        A loss object must match `output_activation`, e.g. ``SoftmaxCrossEntropy()`` for "softmax".
        A callable ``loss(outputs, targets, *, xp)`` returns the loss of each sample and a pullback,
        which the first fit checks by finite differences; see `mlp_xp.nn.losses.Custom`."""),
    "label_smoothing": Parameter(
        0.0, [Number(at_least=0, below=1)], LOSS, option=Option("P"), text="""
        Fraction of the uniform distribution that is mixed into the targets, for "log_loss"."""),
    "class_weight": Parameter(
        None, [("balanced",), dict, list, None], LOSS, 'dict, "balanced", a list of them, or None',
        text="""
        Weight of the samples of each class; "balanced" gives all classes the same total weight. For
        several targets, a list has one entry per target, and a sample's weight is the product over
        its targets."""),
    "output_activation": Parameter("auto", [("auto", "softmax", "logistic")], LOSS, text="""
        "auto" is softmax for several classes, and logistic for two classes or multilabel targets.
        "logistic" trains each of several classes against the rest."""),
    "calibration": Parameter(
        None, [("temperature",), None], END,
        option=Option(
            "NAME",
            "of the probabilities, on the samples held out by --validation or --early-stopping",
        ), text="""
        "temperature" divides the raw outputs by one number, fitted after training to the held-out
        samples of ``early_stopping=True`` or ``X_val``, so that classes predicted with a
        probability of 0.8 are correct in about 80 % of cases. Predicted labels do not change,
        except with `n_members` or `tta`, which average probabilities."""),
    "prediction_sets": Parameter(None, [("held_out",), None], END, text="""
        "held_out" stores how likely the correct classes were on the samples of
        ``early_stopping=True`` or ``X_val``, so that the sets of `predict_set` contain the correct
        class in a given fraction of cases. An ensemble uses the samples of all its networks."""),
}

REGRESSOR = _SHARED | {
    "loss": Parameter(
        "squared_error", [(*REGRESSION_LOSSES,), callable], LOSS,
        "{}, a loss of `mlp_xp.nn.losses`, or callable", text="""
        A loss object has its own settings, e.g. ``Quantile((0.05, 0.5, 0.95))`` or
        ``Huber(delta=2.0)``. "poisson" predicts the exponential of the network's output, "gaussian"
        a mean and a standard deviation. A callable ``loss(outputs, targets, *, xp)`` returns the
        loss of each sample and a pullback, which the first fit checks by finite differences; see
        `mlp_xp.nn.losses.Custom`. For a classification loss, targets and predictions are
        probabilities. The losses of several outputs are summed."""),
    "output_activation": Parameter("auto", [("auto", *OUTPUTS)], LOSS, text="""
        Activation of the network's raw outputs, before the loss and in predictions; "auto" is the
        activation of a loss object, the exponential for "poisson", otherwise the identity."""),
    "clip_predictions": Parameter(False, ["boolean"], LOSS, text="""
        Whether to clip each predicted output to the range of its training targets. Warm starts and
        `partial_fit` keep the range of the first fit. Not available for quantiles and standard
        deviations."""),
    "target_scaling": Parameter(None, [("standardize",), None], DATA, text="""
        "standardize" scales each output to mean 0 and standard deviation 1 over the weighted
        training samples. Predictions and scores are in the unit of y; losses, and settings of a
        loss such as `Huber`'s ``delta``, refer to the standardized targets. Warm starts and
        `partial_fit` keep the mean and standard deviation of the first fit. Not available for
        outputs that are bounded or never negative, e.g. with ``loss="poisson"``."""),
    "prediction_intervals": Parameter(None, [("held_out",), None], END, text="""
        "held_out" stores the prediction errors on the samples of ``early_stopping=True`` or
        ``X_val``, as `calibrate_intervals` does, so that ``predict(X, interval=0.9)`` encloses
        about 90 % of new targets. An ensemble uses the errors of all its networks."""),
}

SOLVERS_WITH_DECAY = [name for name, rule in OPTIMIZERS.items() if hasattr(rule, "weight_decay")]
# The options of ``mlp-xp train`` that set parameters; the weight decay is set on the solver.
OPTIONS = {
    "solver": CLASSIFIER["solver"],
    "weight_decay": Parameter(0.0, [Number(at_least=0)], OPTIMIZATION, option=Option(
        "D", f"weight decay, only with {', '.join(SOLVERS_WITH_DECAY)}")),
} | {name: row for name, row in CLASSIFIER.items() if row.option}

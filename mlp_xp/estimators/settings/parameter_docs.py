"""The documentation of the parameters and attributes that classifier and regressor share."""

__all__ = ["PARTS"]

# In the order of the constructors, which have further parameters between the two.
_FIRST = """\
hidden_layer_sizes : int, object of `mlp_xp.nn.hidden`, or a list of them, default=(100,)
    Width of each hidden layer, from first to last; or an object, e.g. ``Branch((1536, 384))``
    for a residual branch with an inverted bottleneck.
activation : str, callable, or a list with one for each hidden layer, default="relu"
    "identity", "logistic", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish",
    "softplus"; or
    ``f(x, *, xp)`` that returns the output and its pullback, which is compared with a finite
    difference at the first fit.
solver : {"sgd", "adam", "adamw", "rmsprop", "lion", "muon", "beta_lasso", "lbfgs"} or a rule \
of `mlp_xp.optimizers`, default="adam"
    A string takes its settings from the parameters below, e.g. `beta_1`; an object such as
    ``AdamW(weight_decay=0.05)`` brings its own. "lbfgs" is SciPy's.
alpha : float of at least 0, default=0.0001
    Strength of the L2 penalty on the weights, divided by the samples of a batch.
batch_size : int or "auto", default="auto"
    "auto" is ``min(200, n_samples)``. "lbfgs" takes all samples.
learning_rate : {"constant", "invscaling", "adaptive", "warmup", "cosine", "onecycle", \
"linear", "flat_cos", "coslog4"} or a schedule of `mlp_xp.optimizers.schedules`, default="constant"
    Factor of `learning_rate_init` at each step, for every solver but "lbfgs". As in
    scikit-learn, "invscaling" and "adaptive" act for SGD alone; "adaptive" divides the rate by
    5 whenever nothing has improved for `n_iter_no_change` epochs.
learning_rate_init : float above 0, default=0.001
    Learning rate that the schedule multiplies.
power_t : float of at least 0, default=0.5
    Exponent of "invscaling".
max_iter : int of at least 1, default=200
    Maximum number of epochs; schedules end there. For "lbfgs", iterations.
shuffle : bool, default=True
    Whether each epoch takes the samples in another order.
random_state : int, RandomState instance or None, default=None
    An int gives the same initial weights, batches and dropout on every backend.
tol : float of at least 0, default=1e-4
    Training ends when the loss (with early stopping, the validation score) has not improved by
    this for `n_iter_no_change` epochs. For "lbfgs", the largest entry of the gradient.
verbose : bool, default=False
    Print the loss of each epoch.
warm_start : bool, default=False
    Whether `fit` continues from where the last one ended, with its optimizer's state.
momentum : float from 0 to 1, default=0.9
    For "sgd".
nesterovs_momentum : bool, default=True
    For "sgd".
early_stopping : bool, default=False
    Whether the score on held-out samples ends the training, and the weights of its best epoch
    are kept. The samples are `validation_fraction` of the training data, unless `fit` is given
    ``X_val`` and ``y_val``. The split is stratified by class, except for multilabel targets, and
    where one of more than two classes is too rare. Ignored with "lbfgs", as in scikit-learn.
validation_fraction : float in [0, 1), default=0.1
    Fraction of the training data that `early_stopping` holds out.
beta_1 : float in [0, 1), default=0.9
    Decay of the average of gradients, for "adam" and "adamw".
beta_2 : float in [0, 1), default=0.999
    Decay of the average of squared gradients, for "adam" and "adamw".
epsilon : float above 0, default=1e-8
    For "adam" and "adamw".
n_iter_no_change : int of at least 1 or inf, default=10
    See `tol`; inf never stops before `max_iter`.
max_fun : int of at least 1, default=15000
    For "lbfgs": maximum number of evaluations of the loss.
"""

_LAST = """\
scoring : str, callable or None, default=None
    Score for early stopping: a name of scikit-learn's scorers, ``scorer(model, X, y)``, or
    "loss" for the validation loss; for a classifier also "refinement", the log loss after the best
    temperature (arXiv:2501.19195), for use with `calibration`. A callable is tried once before
    the first epoch; the model it receives predicts for these samples only, and in NumPy. None
    means accuracy for a classifier, R2 for a regressor, and "loss" for a regressor that learns
    quantiles or a standard deviation.
dropout : float in [0, 1), or a list with one for each hidden layer, default=0
    Fraction of the outputs of hidden layers that a training step drops.
input_dropout : float in [0, 1), default=0
    Fraction of the features that a training step drops.
dropout_schedule : str, schedule of `mlp_xp.optimizers.schedules`, or None, default=None
    Schedule that multiplies the dropout rates at each step, e.g. "flat_cos"; a name that
    `learning_rate` takes, except "adaptive".
weight_decay_schedule : str, schedule of `mlp_xp.optimizers.schedules`, or None, default=None
    Schedule that multiplies the weight decay of `solver`, e.g. of ``AdamW(weight_decay=0.02)``, at
    each step; the learning rate multiplies it too.
normalization : {"layer", "batch"} or None, default=None
    Normalization between each hidden dense layer and its activation.
residual : bool, default=False
    Whether a hidden layer as wide as the one before it adds its output to its input.
n_members : int of at least 1, default=1
    Number of networks trained as one (TabM, arXiv:2410.24210; 32 is common). They share the
    weights of the hidden layers; each has its own output layer, biases, and scales of inputs and
    outputs. Training minimizes the mean of their losses, and predictions are their mean;
    `member_std` returns the spread. All weights are in `other_weights_`, and there are no
    `coefs_`.
parametric_activation : bool, default=False
    Whether each output of a hidden layer learns how far its activation f bends:
    ``x + slope * (f(x) - x)``, with slopes that start at 1.
parametrization : {"standard", "ntk"}, default="standard"
    "ntk" divides the product of each dense layer by the square root of its number of inputs.
    Weights then start from a normal distribution, scaled so that outputs have variance 1 over the
    data; each bias starts so that its output is 0 at a random mixture of five samples. `coefs_`
    are the weights before the division. Not available with objects of `mlp_xp.nn.hidden`.
numeric_embedding : {"pbld", "ple"}, object of `mlp_xp.nn.blocks`, or None, default=None
    Replaces each number by an embedding: "pbld" is periodic, with learned frequencies; "ple" is
    piecewise linear between quantiles of the data. ``PBLD(waves=16, outputs=4, sigma=0.1)`` and
    ``PLE(pieces=32, outputs=16)`` set their sizes. Scale the numbers, e.g. with `input_scaling`.
learn_input_scale : bool, default=False
    Whether each input of the first layer is multiplied by a learned factor.
    ``solver=ByKind(..., scale_rate=6.0)`` of `mlp_xp.optimizers` gives them their own rate.
max_grad_norm : float above 0 or None, default=None
    Maximum norm of all gradients of a step together; larger ones are scaled down to it.
ema_decay : float in [0, 1) or None, default=None
    Predict with the exponential moving average of the weights, with this decay at each step,
    e.g. 0.999.
callbacks : list of callbacks or None, default=None
    See `mlp_xp.callbacks`.
backend : {"auto", "numpy", "cupy", "torch", "jax", "array_api_strict"} or None, default=None
    None computes where the data are. A name moves the data there. "auto" takes CUDA where it
    works, else NumPy.
device : str or None, default=None
    E.g. ``"cpu"``, ``"cuda:1"``, ``"xpu"``, ``"mps"``. None is the backend's default.
precision : {"auto", "float32", "float64", "tf32", "bf16", "float16"}, default="auto"
    For parameters and products. "auto" keeps float32 and float64 as the data have it, and takes
    float32 for uint8; other integers are computed in float64, as in scikit-learn. The last three
    train with faster products, on backends "cupy", "torch" and "jax", "bf16" also on "numpy"; the
    weights, the optimizer's state and the loss stay in float32, and so do predictions. "tf32", on
    GPUs, rounds the operands of products. "bf16" and "float16" also keep inputs, activations and
    gradients in 16 bits, except on "cupy" and "numpy". On "numpy", "bf16" needs numba and a
    processor with AVX512_BF16 (AMD since Zen 4, Intel since Sapphire Rapids). "float16" scales the
    loss, and skips the steps whose gradients overflow.
input_scaling : {"standardize", "robust", "quantile", "zca", "pca"}, Whiten, or None, default=None
    "standardize" gives each feature mean 0 and standard deviation 1 over the training data,
    on the device; uint8 data stay uint8 until a batch is made. "robust" subtracts the median,
    divides by the distance between the quartiles and shrinks outliers smoothly to less than 3;
    "quantile" makes each feature normally distributed. Both are computed on the host, and leave
    the categories of a table as they are. "zca" and "pca" remove correlations too, by the
    eigenvectors of a matrix of features x features, and multiply each batch by such a matrix.
placement : {"auto", "resident", "streamed"}, default="auto"
    Whether the data are on the device as a whole or arrive batch by batch; by default what
    fits is resident. Sparse data are streamed, and dense a batch at a time.
max_time : float above 0 or None, default=None
    Seconds that a `fit` may take, validation and preparation included. The learning-rate
    schedule then follows the share of the time that has passed, or of `max_iter` if that is
    larger, and the last epoch ends in the middle where it must. Such a fit depends on the
    clock, so that `random_state` cannot repeat it. `partial_fit` ignores it; "lbfgs" ends after
    the last iteration that should fit.
augmentation : object or list of objects of `mlp_xp.augmentation`, or None, default=None
    Random changes of the images of each training batch, e.g. ``[Flip((3, 32, 32)),
    Shift((3, 32, 32), pixels=4)]``: the geometric ones in their order, then the others. Not for
    "lbfgs". Held-out samples and predictions are left as they are.
tta : Flip, Shift, a list of them, or None, default=None
    Test-time augmentation: predictions are averaged over all combinations of their views, two
    of a `Flip` and five of a `Shift`. Not during a fit.
distributed : {"mpi", "torch"}, object of `mlp_xp.distributed.Distributed`, or None, default=None
    One fit on many processes, which all call `fit`: ``mpiexec -n 4 python -m mpi4py script.py``,
    or ``torchrun``. Each takes a part of each batch, and all get the network that one process
    would, up to rounding. Rank 0 alone prints, warns, calls callbacks and writes files.
    Predictions are computed by each process for itself.
categorical_features : "from_dtype", array-like or None, default=None
    The columns of X that are categories: "from_dtype" takes the columns of a data frame (pandas,
    polars, pyarrow) that are categorical, text, objects or bools; or give names, positions or a
    mask. None allows only numbers. A missing value is a category. Rare categories are merged
    into one: those in fewer than 5 rows or, below 500 rows, in fewer than 1 % of them. A category
    that appears only in later data is treated as rare. Dates become year, day of year, weekday
    and second of day.
missing_values : {"error", "impute"}, default="error"
    What to do with missing numbers and dates (NaN, None, NA). "impute" replaces them by the
    column's median in the training data, and adds an input that is 1 where a value was missing.
max_one_hot : int of at least 0 or inf, default=8
    Columns with at most this number of categories are one-hot encoded. For a column with more,
    the network learns an embedding of each category.
embedding_dim : int of at least 1, default=8
    Size of the embedding of a category.
"""

_ATTRIBUTES = """\
coefs_ : list of (fan_in, fan_out) or (blocks, fan_in, fan_out) arrays
    Weight matrices, or stacks of them, in the library and on the device of the data that were
    fitted.
intercepts_ : list of (fan_out,) arrays
    Biases, likewise.
norms_ : list of (scale, shift)
    One for each normalization; likewise.
other_weights_ : list of NamedTuples of arrays
    What else is learned, such as embeddings; likewise.
moments_ : list of (mean, variance)
    Running statistics of batch normalization; likewise.
loss_ : float
    Loss of the last epoch.
best_loss_ : float or None
    Lowest loss of all epochs; None with early stopping.
loss_curve_ : list of float
    Loss of each epoch, or iteration of "lbfgs".
validation_scores_, validation_loss_curve_ : list of float or None
    After each epoch; None without validation samples.
best_validation_score_ : float or None
    Highest of them.
history_ : list of Record
    One for each epoch; ``pandas.DataFrame(model.history_)`` makes a table of it.
n_iter_ : int
    Epochs done, since the last call of `fit` began.
t_ : int
    Samples seen, repeats included.
n_features_in_, n_layers_, n_outputs_ : int
    Numbers of features, of layers with the input, and of outputs.
out_activation_ : str
    Output activation.
feature_names_in_ : (features,) array
    Where X has column names.
columns_ : TableColumns
    What a fit with `categorical_features`, `missing_values` or the like learned about the columns.
    ``columns_.input_names`` are the names of the network's inputs;
    ``columns_.by_column(values)`` returns, for each column, the norm of its inputs' weights or
    gradients.
"""

PARTS = {
    "[hidden_layer_sizes to max_fun]": _FIRST,
    "[scoring to embedding_dim]": _LAST,
    "[attributes of every fit]": _ATTRIBUTES,
}

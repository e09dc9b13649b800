"""The objects that recipes and saved models can contain, by the parameter that accepts them.

In a model's JSON and a recipe's TOML, an object of this library is a table with its class:
``{"class": "Muon", "ns_steps": 3}``. No other objects are allowed, so a file cannot run other code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from mlp_xp._utils.names import did_you_mean
from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.distributed import Distributed
from mlp_xp.nn.blocks import NUMERIC_EMBEDDINGS, TableInputs
from mlp_xp.nn.hidden import INNER, LAYERS
from mlp_xp.nn.losses import CLASSIFICATION_LOSSES, REGRESSION_LOSSES, Through
from mlp_xp.optimizers import KINDS, RULES
from mlp_xp.optimizers.schedules import SCHEDULES
from mlp_xp.training.data.input_scaling import Whiten

_LOSSES: tuple[type, ...] = (
    *chain(*CLASSIFICATION_LOSSES.values()),
    *REGRESSION_LOSSES.values(),
    Through,
)
_SCHEDULED = "learning_rate", "dropout_schedule", "weight_decay_schedule"
# Objects by the parameter or field that accepts them, alone or in a list.
OBJECTS: dict[str | None, dict[str, Any]] = {
    place: {kind.__name__: kind for kind in kinds}
    for place, kinds in {
        **dict.fromkeys(("solver", *KINDS), RULES),
        **dict.fromkeys(_SCHEDULED, SCHEDULES.values()),
        "then": SCHEDULES.values(),
        "loss": _LOSSES,
        "hidden_layer_sizes": LAYERS,
        "layers": INNER,
        "inputs": (TableInputs,),
        **dict.fromkeys(("numeric", "numeric_embedding"), NUMERIC_EMBEDDINGS.values()),
        "input_scaling": (Whiten,),
        "augmentation": (Flip, Shift, Cutout, ColorJitter, Mixup),
        "tta": (Flip, Shift),
        "distributed": (Distributed,),
    }.items()
}


def make(form: dict[str, Any], place: str | None, decode: Callable[[Any, str], Any]) -> Any:
    """Build the object that a table describes.

    Parameters
    ----------
    form : dict
        ``"class"`` and the fields that differ from their defaults.
    place : str
        The name of the parameter or field that the object is for.
    decode : callable
        ``decode(value, field)`` returns the value of a field.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If the parameter does not accept such an object, or a field is unknown or has the wrong
        type; the message lists the valid names or types.

    Examples
    --------
    >>> from mlp_xp.recipes.objects import make
    >>> make({"class": "Cosine", "final": 0.1}, "learning_rate", lambda value, field: value)
    Cosine(final=0.1)
    >>> make({"class": "Cosin"}, "learning_rate", lambda value, field: value)
    Traceback (most recent call last):
    ValueError: learning_rate is 'Cosin', not one of Constant, InvScaling, LinearWarmup, Cosine, \
OneCycle, Linear, FlatCosine, CosLog (did you mean 'Cosine'?)
    """
    kinds = OBJECTS.get(place, {})
    name = form["class"]
    if name not in kinds:
        raise ValueError(f"{place} is {name!r}, {expected(name, kinds)}")
    known = dataclasses.fields(kinds[name])
    fields = {field.name: field.default for field in known}
    lists = {field.name for field in known if field.metadata.get("is_list")}
    settings = {}
    for key, value in form.items():
        if key == "class":
            continue
        if key not in fields:
            raise ValueError(f"{name} has no {key!r}, {expected(key, fields)}")
        settings[key] = decode(value, key)
    for key, default in fields.items():
        given = settings.get(key, default)
        if default is dataclasses.MISSING or default is None:
            continue  # The object itself checks the value.
        is_list = key in lists and isinstance(given, list | tuple)
        for value in given if is_list else (given,):
            if _type_name(value) == _type_name(default):
                continue
            raise ValueError(f"{name} has {key}={given!r}, which must have the type of {default!r}")
    return kinds[name](**settings)


def expected(given: Any, valid: Iterable[str]) -> str:
    """Return a text for errors, with the valid names and the nearest one.

    Examples
    --------
    >>> from mlp_xp.recipes.objects import expected
    >>> expected("lion", ["Adam", "Lion"])
    "not one of Adam, Lion (did you mean 'Lion'?)"
    """
    names = list(valid)
    meant = did_you_mean(given, names)
    return f"not one of {', '.join(names) or 'none'}" + (f" ({meant})" if meant else "")


def _type_name(value: Any) -> str:
    """Return a word for the type of a setting; all numbers have the type "number"."""
    names = {str: "text", int: "number", bool: "number", float: "number"}
    return names.get(type(value), "object" if dataclasses.is_dataclass(value) else "other")

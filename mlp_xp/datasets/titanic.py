"""The passengers of the Titanic: a small table with numbers, text and missing values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlp_xp._utils.optional import optional

_FILE = Path(__file__).with_name("titanic.csv.gz")


def load_titanic() -> tuple[Any, Any]:
    """Load the 1,309 passengers of the Titanic as a pandas frame, and whether each was saved.

    The file is included in this package, so nothing is downloaded. It is part of `OpenML's data set
    40945 <https://www.openml.org/d/40945>`_ (license: public), which Thomas E. Cason compiled from
    the Encyclopedia Titanica, without the columns that identify a passenger or reveal the target.

    Returns
    -------
    X : pandas.DataFrame
        ``pclass`` (1 to 3), ``sex``, ``age`` in years, ``sibsp`` (siblings and spouses aboard),
        ``parch`` (parents and children aboard), ``fare`` in pounds, ``embarked`` (the port: C, Q or
        S) and ``home`` (text with 369 different values). ``age``, ``fare``, ``embarked`` and
        ``home`` have missing values.
    y : pandas.Series
        ``"saved"`` or ``"lost"``.

    Raises
    ------
    ImportError
        If pandas is not installed; it is part of the ``cli`` extra.

    Examples
    --------
    >>> from mlp_xp.datasets import load_titanic
    >>> X, y = load_titanic()
    >>> X.shape, y.value_counts().to_dict()
    ((1309, 8), {'lost': 809, 'saved': 500})
    """
    table = optional("pandas").read_csv(_FILE)
    return table.drop(columns="survived"), table["survived"]

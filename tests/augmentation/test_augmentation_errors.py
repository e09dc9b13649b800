"""Errors about augmentations: what was given, what was expected, what to type."""

from __future__ import annotations

import re

import numpy as np
import pytest
from image_data import SHAPE, images, labels, model_of

from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift

WRONG_SETTINGS = [
    (lambda: Flip((32, 32)), "image_shape is (32, 32), and must be three integers"),
    (lambda: Flip((3, 32.0, 32)), "image_shape is (3, 32.0, 32)"),
    (lambda: Flip(SHAPE, "yes"), "alternate is 'yes', and must be True or False."),
    (lambda: Shift(SHAPE, 4), "pixels is 4, and must be an integer from 1 to 3."),
    (lambda: Shift(SHAPE, True), "pixels is True"),
    (lambda: Shift(SHAPE, 1, "mean"), "padding is 'mean', and must be 'reflect' or 'zero'."),
    (lambda: Cutout(SHAPE, 0), "size is 0, and must be an integer from 1 to 10."),
    (lambda: ColorJitter(SHAPE, contrast=2), "contrast is 2, and must be a number from 0.0"),
    (lambda: ColorJitter(SHAPE, brightness="a"), "brightness is 'a', and must be a number"),
    (lambda: ColorJitter(SHAPE, np.float32("nan")), "brightness is np.float32(nan), and must"),
    (lambda: Shift(SHAPE, np.float32(1)), "pixels is np.float32(1.0), and must be an integer"),
    (lambda: Shift(SHAPE, np.True_), "pixels is np.True_"),
    (lambda: Mixup("a"), "alpha is 'a', and must be above 0"),
    (lambda: Mixup(True), "alpha is True"),
    (lambda: Mixup(0.0), "alpha is 0.0, and must be above 0; 0.2 is common."),
]
WRONG_FITS = [
    ({"augmentation": Flip((3, 8, 8))}, ValueError, "3 x 8 x 8 is 192, but the data have 60"),
    ({"augmentation": [Flip]}, TypeError, "give an object, with ()"),
    ({"augmentation": ["flip"]}, TypeError, "'flip', which is none of Flip, Shift, Cutout"),
    ({"augmentation": "flip"}, ValueError, "'augmentation' parameter"),
    ({"augmentation": [Mixup(), Mixup()]}, ValueError, "several Mixup"),
    ({"augmentation": [Flip(SHAPE), Flip((3, 5, 4))]}, ValueError, "different shapes"),
    ({"augmentation": Mixup(), "solver": "lbfgs"}, ValueError, "set augmentation=None"),
    ({"tta": Cutout(SHAPE, 2)}, TypeError, "none of Flip, Shift, and no Augmentation with views"),
    ({"tta": "flip"}, ValueError, "'tta' parameter"),
]


def test_wrong_settings_are_told_what_to_do():
    for make, message in WRONG_SETTINGS:
        with pytest.raises(ValueError, match=re.escape(message)):
            make()


def test_a_fit_refuses_what_does_not_fit():
    for settings, kind, message in WRONG_FITS:
        with pytest.raises(kind, match=re.escape(message)):
            model_of(**settings).fit(images(), labels())


def test_a_prediction_refuses_what_does_not_fit():
    model = model_of().fit(images(), labels())
    with pytest.raises(TypeError, match=re.escape("tta has 'flip', which is none of Flip, Shift")):
        model.predict(images(), tta="flip")
    with pytest.raises(ValueError, match="tta has Flip"):
        model.predict_proba(images(), tta=Flip((1, 8, 8)))

"""The enumerations of cuBLASLt, as far as the stand-in knows them, and the types of attributes."""

from __future__ import annotations

import enum

import numpy as np


class Epilogue(enum.IntEnum):
    """What follows a product."""

    DEFAULT = 1
    RELU = 2
    RELU_AUX = 130
    BIAS = 4
    RELU_BIAS = 6
    RELU_AUX_BIAS = 134
    DRELU = 136
    DRELU_BGRAD = 152
    GELU = 32
    GELU_AUX = 160
    GELU_BIAS = 36
    GELU_AUX_BIAS = 164
    DGELU = 192
    DGELU_BGRAD = 208
    BGRADA = 256
    BGRADB = 512


class MatmulDescAttribute(enum.IntEnum):
    """Attributes of a product."""

    COMPUTE_TYPE = 0
    SCALE_TYPE = 1
    POINTER_MODE = 2
    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8
    BIAS_BATCH_STRIDE = 10
    EPILOGUE_AUX_POINTER = 11
    EPILOGUE_AUX_LD = 12
    EPILOGUE_AUX_BATCH_STRIDE = 13
    EPILOGUE_AUX_DATA_TYPE = 22
    BIAS_DATA_TYPE = 26


class MatrixLayoutAttribute(enum.IntEnum):
    """Attributes of a matrix."""

    TYPE = 0
    ORDER = 1
    ROWS = 2
    COLS = 3
    LD = 4
    BATCH_COUNT = 5
    STRIDED_BATCH_OFFSET = 6


class MatmulPreferenceAttribute(enum.IntEnum):
    """Attributes of the search for an algorithm."""

    SEARCH_MODE = 0
    MAX_WORKSPACE_BYTES = 1
    REDUCTION_SCHEME_MASK = 3
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


class Order(enum.IntEnum):
    """Layouts of a matrix."""

    COL = 0
    ROW = 1


class PointerMode(enum.IntEnum):
    """Where alpha and beta are."""

    HOST = 0
    DEVICE = 1


_DESC, _LAYOUT, _PREF = MatmulDescAttribute, MatrixLayoutAttribute, MatmulPreferenceAttribute

# The type of each attribute, and its value from the start.
DESC_ATTRIBUTES = {
    _DESC.COMPUTE_TYPE: (np.int32, 0),
    _DESC.SCALE_TYPE: (np.int32, 0),
    _DESC.POINTER_MODE: (np.int32, PointerMode.HOST),
    _DESC.TRANSA: (np.int32, 0),
    _DESC.TRANSB: (np.int32, 0),
    _DESC.EPILOGUE: (np.uint32, Epilogue.DEFAULT),
    _DESC.BIAS_POINTER: (np.int64, 0),
    _DESC.BIAS_BATCH_STRIDE: (np.int64, 0),
    _DESC.EPILOGUE_AUX_POINTER: (np.int64, 0),
    _DESC.EPILOGUE_AUX_LD: (np.int64, 0),
    _DESC.EPILOGUE_AUX_BATCH_STRIDE: (np.int64, 0),
    _DESC.EPILOGUE_AUX_DATA_TYPE: (np.int32, -1),
    _DESC.BIAS_DATA_TYPE: (np.int32, -1),
}
LAYOUT_ATTRIBUTES = {
    _LAYOUT.TYPE: (np.uint32, 0),
    _LAYOUT.ORDER: (np.int32, Order.COL),
    _LAYOUT.ROWS: (np.uint64, 0),
    _LAYOUT.COLS: (np.uint64, 0),
    _LAYOUT.LD: (np.int64, 0),
    _LAYOUT.BATCH_COUNT: (np.int32, 1),
    _LAYOUT.STRIDED_BATCH_OFFSET: (np.int64, 0),
}
PREFERENCE_ATTRIBUTES = {
    _PREF.SEARCH_MODE: (np.uint32, 0),
    _PREF.MAX_WORKSPACE_BYTES: (np.uint64, 0),
    _PREF.REDUCTION_SCHEME_MASK: (np.uint32, 0x7),
    _PREF.MIN_ALIGNMENT_A_BYTES: (np.uint32, 256),
    _PREF.MIN_ALIGNMENT_B_BYTES: (np.uint32, 256),
    _PREF.MIN_ALIGNMENT_C_BYTES: (np.uint32, 256),
    _PREF.MIN_ALIGNMENT_D_BYTES: (np.uint32, 256),
}

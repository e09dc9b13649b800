"""Blocks, the parts of a network: their settings, initial parameters and computation.

A block is called with its parameters, its input and a `Context`. It returns the output, the
pullback, and, for batch normalization, the batch statistics. Parameters contain everything that is
learned; a block without parameters sets ``has_params = False`` and gets ``()`` as its parameters.
"""

from mlp_xp.nn.blocks._affine import Affine, BlockAffine, Start
from mlp_xp.nn.blocks._base import Block, Context, Measured, Row, adapt, chain, rows
from mlp_xp.nn.blocks._elementwise import Activate, Dropout, ParametricActivate
from mlp_xp.nn.blocks._inputs import TableInputs
from mlp_xp.nn.blocks._members import MemberHeads, SharedAffine, check_members
from mlp_xp.nn.blocks._normalization import BatchNorm, LayerNorm
from mlp_xp.nn.blocks._numeric import NUMERIC_EMBEDDINGS, PBLD, PLE, NumericEmbedding
from mlp_xp.nn.blocks._residual import Residual
from mlp_xp.nn.blocks._signed import Signed, check_monotone, hidden_directions, keeps_order

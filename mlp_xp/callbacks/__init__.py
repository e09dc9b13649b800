"""Callbacks: objects that watch a fit and may end it.

They show progress, save checkpoints, write logs, or end a fit at a target score.
Early stopping, validation and ``max_time`` need no callback: estimators have parameters for them.
"""

from mlp_xp._utils.display.progress import time_left
from mlp_xp.callbacks._base import Callback
from mlp_xp.callbacks._checkpoint import Checkpoint
from mlp_xp.callbacks._logs import CSVLog, TensorBoard
from mlp_xp.callbacks._mlflow import MLflow
from mlp_xp.callbacks._progress_bar import ProgressBar
from mlp_xp.callbacks._search_checkpoint import SearchCheckpoint
from mlp_xp.callbacks._target_score import TargetScore
from mlp_xp.callbacks._wandb import WandB

__all__ = [
    "CSVLog",
    "Callback",
    "Checkpoint",
    "MLflow",
    "ProgressBar",
    "SearchCheckpoint",
    "TargetScore",
    "TensorBoard",
    "WandB",
    "time_left",
]

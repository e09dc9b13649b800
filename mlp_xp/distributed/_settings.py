"""The setting of the estimators that spreads a training over processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DATA = ("replicated", "sharded")


@dataclass(frozen=True)
class Distributed:
    """One training on many processes, each a *rank*, with the numbers of a training on one.

    Parameters
    ----------
    engine : {"mpi", "torch"}, default="mpi"
        ``"mpi"`` is mpi4py, for processes that ``mpiexec`` starts; ``"torch"`` is
        ``torch.distributed``, for ranks of ``torchrun``.
    data : {"replicated", "sharded"}, default="replicated"
        Whether each rank gives all samples, of which it computes a part of each batch, or rows of
        its own, perhaps none. The samples of sharded data are in the order of the ranks.
    deterministic : bool, default=False
        Whether the numbers are the same bits on 1, 2, 4 and 8 ranks. Each batch is then computed in
        eight virtual shards, summed in a fixed order, which takes longer; each rank has one thread
        unless ``OMP_NUM_THREADS`` is set. With L-BFGS each rank computes everything.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.distributed import Distributed
    >>> model = MLPClassifier(distributed=Distributed(data="sharded"))
    >>> Distributed(data="shards")
    Traceback (most recent call last):
    ValueError: `data` must be 'replicated' or 'sharded', got 'shards': did you mean 'sharded'?
    """

    engine: Literal["mpi", "torch"] = "mpi"
    data: Literal["replicated", "sharded"] = "replicated"
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.data not in DATA:
            from mlp_xp._utils.names import error_end  # Only for errors.

            end = error_end(self.data, DATA)
            raise ValueError(f"`data` must be 'replicated' or 'sharded', got {self.data!r}{end}")
        if not isinstance(self.deterministic, bool):
            raise ValueError(f"`deterministic` must be a bool, got {self.deterministic!r}.")
        if self.deterministic and self.data == "sharded":
            raise ValueError(
                "data is 'sharded', and deterministic is True: sharded rows are summed where they "
                "are, so give all samples to every rank (data='replicated'), or set "
                "deterministic=False."
            )

"""The estimators' setting for training on several processes."""

from __future__ import annotations

from typing import Literal

from mlp_xp._utils.dataclass import dataclass

DATA = ("replicated", "sharded")


@dataclass(frozen=True)
class Distributed:
    """Training of one network on several processes (*ranks*), with the same results as on one.

    Parameters
    ----------
    engine : {"mpi", "torch", "tcp"}, default="mpi"
        ``"mpi"`` uses mpi4py, for processes started by ``mpiexec``; ``"torch"`` uses
        ``torch.distributed``, for processes started by ``torchrun``; ``"tcp"`` is for processes
        connected by `connect_ranks`.
    data : {"replicated", "sharded"}, default="replicated"
        If ``"replicated"``, each rank passes all samples and computes its part of each batch. If
        ``"sharded"``, each rank passes only its own rows, possibly none; the samples are in rank
        order.
    deterministic : bool, default=False
        Whether results are bitwise identical on 1, 2, 4 and 8 ranks. If so, each batch is computed
        in eight virtual shards, which are summed in a fixed order. This is slower. From then on,
        each rank uses one thread, unless ``OMP_NUM_THREADS`` is set. For L-BFGS, each rank computes
        all samples.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.distributed import Distributed
    >>> model = MLPClassifier(distributed=Distributed(data="sharded"))
    >>> Distributed(data="shards")
    Traceback (most recent call last):
    ValueError: `data` must be 'replicated' or 'sharded', got 'shards': did you mean 'sharded'?
    """

    engine: Literal["mpi", "torch", "tcp"] = "mpi"
    data: Literal["replicated", "sharded"] = "replicated"
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.data not in DATA:
            from mlp_xp._utils.names import error_end  # Imported only for error messages.

            end = error_end(self.data, DATA)
            raise ValueError(f"`data` must be 'replicated' or 'sharded', got {self.data!r}{end}")
        if not isinstance(self.deterministic, bool):
            raise ValueError(f"`deterministic` must be a bool, got {self.deterministic!r}.")
        if self.deterministic and self.data == "sharded":
            raise ValueError(
                "data='sharded' does not support deterministic=True: pass all samples to each rank "
                "(data='replicated'), or set deterministic=False."
            )

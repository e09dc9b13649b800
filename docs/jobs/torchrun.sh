#!/bin/bash
# One training with torchrun, on the GPUs or CPUs of one or more machines. On one machine, run
# `torchrun.sh train.py`. On four machines, run `NODES=4 HOST=node1 torchrun.sh train.py` on each of
# them, where node1 is one of the four. In train.py, use MLP(backend="torch", distributed="torch",
# device=f"cuda:{os.environ['LOCAL_RANK']}", ...) on GPUs, and fit(..., resume=FOLDER).
set -eu
SCRIPT=${1:?a script that calls fit}
shift
HOST=${HOST:-localhost}
# One rank per GPU, or two ranks without a GPU.
RANKS=${RANKS:-$(nvidia-smi --list-gpus 2>/dev/null | grep -c GPU || true)}
[ "$RANKS" -gt 0 ] || RANKS=2
# Without this variable, torchrun would give each rank one core.
CORES=$(($(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN) / RANKS))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((CORES > 0 ? CORES : 1))}

exec torchrun --nnodes "${NODES:-1}" --nproc-per-node "$RANKS" \
    --rdzv-backend c10d --rdzv-endpoint "$HOST:${PORT:-29400}" "$SCRIPT" "$@"

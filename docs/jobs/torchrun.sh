#!/bin/bash
# One training under torchrun, on the GPUs or processors of one or more machines. On one machine:
# `torchrun.sh train.py`. On each of four: `NODES=4 HOST=node1 torchrun.sh train.py`, where node1 is
# any one of them. In train.py, as in README's: MLP(backend="torch", distributed="torch", ...), with
# resume=FOLDER in fit.
set -eu
SCRIPT=${1:?a script that calls fit}
shift
HOST=${HOST:-localhost}
# The ranks of a machine: its GPUs, or 2 on the processor.
RANKS=${RANKS:-$(nvidia-smi --list-gpus 2>/dev/null | grep -c GPU || true)}
[ "$RANKS" -gt 0 ] || RANKS=2

exec torchrun --nnodes "${NODES:-1}" --nproc-per-node "$RANKS" \
    --rdzv-backend c10d --rdzv-endpoint "$HOST:${PORT:-29400}" "$SCRIPT" "$@"

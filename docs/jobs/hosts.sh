#!/bin/bash
# One training on a list of machines, without a scheduler: `hosts.sh hosts`. Each line of the file
# `hosts` is a machine and its number of ranks, such as `node1:2`. All machines need the same
# environment, the same paths, a shared disk, and ssh without a password.
set -eu
HOSTS=${1:?a file with one line per machine, such as node1:2}
RUN=${RUN:-runs/mine}
RANKS=$(awk -F: '{ ranks += $2 ? $2 : 1 } END { print ranks }' "$HOSTS")

exec mpiexec -f "$HOSTS" -n "$RANKS" \
    mlp-xp train --distributed mpi ${OPTIONS:---recipe hour} --out "$RUN" --resume

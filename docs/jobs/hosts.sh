#!/bin/bash
# One training on the machines of a list, without a scheduler: `hosts.sh hosts`. Each line of the list
# is a machine and its number of ranks, such as `node1:2`. Needed: the same environment and the same
# paths on all of them, a common disk, and ssh without a password.
set -eu
HOSTS=${1:?a file with a line such as node1:2 for each machine}
RUN=${RUN:-runs/mine}
RANKS=$(awk -F: '{ ranks += $2 ? $2 : 1 } END { print ranks }' "$HOSTS")

if [ -e "$RUN.partial" ]; then
    exec mpiexec -f "$HOSTS" -n "$RANKS" mlp-xp train --distributed mpi --resume "$RUN"
fi
exec mpiexec -f "$HOSTS" -n "$RANKS" mlp-xp train --distributed mpi ${OPTIONS:---recipe hour} --out "$RUN"

#!/bin/bash
# A search on the machines of a Slurm job: `sbatch search.sh search.py`. The script reads the
# scheduler's address from the file $SCHEDULER, as in docs/many-machines.md.
#SBATCH --nodes=4 --ntasks-per-node=1 --cpus-per-task=16 --time=04:00:00
set -eu
SCRIPT=${1:?a script that connects to the scheduler}
export SCHEDULER=${SCHEDULER:-$PWD/scheduler.json}
THREADS=${SLURM_CPUS_PER_TASK:-2}
rm -f "$SCHEDULER"

dask scheduler --port 0 --no-dashboard --scheduler-file "$SCHEDULER" &
trap 'kill $(jobs -p)' EXIT
START=""
[ -z "${SLURM_JOB_ID:-}" ] || START=srun
# One worker with one thread per CPU core.
$START dask worker --scheduler-file "$SCHEDULER" --no-dashboard --nworkers "$THREADS" --nthreads 1 &
python "$SCRIPT"

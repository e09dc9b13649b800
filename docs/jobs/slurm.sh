#!/bin/bash
# One training on four machines of a Slurm cluster: `sbatch slurm.sh`. The folder `runs` must be on a
# disk that all machines can access. Slurm sends SIGTERM a minute before the time limit, or if another
# job needs the machines. Then rank 0 writes a last checkpoint, all ranks end with status 143, and the
# job is requeued and resumes. If the run is complete, the job prints its result and ends.
#SBATCH --nodes=4 --ntasks-per-node=1 --cpus-per-task=16
#SBATCH --time=04:00:00 --signal=B:TERM@60 --requeue --open-mode=append
set -u
RUN=${RUN:-runs/mine}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

# mpiexec finds the machines of the job. (`srun --mpi=pmi2` can also start the ranks.)
train() { exec mpiexec -n "${SLURM_NTASKS:-2}" mlp-xp train --distributed mpi "$@"; }

train ${OPTIONS:---recipe hour} --out "$RUN" --resume &
trap 'kill -TERM $!' TERM
wait $!; status=$?
if [ $status -gt 128 ]; then wait $!; status=$?; fi
if [ $status -eq 143 ] && [ -n "${SLURM_JOB_ID:-}" ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $status

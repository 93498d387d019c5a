#!/usr/bin/env bash
# One phase on several nodes:  sbatch --nodes 3 local/slurm.sh --config conf/7b/train_2_adapter.yaml --data conf/data.yaml --exp_dir exp/2_adapter
# Before its time is up, SLURM tells the training processes; they save and exit with 85, and the job is queued again.
# A node that dies takes the job down; SLURM queues it again by itself. Either way the run goes on from its last checkpoint.
#SBATCH --job-name=osum
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x_%j.log
set -uo pipefail

# One process per device, started by srun and not by torchrun, which would allow only half a minute for saving and hide the exit status.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

# shellcheck disable=SC2016  # the variables are those of each process
srun --kill-on-bad-exit=1 bash -c 'RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID exec python -m wenet_osum.bin.train "$@"' train "$@"
status=$?
if [ "$status" -eq 85 ]; then
  echo "interrupted and saved; queued again"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"

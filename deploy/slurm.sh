#!/bin/bash
# Pretraining on several machines of a Slurm cluster: sbatch deploy/slurm.sh
#SBATCH --job-name=lucidlm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120    # two minutes before the time is over: a checkpoint is saved
#SBATCH --requeue            # a job that is preempted starts again, and goes on from there

set -euo pipefail
DATA=${DATA:-data}           # both on a disk that all machines share
OUT=${OUT:-model}
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
RESUME=()
if compgen -G "$OUT/checkpoints/step-*" > /dev/null; then
  RESUME=(--resume)
fi

srun torchrun \
  --nnodes "$SLURM_NNODES" \
  --nproc-per-node 8 \
  --max-restarts 3 \
  --rdzv-backend c10d \
  --rdzv-id "$SLURM_JOB_ID" \
  --rdzv-endpoint "$HEAD:29500" \
  -m lucidlm pretrain --data "$DATA" --out "$OUT" --depth 12 --batch-size 512 --max-steps 20000 "${RESUME[@]}"

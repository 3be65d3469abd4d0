#!/bin/bash
# mamegpt on two nodes of four GPUs: sbatch examples/slurm.sh
# One launcher a node; the run's folder must be on a file system that all nodes see.
#SBATCH --job-name=mamegpt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120

set -euo pipefail
RUN=runs/first
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# A job that was requeued goes on where it was; TERM, two minutes before its end, makes it save first.
if [ -f "$RUN/config.json" ]; then
  COMMAND=(--resume "$RUN")
else
  COMMAND=(--data wiki.parquet --tokenizer jp.model --out "$RUN" --precision bf16 --batch-size 64 --max-steps 20000)
fi

srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 4 --max-restarts 3 \
  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$HEAD:29500" \
  --no-python mamegpt train "${COMMAND[@]}"

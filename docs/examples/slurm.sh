#!/usr/bin/env bash
#SBATCH --job-name=units
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=02:00:00
# One unit of a study per job: sbatch --array=0-LAST docs/examples/slurm.sh STUDY.toml
# The first job pools the features and sets the folder up; the others wait for that.
set -euo pipefail
study=$1
unit=$(toolkit study "$study" --dry-run --json | python -c '
import json, os, sys
print(json.load(sys.stdin)["units"][int(os.environ["SLURM_ARRAY_TASK_ID"])])')
toolkit study "$study" --only "$unit"

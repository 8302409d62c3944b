#!/usr/bin/env bash
# A study on a Dask cluster of two workers, all on this machine: docs/examples/dask.sh STUDY.toml
set -euo pipefail
study=$1
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

dask scheduler --host 127.0.0.1 --port 0 --dashboard-address 127.0.0.1:0 \
  --scheduler-file "$work/scheduler.json" &
for _ in 1 2; do
  dask worker --scheduler-file "$work/scheduler.json" --host 127.0.0.1 --nthreads 1 \
    --no-dashboard --local-directory "$work" &
done
until [ -s "$work/scheduler.json" ]; do sleep 0.2; done
address=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$work/scheduler.json")
toolkit study "$study" --scheduler "$address"

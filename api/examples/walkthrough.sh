#!/usr/bin/env bash
# A walk through the API with curl: upload, compress, watch, measure, predict, download, delete.
#
#   weightpress serve &
#   api/examples/walkthrough.sh [http://127.0.0.1:8080]
set -euo pipefail

base=${1:-http://127.0.0.1:8080}
here=$(cd "$(dirname "$0")/../.." && pwd)
model=$here/tests/fixtures/digits_mlp.onnx
data=$here/tests/fixtures/digits_val.npz
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

step() { printf '\n== %s\n' "$*"; }
call() { curl --silent --show-error --fail-with-body "$@" && echo; }

step "upload a model; its digest is verified"
digest=$(openssl dgst -sha256 -binary "$model" | base64)
call --data-binary "@$model" --header "Repr-Digest: sha-256=:$digest:" "$base/api/v1/models?name=walk-digits"

step "upload a dataset, as a form"
call --form "file=@$data" "$base/api/v1/datasets?name=walk-digits"

evaluation='{"metrics": ["accuracy"], "data": {"dataset": "walk-digits",
  "inputs": {"input": {"array": "x"}}, "target": {"array": "y", "kind": "class"}}}'
job='{"kind": "compress", "model": "walk-digits", "make_default": true, "evaluation": '"$evaluation"', "recipe": {
  "prune": {"criterion": "magnitude", "sparsity": 0.6},
  "quantize": {"method": "cws", "levels": 31, "codebook": "unified"},
  "encode": {"codec": "auto", "goal": "smallest"}}}'

step "ask what a compression would give, without queueing it"
call --data "$job" "$base/api/v1/jobs?dry_run=true"

step "queue it; the header Location says where it is"
location=$(curl --silent --show-error --fail-with-body --data "$job" --output /dev/null \
  --write-out '%header{location}' "$base/api/v1/jobs")
echo "$location"

step "follow its events until it is finished"
call --no-buffer --header "Accept: text/event-stream" "$base$location/events"

step "its result"
call "$base$location"

step "predict on the compressed weights, by the Open Inference Protocol"
zeros=$(printf '0,%.0s' {1..63})0
call --data '{"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": ['"$zeros"']}]}' \
  "$base/v2/models/walk-digits/infer"

step "search for the smallest version that loses at most a fiftieth of accuracy: selected on some digits, measured on others"
map='"dataset": "walk-digits", "inputs": {"input": {"array": "x"}}, "target": {"array": "y", "kind": "class"}'
search='{"kind": "search", "model": "walk-digits", "metric": "accuracy", "max_drop": 0.02,
  "data": {"validation": {'"$map"', "range": [0, 225]}, "test": {'"$map"', "range": [225, 450]}},
  "space": {"sparsity": [0.3, 0.5, 0.7], "levels": [7, 15]}}'
call --header "Prefer: wait=30" --data "$search" "$base/api/v1/jobs"

step "time version 1 beside version 0, one sample at a time and 32"
benchmark='{"kind": "benchmark", "model": "walk-digits", "version": 1, "batch": [1, 32], "threads": [1], "seconds": 0.2}'
call --header "Prefer: wait=30" --data "$benchmark" "$base/api/v1/jobs"

step "download the artifact, in two parts, and as a plain ONNX file"
content=$base/api/v1/models/walk-digits/versions/1/content
call --range 0-999 --output "$out/first.part" "$content"
call --range 1000- --output "$out/second.part" "$content"
cat "$out/first.part" "$out/second.part" > "$out/digits.safetensors"
call --output "$out/digits.onnx" "$content?format=onnx"
ls -l "$out"

step "delete what was made"
call --request DELETE "$base/api/v1/models/walk-digits"
call --request DELETE "$base/api/v1/datasets/walk-digits"

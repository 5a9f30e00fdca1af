#!/usr/bin/env bash
# docs/study/llama-70b-four-h100s.md from end to end: scripts/study.sh FOLDER RUNS [PICTURES]
# FOLDER: where the results go. RUNS: where llama-2-70b-tp4-codegen.csv.gz and llama-2-70b-tp4-general.csv.gz are.
# PICTURES: where the pictures go. Between the lines stands what the page has, block for block.
set -euo pipefail
mkdir -p "$1"
out=$(realpath "$1")
runs=$(realpath "$2")
pictures=${3:-$out/pictures}
# ---
plan=(-m experiment=capacity_h100 hydra.sweeper.tolerance=0.02 "output.root=$out")
seeds=$(vidur-sim "${plan[@]}" workload.seed=0,1,2,3,4 | tail -1)
vidur-sim "${plan[@]}" workload.num_requests=10000 workload.seed=0,1,2 workload.arrival.rate_per_s=5

mkdir -p "$out/llama-2-70b"
cat > "$out/llama-2-70b/config.json" <<END
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
 "num_hidden_layers": 80, "hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8,
 "intermediate_size": 28672, "vocab_size": 32000, "max_position_embeddings": 4096}
END
llama2=("output.root=$out" hardware=h100 model=hf "model.config=$out/llama-2-70b" profile=operator_db
  backend=recorded backend.engine=vllm backend.engine_version=0.15.1
  limits.tensor_parallel=4 limits.max_num_seqs=128 limits.max_num_batched_tokens=2048 limits.num_blocks=31356)
codegen=("${llama2[@]}" workload=trace "workload.trace=$runs/llama-2-70b-tp4-codegen.csv.gz")
general=("${llama2[@]}" workload=trace "workload.trace=$runs/llama-2-70b-tp4-general.csv.gz")

workload-spec "${codegen[@]}"
workload-spec "${general[@]}"
real_codegen=$(real-bench "${codegen[@]}" | tail -1)
real_general=$(real-bench "${general[@]}" | tail -1)
vidur-profile "${llama2[@]}"
sim_codegen=$(vidur-sim "${codegen[@]}" "real_run_dir=$real_codegen" | tail -1)
sim_general=$(vidur-sim "${general[@]}" "real_run_dir=$real_general" | tail -1)
nothing_fitted=$(compare-runs "${codegen[@]}" "real_run_dir=$real_codegen" "sim_run_dir=$sim_codegen" | tail -1)
compare-runs "${general[@]}" "real_run_dir=$real_general" "sim_run_dir=$sim_general"

vidur-profile "${codegen[@]}" "vidur.profiling.root=$out/by-codegen" "calibration.real_run_dir=$real_codegen"
vidur-profile "${general[@]}" "vidur.profiling.root=$out/by-general" "calibration.real_run_dir=$real_general"

calibrated=(vidur/predictor=calibrated vidur.samples=0)
held_general=$(vidur-sim "${general[@]}" "${calibrated[@]}" "vidur.profiling.root=$out/by-codegen" "real_run_dir=$real_general" | tail -1)
held_codegen=$(vidur-sim "${codegen[@]}" "${calibrated[@]}" "vidur.profiling.root=$out/by-general" "real_run_dir=$real_codegen" | tail -1)
compare-runs "${general[@]}" "real_run_dir=$real_general" "sim_run_dir=$held_general"
held_out=$(compare-runs "${codegen[@]}" "real_run_dir=$real_codegen" "sim_run_dir=$held_codegen" | tail -1)

constants=data/profiling/compute/h100/llama-2-70b/calibration.json
llama31=data/profiling/compute/h100/meta-llama/Meta-Llama-3.1-70B
vidur-profile experiment=capacity_h100 "output.root=$out" "vidur.profiling.root=$out/llama-3.1-by-codegen"
vidur-profile experiment=capacity_h100 "output.root=$out" "vidur.profiling.root=$out/llama-3.1-by-general"
cp "$out/by-codegen/$constants" "$out/llama-3.1-by-codegen/$llama31/"
cp "$out/by-general/$constants" "$out/llama-3.1-by-general/$llama31/"
both=$(vidur-sim "${plan[@]}" vidur/predictor=calibrated vidur.samples=5 \
  "vidur.profiling.root=$out/llama-3.1-by-codegen,$out/llama-3.1-by-general" | tail -1)

vidur-sim "${plan[@]}" slo.ttft_ms=1904.76 slo.tbt_ms=47.619
vidur-sim "${plan[@]}" slo.ttft_ms=2105.26 slo.tbt_ms=52.632

coarse=(-m experiment=capacity_h100 "output.root=$out")
vidur-sim "${coarse[@]}" workload.num_prefill_tokens_median=512,2048
vidur-sim "${coarse[@]}" slo.tbt_ms=40,60
# ---
chart() { python "$(dirname "$0")/chart.py" "$@"; }
mkdir -p "$pictures"
chart "$seeds/index.html" "Requests that meet the objectives" "$pictures/seeds-objectives.svg"
chart "$seeds/index.html" "Time per output token, P99" "$pictures/seeds-tpot.svg"
chart "$both/index.html" "Requests that meet the objectives" "$pictures/calibrated-objectives.svg"
cp "$nothing_fitted/plots/e2e_cdf.png" "$pictures/codegen-nothing-fitted-e2e.png"
cp "$held_out/plots/e2e_cdf.png" "$pictures/codegen-held-out-e2e.png"

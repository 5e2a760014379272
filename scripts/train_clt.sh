#!/usr/bin/env bash
# Train transcoders of several pairs, sizes and sparsities of one run, one after another, from a shell.
#
#   scripts/train_clt.sh RUN_DIR [any option of `elute routing train-transcoder`, as --num_epochs 20 --wandb_project P]
#
# What is walked through comes from the environment, with blanks between; unset, it is what stands behind := here:
#   PAIRS="clt_L0_to_L2 encoder_layer_1:encoder_output"    all that were collected
#   EXPANSION_FACTORS="4 8"   K_RATIOS="0.0625 0.125"   LRS=""   SEEDS="0"
#
# WANDB_API_KEY and WANDB_MODE are read as ever; every training takes the options that stand behind RUN_DIR. A training
# that is there is used as it is and one that was interrupted goes on, so that the same command may be given again.
# `elute routing grid` does the same in one process and ranks what came of it.
set -euo pipefail

if [[ $# -lt 1 || $1 == -* ]]; then
    echo "usage: $0 RUN_DIR [options of elute routing train-transcoder]" >&2
    exit 2
fi
run=$1
shift

read -r -a elute <<<"${ELUTE:-elute}"
read -r -a factors <<<"${EXPANSION_FACTORS:-4}"
read -r -a ratios <<<"${K_RATIOS:-0.0625}"
read -r -a rates <<<"${LRS:-}"
read -r -a seeds <<<"${SEEDS:-0}"
if [[ -n ${PAIRS:-} ]]; then
    read -r -a pairs <<<"$PAIRS"
else
    pairs=()
    for place in "$run"/clt/activations/*/metadata.json; do
        name=$(basename "$(dirname "$place")")
        # Rows of several layers at once (clt_L0-L1-…) are for `elute routing train-clt`.
        [[ -f $place && $name != *-* ]] && pairs+=("$name")
    done
fi
if [[ ${#pairs[@]} -eq 0 ]]; then
    echo "error: $run: there are no pairs. Collect some with \`elute routing collect-pairs --run_dir $run\`, or set PAIRS." >&2
    exit 1
fi

failed=0
for pair in "${pairs[@]}"; do
    for factor in "${factors[@]}"; do
        for ratio in "${ratios[@]}"; do
            for rate in "${rates[@]:-}"; do
                for seed in "${seeds[@]}"; do
                    echo "== $pair, expansion factor $factor, k ratio $ratio${rate:+, rate $rate}, seed $seed"
                    "${elute[@]}" routing train-transcoder --run_dir "$run" --pair "$pair" \
                        --expansion_factor "$factor" --k_ratio "$ratio" ${rate:+--lr "$rate"} --seed "$seed" "$@" \
                        || failed=$((failed + 1))
                done
            done
        done
    done
done
if [[ $failed -gt 0 ]]; then
    echo "error: $failed of the trainings above failed" >&2
    exit 1
fi

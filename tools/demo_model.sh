#!/bin/bash
# Prints the checkpoint that a demo serves: the one given; or the one of models/english, which has learnt English; or, with FAMILY, a small
# one with random weights, made once.
set -euo pipefail
cd "$(dirname "$0")/.."
model=${1:-}

if [ -z "$model" ] && [ -z "${FAMILY:-}" ] && [ -f models/english/config.json ]; then
    model=models/english
elif [ -z "$model" ]; then
    family=${FAMILY:-olmoe}
    model=.demo/$family
    if [ ! -f "$model/config.json" ]; then
        echo "== making a small $family checkpoint in $model (random weights: the text will be noise, the machinery is real)" >&2
        /usr/bin/python3 tools/make_checkpoint.py "$model" --family "$family" >&2
    fi
fi
echo "$model"

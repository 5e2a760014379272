#!/bin/sh
# The peers' own environment, benchmarks/peers/.venv: PyTorch for the CPU first and by itself, then the rest with
# --no-deps. Fails where torchvision or a CUDA package got in. May be run again.
set -eu
cd "$(dirname "$0")"
test -x .venv/bin/python || "${PYTHON:-python3}" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
pip install --quiet torch==2.13.0 numpy==2.4.6
pip install --quiet --no-deps --requirement requirements.txt
if pip list --format freeze | grep -iE '^(nvidia|cuda|triton|torchvision)'; then
    echo "these must not be in the peers' environment: point pip at PyTorch's builds for the CPU," >&2
    echo "remove benchmarks/peers/.venv and run build.sh again" >&2
    exit 1
fi
touch .venv/.ready

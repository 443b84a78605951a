#!/bin/bash
# make test-train: the trainers' tests. PYTHON names an interpreter that has train/requirements.txt; else build/train-venv is made with
# packages of the Python registry. Where that does not answer, the tests are named as skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-build/train-venv/bin/python}
if [ -z "${PYTHON:-}" ] && [ ! -e build/train-venv/whole ]; then
    python3 -m venv build/train-venv
    if ! build/train-venv/bin/pip install -q -r train/requirements.txt; then
        echo "SKIPPED: tests/train/test_train.py (no Python registry to install train/requirements.txt from)"
        exit 0
    fi
    touch build/train-venv/whole
fi
OMP_NUM_THREADS=1 exec "$python" tests/train/test_train.py

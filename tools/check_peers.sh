#!/bin/bash
# make check-peers: the same strings through the Python `tokenizers` package (installed into build/peers-venv) and through ours, on real
# tokenizer.json files. CONCLAVE_TOKENIZERS names the folder that has them.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
if [ -z "${CONCLAVE_TOKENIZERS:-}" ]; then
    echo "skipped: CONCLAVE_TOKENIZERS names no folder with real tokenizer.json files"
    exit 0
fi
exec python3 tools/check_peers_tokenizers.py --probe "$bin/tokenizer_probe" --tokenizers "$CONCLAVE_TOKENIZERS"

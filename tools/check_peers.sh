#!/bin/bash
# make check-peers: our answers beside those of public Python packages (installed into build/peers-venv if they are not there).
#   models      final log-probabilities of small random OLMoE, Mixtral and Qwen3-MoE against `transformers`; MODEL=DIR for one of yours
#   sentencepiece  random strings and ids through SentencePiece (Debian's package) on models trained for it
#   templates   chat templates beside jinja2: constructions, 20,000 conversations; CONCLAVE_TEMPLATES names a folder with real ones
#   tokenizers  random strings through `tokenizers` on real tokenizer.json files; CONCLAVE_TOKENIZERS names the folder that has them
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
/usr/bin/python3 tools/check_peers_sentencepiece.py --probe "$bin/tokenizer_probe"
python3 tools/check_peers_templates.py --probe "$bin/template_probe" ${CONCLAVE_TEMPLATES:+--templates "$CONCLAVE_TEMPLATES"}
if [ -n "${CONCLAVE_TOKENIZERS:-}" ]; then
    python3 tools/check_peers_tokenizers.py --probe "$bin/tokenizer_probe" --tokenizers "$CONCLAVE_TOKENIZERS"
else
    echo "tokenizers skipped: CONCLAVE_TOKENIZERS names no folder with real tokenizer.json files"
fi
exec python3 tools/check_model_peers.py --conclave "$bin/conclave" --coordinator "$bin/conclave-coordinator" ${MODEL:+--model "$MODEL"}

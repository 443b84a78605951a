#!/bin/bash
# make check-peers: our answers beside those of public Python packages (installed into build/peers-venv if they are not there).
#   models      final log-probabilities of small random OLMoE, Mixtral and Qwen3-MoE against `transformers`, with a pack against what
#               `conclave export` writes of both; MODEL=DIR for one of yours
#   packs       answers with a pack through 1, 2 and 5 nodes against the oracle's, for all families and gates (make test: three of them)
#   sentencepiece  random strings and ids through SentencePiece (Debian's package) on models trained for it
#   templates   chat templates beside jinja2: constructions, 20,000 conversations; TEMPLATES names a folder with real ones
#   tokenizers  random strings through `tokenizers` on small tokenizers with the pipelines of published checkpoints, and on real
#               tokenizer.json files where TOKENIZERS names a folder that has them
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
UCX_MEM_EVENTS=n /usr/bin/python3 -B tests/integration/packs_nodes.py "$bin/conclave" "$bin/conclave-coordinator" "$bin/conclave-node" ||
  [ $? = 77 ] # etcd is missing
/usr/bin/python3 tools/check_peers_sentencepiece.py --driver "$bin/tokenizer_driver"
python3 tools/check_peers_templates.py --driver "$bin/template_driver" ${TEMPLATES:+--templates "$TEMPLATES"}
python3 tools/check_peers_tokenizers.py --driver "$bin/tokenizer_driver" ${TOKENIZERS:+--tokenizers "$TOKENIZERS"}
exec python3 tools/check_model_peers.py --conclave "$bin/conclave" --coordinator "$bin/conclave-coordinator" ${MODEL:+--model "$MODEL"}

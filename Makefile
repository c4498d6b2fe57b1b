# The front of the project: `make help` lists what there is. Everything here is what CI and a user run.

PREFIX ?= /usr/local
PYTHON := .venv/bin/python
# The shipped library, for the Python programs that run from the checkout.
CHECKOUT := PYTHONPATH=bindings/python/src AUTOGLM_RELIABILITY_LIB=$(CURDIR)/build/libautoglm_reliability.so

.DEFAULT_GOAL := help
.PHONY: help deps build demo test check check-long lint sanitize valgrind abi coverage fuzz models linear stress mutate \
  bench bench-check bench-growth bench-long bench-clock bench-cluster bench-integrations load embedding-demo \
  aarch64 instructions wheel install package generate format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## installs what is missing: Debian packages (as root; else it says which), a Python environment
	@scripts/install-deps

build: deps ## the shipped library, libautoglm_reliability.so, in build/
	@cmake -S . -B build -G Ninja -DCMAKE_INSTALL_PREFIX=$(PREFIX) >/dev/null
	@cmake --build build

demo: build ## the same traffic to a failing server, naive and guarded: a table and a picture, in a minute
	@$(CHECKOUT) $(PYTHON) demo/run.py build/demo_client --out out

test: deps ## every suite, in Swift, C, C++ and Python; ends with a line of counts
	@scripts/test

check: deps ## all that can be checked in minutes: what CI runs; ends with a line of counts
	@scripts/check

check-long: build ## looks for defects for SECONDS (3600), and goes on where it was stopped
	@scripts/check-long $(or $(SECONDS),3600)

lint: build ## formatting, types, style, drift of what is generated
	@swift format lint --strict --recursive --parallel Package.swift Sources Tests
	@$(PYTHON) scripts/generate_bindings.py --check
	@cd bindings/python && ../../.venv/bin/mypy && ../../.venv/bin/ruff check . ../../scripts ../../benchmarks

sanitize: ## the Swift suites under ThreadSanitizer and AddressSanitizer
	@scripts/sanitize

valgrind: build ## the shipped library under valgrind: no error, no leak
	@scripts/install-deps valgrind
	@for program in test_bad_input "test_arguments abi/exports.txt singles" test_canary "test_vectors Tests/vectors" test_binding test_store_policy; do \
	  valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,indirect build/Tests/$$program || exit 1; \
	done

abi: deps ## the public headers against the released ABI, by abidiff
	@scripts/install-deps abigail-tools
	@$(PYTHON) scripts/check_abi.py --prove

coverage: build ## the regions of the library that the suites reach, at least 95 %
	@scripts/coverage

fuzz: deps ## libFuzzer over the C entry points, SECONDS (60) for each harness
	@scripts/fuzz $(or $(SECONDS),60)

models: build ## random histories against a model of each engine, STEPS (10^8) an engine, on from where it was stopped
	@build/Tests/test_models --cases Tests/model/cases --steps $(or $(STEPS),100000000) --state build/models.state

linear: build ## concurrent histories, each of which must have an order: HISTORIES (10^6) of each kind
	@build/Tests/test_linear $(or $(HISTORIES),1000000)

stress: deps ## 16 threads on every kind of object under ThreadSanitizer, OPERATIONS (20,000) of each thread
	@scripts/stress $(or $(OPERATIONS),20000)

mutate: build ## breaks the library in many places and sees whether the suites notice; an hour
	@$(PYTHON) scripts/mutate.py

bench: build ## everything beside floors and peers: results, tables and a picture in docs/performance.md; minutes
	@$(PYTHON) benchmarks/run.py $(BENCH)

bench-check: build ## fails when a goal is missed that docs/performance.md does not list
	@$(PYTHON) benchmarks/run.py --check

bench-growth: build ## time and memory with more keys, threads and buckets; half a minute and 8 GiB
	@$(PYTHON) benchmarks/run.py --growth

bench-long: build ## the idempotency cache for PAIRS (10^8) of begin and complete, by one thread and by two
	@$(PYTHON) benchmarks/run.py --long $(or $(PAIRS),100000000)

bench-clock: build ## the clock's error over SECONDS (300)
	@$(PYTHON) benchmarks/run.py --clock $(or $(SECONDS),300)

bench-cluster: deps ## simulates 1,000 processes that share a budget through a store: docs/cluster.md; a minute
	@$(PYTHON) benchmarks/cluster_simulation.py --write

bench-integrations: build ## what middleware and transport add to a request, beside slowapi, fastapi-limiter, tenacity
	@benchmarks/integrations/run --write

load: build ## wrk against the C++ server, and the C client: nothing is lost, no limit exceeded; half a minute
	@scripts/install-deps wrk
	@$(PYTHON) benchmarks/load_test.py

embedding-demo: build ## a real model with and without the middleware: docs/integrations/embedding.md; two minutes
	@$(PYTHON) benchmarks/embedding_load.py --write

instructions: build ## instructions of the hot paths, by callgrind, against benchmarks/instructions.json
	@scripts/install-deps valgrind
	@$(PYTHON) benchmarks/instructions.py

aarch64: deps ## the library for 64-bit ARM, with the C and C++ suites run under an emulator
	@scripts/aarch64

wheel: build ## a wheel for pip in build/wheels, for any Linux with glibc 2.28 or later
	@scripts/wheel

install: build ## installs library, headers, pkg-config file and CMake package below PREFIX (/usr/local)
	@cmake --install build --prefix $(PREFIX)

package: build ## a Debian package in build/
	@cd build && cpack

generate: deps ## what is derived from the headers: Python declarations, export list, layout
	@$(PYTHON) scripts/generate_bindings.py

format: ## formats the Swift sources
	@swift format --in-place --recursive --parallel Package.swift Sources Tests

clean: ## removes everything that was built
	@rm -rf build .build-* out

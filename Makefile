# Front door. CMake does the work; see CMakePresets.json for the presets.
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := build
SHELL := /bin/bash
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local

.PHONY: build run test test-dev test-asan test-tsan tsa check mutants defects consumer cross fuzz soak format bootstrap install clean help

build: require ## Release build of the library and of the program: build/kvbm
	@cmake --preset release >/dev/null
	cmake --build --preset release -j $(JOBS) --target kvbm kvbm_program
	@ln -sfn release/bin/kvbm build/kvbm

run: bootstrap build ## build, then generate a small trace and replay it
	scripts/run_demo

test: bootstrap test-dev test-asan test-tsan ## all tests; then again under ASan+UBSan and TSan

test-dev:
	@cmake --preset dev >/dev/null
	cmake --build --preset dev -j $(JOBS)
	ctest --preset dev -j $(JOBS)

test-asan:
	@cmake --preset asan >/dev/null
	cmake --build --preset asan -j $(JOBS)
	ctest --preset asan -j $(JOBS)

# Concurrent tests want the cores for themselves.
test-tsan:
	@cmake --preset tsan >/dev/null
	cmake --build --preset tsan -j $(JOBS)
	ctest --preset tsan

tsa: bootstrap ## build with clang: thread safety analysis
	@cmake --preset tsa >/dev/null
	cmake --build --preset tsa -j $(JOBS)

check: bootstrap ## quick checks: layers, tidiness, links, headers, format
	tools/check

MUTATOR := build/mutants/venv/bin/mutate
mutants: bootstrap $(MUTATOR) ## break src/logical line by line: does a test fail? Options: MUTANTS="--help"
	nice -n 10 tools/mutants.py $(MUTANTS)

# Without its other dependencies, which only other commands of it need.
$(MUTATOR):
	python3 -m venv build/mutants/venv
	$(@D)/pip install -q --no-deps universalmutator==1.14.1 tabulate==0.10.0 || { rm -f $@; exit 1; }

# The simulator must find defects that are planted in a copy of the source.
defects: bootstrap ## break the tier engine in known ways: does `kvbm torture` find it?
	tests/defects/run $(DEFECTS)

consumer: bootstrap ## install to a temporary prefix and build against it
	tests/consumer/check.sh

cross: bootstrap ## copying and summing compiled for aarch64, tested in an emulator
	tests/cross/check.sh

fuzz: bootstrap ## a million random changes to files and messages, under sanitizers; FUZZ_RUNS=...
	@cmake --preset fuzz >/dev/null
	cmake --build --preset fuzz -j $(JOBS)
	tests/fuzz/run

soak: bootstrap ## a million schedules, a million faults, a thousand kills, 100,000 losses of power
	@cmake --preset dev >/dev/null
	@cmake --preset release >/dev/null
	cmake --build --preset dev -j $(JOBS) --target kvbm_kill9_test kvbm_power_loss_test kvbm_fault_test
	cmake --build --preset release -j $(JOBS) --target kvbm_program
	build/release/bin/kvbm torture --schedules $${KVBM_SCHEDULES:-1000000} --min-faults 100
	KVBM_KILLS=$${KVBM_KILLS:-1000} build/dev/bin/kvbm_kill9_test
	KVBM_POWER_LOSSES=$${KVBM_POWER_LOSSES:-100000} build/dev/bin/kvbm_power_loss_test
	KVBM_FAULTS=$${KVBM_FAULTS:-1000000} build/dev/bin/kvbm_fault_test --gtest_filter='ManagerFaultTest.*'

format: bootstrap ## format all C++ code in place
	tools/format

bootstrap: ## install what the build needs (Debian 12)
	@scripts/bootstrap

install: build ## install to PREFIX (default /usr/local)
	cmake --install build/release --prefix "$(abspath $(PREFIX))"

clean: ## remove build/
	rm -rf build

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: require
require:
	@for tool in cmake ninja g++; do \
	  command -v $$tool >/dev/null || { echo "make: $$tool is missing; run scripts/bootstrap" >&2; exit 1; }; \
	done

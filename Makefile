SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help build demo test ci fmt lint doc openapi cli-docs clean setup

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the optimised binary, target/release/certwright
	cargo build --release --locked

demo: setup ## Issue a certificate from a local test CA and show it (debug build: no wait for the optimiser)
	cargo build --locked
	scripts/demo

test: setup ## Run every test, on SQLite and on PostgreSQL, against Pebble and nginx
	cargo test --locked

# Cheap checks first. Clippy and rustdoc share what they compile, and so do the tests and `cargo run`.
ci: setup ## Everything that a change must pass
	cargo fmt --check
	scripts/cargo-deny --log-level error --locked check bans licenses sources
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --document-private-items
	cargo test --locked 2>&1 | tee target/ci-test.log
	$(MAKE) openapi
	git diff --exit-code --stat -- openapi || { echo 'ci: openapi/openapi.json is stale; commit what `make openapi` wrote' >&2; exit 1; }
	@echo; echo 'ci: everything passed'; grep '^test result:' target/ci-test.log

fmt: ## Format the code
	cargo fmt

lint: ## Run clippy as CI does
	cargo clippy --all-targets --locked -- -D warnings

doc: ## Build the crate's documentation, private items included
	cargo doc --no-deps --locked --document-private-items

openapi: ## Write openapi/openapi.json anew from the code
	@mkdir -p openapi
	cargo run --locked --quiet -- openapi > target/openapi.json
	mv target/openapi.json openapi/openapi.json

cli-docs: ## Write docs/cli.md anew from the code
	cargo run --locked --quiet -- help --markdown > target/cli.md
	mv target/cli.md docs/cli.md

clean: ## Remove everything that was built, the test tools too
	cargo clean

setup:
	@scripts/setup

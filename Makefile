SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help build demo test soak bench ci fmt lint doc openapi cli-docs reliability audit sbom deb deb-check deploy-check sdk-check api-fuzz fuzz clean setup

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the optimised binary, target/release/certwright
	CERTWRIGHT_COMMIT="$$(git rev-parse --short=12 HEAD 2>/dev/null)" cargo build --release --locked

demo: setup ## Issue a certificate from a local test CA and show it (debug build: no wait for the optimiser)
	cargo build --locked
	scripts/demo

# Most tests wait for something most of their time: more of them at once than there are processors end sooner.
export RUST_TEST_THREADS ?= 4

# The tests kill the program at chosen places, which only this feature lets them. Everything that CI compiles
# has it, so that nothing is compiled twice; what is released has not.
TESTED := --features failpoints

test: setup ## Run every test, on SQLite and on PostgreSQL, against Pebble and nginx
	@scripts/test $(TESTED)

SOAK_CERTIFICATES ?= 1000

AUDIT_CHANGES ?= 10000

soak: setup ## Issue 1,000 certificates (SOAK_CERTIFICATES) while process and database are killed again and again; change 10,000 things; renew 1,000 for a year
	SOAK_CERTIFICATES=$(SOAK_CERTIFICATES) cargo test --locked $(TESTED) --test integration soak:: -- --nocapture --test-threads=1
	cargo test --locked $(TESTED) --test integration short_lived:: -- --ignored --nocapture
	RETENTION_CERTIFICATES=1000 cargo test --locked $(TESTED) --test integration after_a_year -- --nocapture --test-threads=1
	AUDIT_CHANGES=$(AUDIT_CHANGES) cargo test --locked $(TESTED) --test integration audit::crash -- --nocapture --test-threads=1

bench: setup ## Measure everything against the least it can cost (docs/performance.md); ARGS="issuance --runs 1" for a part
	@scripts/bench-tools
	cargo bench --locked --bench performance -- $(ARGS)

# Cheap checks first. Clippy and rustdoc share what they compile, and so do the tests and `cargo run`.
ci: setup ## Everything that a change must pass
	cargo fmt --check
	scripts/cargo-deny --log-level error --locked check bans licenses sources
	scripts/audit-check
	cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	cargo clippy --all-targets --locked $(TESTED) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked $(TESTED) --document-private-items
	scripts/test $(TESTED)
	$(MAKE) openapi
	git diff --exit-code --stat -- openapi || { echo 'ci: openapi/openapi.json is stale; commit what `make openapi` wrote' >&2; exit 1; }
	@echo; echo 'ci: everything passed'; grep '^test result:' target/test.log

fmt: ## Format the code
	cargo fmt

lint: ## Run clippy as CI does
	cargo clippy --all-targets --locked $(TESTED) -- -D warnings

doc: ## Build the crate's documentation, private items included
	cargo doc --no-deps --locked $(TESTED) --document-private-items

openapi: ## Write openapi/openapi.json anew from the code
	@mkdir -p openapi
	cargo run --locked $(TESTED) --quiet -- openapi > target/openapi.json
	mv target/openapi.json openapi/openapi.json

cli-docs: ## Write docs/cli.md anew from the code
	cargo run $(TESTED) --locked --quiet -- help --markdown > target/cli.md
	mv target/cli.md docs/cli.md

reliability: setup ## Show the same faults side by side with lego and certbot (installs both)
	scripts/reliability

audit: ## Look all dependencies up in the RustSec advisory database; ADVISORIES=FOLDER takes a copy of it
	@scripts/audit $(ADVISORIES)

sbom: ## Write the bill of materials, target/certwright.cdx.json (CycloneDX)
	@scripts/sbom

deb: ## Make the Debian package, target/debian/certwright_*.deb; CERTWRIGHT_BINARY names a program that is built already
	@scripts/deb

# A debug build will do, and takes a third of the time.
deb-check: setup ## Install, use, upgrade and purge the Debian package in a clean chroot (as root; installs mmdebstrap)
	$(if $(CERTWRIGHT_BINARY),,cargo build --locked $(TESTED))
	@CERTWRIGHT_BINARY=$(or $(CERTWRIGHT_BINARY),target/debug/certwright) scripts/deb-check

deploy-check: ## Validate Kubernetes overlays and compose files (installs kubectl, kubernetes-validate and compose-spec)
	@scripts/kubernetes-check
	@scripts/compose-check

sdk-check: setup ## Lint the OpenAPI document, and issue with a client of each generator (installs linters and generators)
	$(if $(CERTWRIGHT_BINARY),,cargo build --locked $(TESTED))
	@scripts/sdk-check

api-fuzz: setup ## Ask the API for whatever its description allows, and for what it does not, on both databases (about twenty minutes)
	@API_FUZZ_CASES=30000 cargo test --locked $(TESTED) --test integration every_check_and_phase -- --ignored --nocapture --test-threads 1

fuzz: setup ## Fuzz what reads the input of strangers, each target for a minute (FUZZ_SECONDS); TARGETS="names csr" for some
	@scripts/fuzz $(TARGETS)

clean: ## Remove everything that was built, the test tools too
	cargo clean

setup:
	@scripts/setup

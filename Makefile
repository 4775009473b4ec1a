# The commands of the project. Each does all of its own set-up and works twice in a row.

.PHONY: demo demo-servers test test-fast test-compose monitoring bench bench-reads loadtest fuzz \
	mutants lint deny

# A CSV file of a meter for the demo, with the time and the value as its first columns. Without it,
# the demo sends a day of a real meter, which is part of the program.
METER ?=

# All of Gridwatch in one process, with a simulated fleet. Runs until Ctrl-C. Needs Rust and a C
# compiler.
# The profile is built faster than a release.
demo:
	@scripts/setup.sh build
	@cargo build --locked --profile demo -p gridwatch --bins
	@target/demo/gridwatch demo $(if $(METER),--meter $(METER))

# The same on private nodes of RabbitMQ and PostgreSQL, which it installs.
demo-servers:
	@scripts/setup.sh
	@cargo build --locked --profile demo -p gridwatch --bins --example demo_servers
	@target/demo/examples/demo_servers $(if $(METER),--meter $(METER))

# Every test, on real servers. The fast tests come first, so that a mistake is reported early. All
# commands name the whole workspace: for a part of it, cargo would build some dependencies again
# with other features.
test: test-fast
	@scripts/setup.sh openapi docs
	cargo test --locked --workspace --test '*'
	cargo test --locked --workspace --doc

# The tests at the interfaces of the crates, in seconds after the build.
test-fast:
	@scripts/setup.sh haproxy prometheus
	cargo test --locked --workspace --lib --bins

# Writes the dashboards of Grafana and the rules of Prometheus, which a test compares.
monitoring:
	cargo run --locked -p monitoring

# docker-compose.yml on real containers, some of which are killed under load. Skipped with a sentence
# where Docker cannot run. The programs are built here, because no registry may be reachable.
BUILT := $(or $(CARGO_TARGET_DIR),target)
test-compose:
	@scripts/setup.sh
	cargo build --locked --profile demo -p gridwatch -p loadtest --bins
	@mkdir -p target/image
	@cp $(BUILT)/demo/gridwatch $(BUILT)/demo/loadtest target/image/
	@cargo test --locked -p gridwatch --test compose --no-run
	scripts/with-docker.sh cargo test --locked -p gridwatch --test compose -- \
		--ignored --nocapture --test-threads 1

# What the pipeline carries, as ratios to the limits of this machine; JSON in target/bench/.
bench:
	@scripts/setup.sh wrk
	cargo bench --locked -p gridwatch --bench pipeline
	cargo bench --locked -p gridwatch --bench deployment_modes
	cargo bench --locked -p gridwatch --bench reads
	cargo bench --locked -p loadtest --bench generator

# Only the last part but one: what reading costs. READS sets other options, such as --year-interval 1
# or --only marks.
READS ?=
bench-reads:
	@scripts/setup.sh
	cargo bench --locked -p gridwatch --bench reads -- $(READS)

# Five questions about this machine, answered by loading every deployment mode on private nodes;
# a page in target/loadtest/. LOADTEST sets other flags, such as --instances 4 --trial 8s.
LOADTEST ?= --instances 2 --trial 4s --trials 5 --measure 6s
loadtest:
	@scripts/setup.sh haproxy
	@cargo build --locked --release -p gridwatch -p loadtest --bins
	@target/release/loadtest matrix --report target/loadtest $(LOADTEST)

# Opens the spool with the input of a fuzzer for SECONDS. Without a sanitizer, which would need
# another compiler: there is no unsafe code to check.
SECONDS ?= 60
fuzz:
	@scripts/setup.sh build
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	cd transport && RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir fuzz --sanitizer none spool_open -- \
		-max_total_time=$(SECONDS) -timeout=20

# Breaks the code in many small ways and lists those that no fast test notices.
MUTANTS ?= -f ingest-api/src/coalesce.rs
mutants:
	@scripts/setup.sh
	@command -v cargo-mutants >/dev/null || cargo install --locked cargo-mutants
	cargo mutants $(MUTANTS)

# What the tests do not check: format, lints, documentation.
lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

# Licences, sources and known vulnerabilities of the dependencies. Needs the advisory database.
deny:
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check

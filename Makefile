# The commands of the project. Each does all of its own set-up and works twice in a row.

.PHONY: demo demo-servers test bench loadtest fuzz lint

# All of Gridwatch in one process, with real and generated readings; stays up until Ctrl-C. Needs Rust and a C compiler.
demo:
	@scripts/setup.sh build
	@cargo build --locked --release -p gridwatch --bins --examples
	@target/release/examples/demo

# The same with a front end and a worker on private nodes of RabbitMQ and PostgreSQL, which it installs.
demo-servers:
	@scripts/setup.sh
	@cargo build --locked --release -p gridwatch --bins --examples
	@target/release/examples/demo --servers

# Every test, on real servers.
test:
	@scripts/setup.sh haproxy
	cargo test --locked --workspace

# What the pipeline carries, as ratios to what this machine can do; JSON in target/bench/.
bench:
	@scripts/setup.sh wrk
	cargo bench --locked -p gridwatch --bench pipeline
	cargo bench --locked -p gridwatch --bench shapes
	cargo bench --locked -p loadtest --bench generator

# Five questions about this machine, answered by loading every shape of Gridwatch on private nodes; a page in target/loadtest/.
# LOADTEST gives other flags, such as --instances 4 --trial 8s.
LOADTEST ?= --instances 2 --trial 4s --trials 5 --measure 6s
loadtest:
	@scripts/setup.sh haproxy
	@cargo build --locked --release -p gridwatch -p loadtest --bins
	@target/release/loadtest matrix --report target/loadtest $(LOADTEST)

# Opens the spool over what a fuzzer makes up, for SECONDS. No sanitizer: it would need another compiler, and there is no unsafe code to watch.
SECONDS ?= 60
fuzz:
	@scripts/setup.sh build
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	cd transport && RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir fuzz --sanitizer none spool_open -- -max_total_time=$(SECONDS) -timeout=20

# What the tests do not see: format, lints, documentation.
lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

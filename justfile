# `just` lists what there is.
_list:
    @just --list --unsorted

# Everything a change must pass before it is sent.
check: format lint test doc deny

# Formatting is rustfmt's.
format:
    cargo fmt --check

# Warnings are errors.
lint:
    cargo clippy --locked --all-targets -- -D warnings

# Unit tests, worlds, house rules.
test *ARGS:
    cargo test --locked {{ARGS}}

# The documentation builds, and its links lead somewhere.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# Licences, bans and sources, by cargo-deny where it is installed (`cargo test` checks the same file).
deny:
    @if command -v cargo-deny >/dev/null; then cargo deny check licenses bans sources; \
    else echo "cargo-deny is not installed; tests/tidy.rs has checked deny.toml"; fi

# The same agent direct and through tailwire, against a simulated provider: the README's table.
demo *ARGS:
    cargo run --locked --release -- demo {{ARGS}}

# The official SDKs, unmodified, through the proxy.
sdk:
    bash tests/sdk/run.sh

# Every promise has a mutant that breaks it; each must be caught. Give names to run only some.
mutants *NAMES:
    python3 tests/mutants/run.py {{NAMES}}

# Costs of the hot paths.
bench *ARGS:
    cargo bench --locked {{ARGS}}

# Every known failure of other projects, with the tests that show it or the reason why it cannot happen here.
failures:
    python3 tests/failures/list.py

# What the shipped build weighs under load, before, at its peak and after. Give names to run only some; takes minutes.
memory *ARGS:
    cargo build --locked --profile dist --features dist
    ulimit -n $(ulimit -Hn) && TAILWIRE_BINARY=target/dist/tailwire cargo bench --locked --bench memory -- {{ARGS}}

# Agents, provider and proxy while everything goes wrong: 5 minutes, or `--minutes 60`, `--turns N`, `--seed S`, `--binary`.
soak *ARGS:
    cargo test --locked --release --test soak -- --soak {{ARGS}}

# What the heart reads, against naive readers, for SECONDS in all. Add targets (fuzz/fuzz_targets) to run only those.
fuzz *ARGS:
    bash fuzz/run.sh {{ARGS}}

# Lines of the heart that its tests reach; fails below 95 %.
cover:
    bash tests/cover/run.sh

# The dashboard in Chromium (Debian's is installed where it is missing and may be). `--screenshots` writes docs/screenshots anew.
browser *ARGS:
    cargo build --locked
    python3 tests/browser/run.py {{ARGS}}

# The real binary through forward proxies from Debian (tinyproxy, microsocks), private authorities, a unix socket.
networks:
    bash tests/networks/run.sh

# What is under `deploy`, by the tools of those who will run it (systemd, promtool, helm, schemas). Give names to run only some.
deploy *NAMES:
    bash tests/deploy/run.sh {{NAMES}}

# The static program that ships, built and started in an empty root. Minutes.
static:
    bash tests/deploy/static.sh

# Packs a release into a folder (default target/release-VERSION): archives, chart, bill of materials, checksums.
release *ARGS:
    bash deploy/release.sh {{ARGS}}

#!/usr/bin/env bash
# Fuzzes every target, or the named ones, for SECONDS in all: `fuzz/run.sh [SECONDS [TARGET…]]`. Needs a stable toolchain and a
# C++ compiler; installs cargo-fuzz under target/tools if it is missing. What was found interesting is kept in
# target/fuzz/corpus for the next run; what broke, in target/fuzz/artifacts: make it a seed once it is fixed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-60}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
share=$(((seconds + ${#targets[@]} - 1) / ${#targets[@]}))

export PATH=$PWD/target/tools/bin:$PATH
if ! command -v cargo-fuzz >/dev/null; then
    CARGO_TARGET_DIR=target/tools/build cargo install --quiet --locked --root target/tools cargo-fuzz
fi
# Without a sanitizer, which stable lacks: there is no unsafe code to sanitize. Coverage is a plain code generation flag.
build=(-s none --target-dir target/fuzz)
cargo fuzz build "${build[@]}"
for target in "${targets[@]}"; do
    corpus=target/fuzz/corpus/$target artifacts=target/fuzz/artifacts/$target/
    mkdir -p "$corpus" "$artifacts"
    echo "=== $target: $share s"
    cargo fuzz run "${build[@]}" "$target" "$corpus" "fuzz/seeds/$target" -- \
        -max_total_time="$share" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -dict=fuzz/words.dict \
        -artifact_prefix="$artifacts" -verbosity=0 -print_final_stats=1
done

#!/usr/bin/env bash
# Lines of the heart that its tests reach: the unit tests, the worlds, the recordings and the fuzz seeds. Fails below 95 %.
# `llvm-cov` must be able to read what rustc writes: LLVM_BIN, the toolchain's own (component llvm-tools), or Debian's
# llvm-19 or newer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=
for folder in "${LLVM_BIN:-}" "$(rustc --print target-libdir)/../bin" $(printf '%s\n' /usr/lib/llvm-*/bin | sort -rV); do
    if [ -x "$folder/llvm-cov" ]; then
        bin=$folder
        break
    fi
done
if [ -z "$bin" ]; then
    echo "no llvm-cov: rustup component add llvm-tools, or apt-get install llvm-19" >&2
    exit 1
fi

# Only our own crates are instrumented: everything else stays as it was compiled.
mkdir -p target/cover
printf '#!/bin/sh\nexec "$@" -Cinstrument-coverage\n' >target/cover/rustc
chmod +x target/cover/rustc
rm -f target/cover/*.profraw
export RUSTC_WORKSPACE_WRAPPER=$PWD/target/cover/rustc LLVM_PROFILE_FILE=$PWD/target/cover/%p-%m.profraw
tests=(--lib --test world --test captures --test fuzz)
objects=$(cargo test --locked "${tests[@]}" --no-run 2>&1 | tee /dev/stderr | sed -n 's/.*(\(target.*\))$/-object \1/p')
cargo test --locked "${tests[@]}" -- --quiet
"$bin/llvm-profdata" merge --sparse target/cover/*.profraw --output target/cover/merged.profdata
# shellcheck disable=SC2086
"$bin/llvm-cov" export --format=lcov --instr-profile target/cover/merged.profdata $objects >target/cover/lines.info
python3 tests/cover/report.py target/cover/lines.info src/proto/ 95

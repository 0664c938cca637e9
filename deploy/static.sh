#!/bin/sh
# Builds what ships, static, and puts it where the one argument says. Any Linux with a Rust toolchain and a C compiler: a
# host of glibc gives a static glibc program, one of musl (Alpine) or TARGET=x86_64-unknown-linux-musl a static musl one.
set -eu
cd "$(dirname "$0")/.."
out=${1:?where to put the program}
target=${TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
# A target of its own, even if it is the host's: so that build scripts and macros stay dynamic, as they must.
RUSTFLAGS="-C target-feature=+crt-static ${RUSTFLAGS-}" \
    cargo build --locked --profile dist --features dist --target "$target"
cp "${CARGO_TARGET_DIR:-target}/$target/dist/tailwire" "$out"

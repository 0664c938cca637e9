#!/usr/bin/env bash
# Packs a release into FOLDER (default target/release-VERSION): for each target a tar.gz of program, man page, completions, units
# and licences; the chart; an SBOM; checksums of all. Signing and uploading are whoever's who holds the keys.
#
#   deploy/release.sh [--dry-run BINARY] [FOLDER]
#
# TARGETS names what is built (default: this host's; musl for programs that run anywhere:
# TARGETS="x86_64-unknown-linux-musl aarch64-unknown-linux-musl", with those rustup targets and musl-gcc, or a container with
# them). --dry-run packs BINARY as if it had been built, and is what the tests run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binary=
if [[ ${1-} == --dry-run ]]; then
    binary=${2:?--dry-run BINARY}
    shift 2
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
host=$(rustc -vV | sed -n 's/^host: //p')
out=${1:-target/release-$version}
# The same archive from the same sources: every file as old as the commit, owned by nobody in particular.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

if [[ ! $binary ]]; then
    [[ -z $(git status --porcelain) ]] || { echo "release: there are changes that are not committed" >&2; exit 1; }
    [[ $(git describe --exact-match --tags 2>/dev/null) == "v$version" ]] || echo "release: this commit is not tagged v$version" >&2
fi
rm -rf "$out"
mkdir -p "$out"
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

archive() {
    local name=$1
    shift
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu -c "$@" | gzip -9 -n >"$out/$name"
}

# What a target's archive holds beside the program; completions and man page come from a program that runs here.
pack() {
    local target=$1 program=$2 speaks=$3 name=tailwire-$version-$1
    install -D -m 755 "$program" "$stage/$name/bin/tailwire"
    install -d "$stage/$name/share/man/man1" "$stage/$name/share/completions"
    "$speaks" man >"$stage/$name/share/man/man1/tailwire.1"
    for shell in bash zsh fish; do
        "$speaks" completions "$shell" >"$stage/$name/share/completions/tailwire.$shell"
    done
    "$speaks" config >"$stage/$name/proxy.toml"
    cp LICENSE LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md "$stage/$name"
    cp -r deploy/systemd deploy/launchd deploy/prometheus deploy/grafana "$stage/$name/share"
    archive "$name.tar.gz" -C "$stage" "$name"
}

speaks=${binary:-}
for target in ${TARGETS:-$host}; do
    program=$binary
    if [[ ! $program ]]; then
        program=target/tailwire-$target
        TARGET=$target sh deploy/static.sh "$program"
        # A program of another machine cannot print its own man page; the host's first one can.
        [[ $speaks ]] || speaks=$program
    fi
    pack "$target" "$program" "$speaks"
    python3 deploy/sbom.py "$target" >"$out/tailwire-$version-$target.cdx.json"
done
archive "tailwire-chart-$version.tgz" -C deploy/helm tailwire

(cd "$out" && sha256sum -- * >SHA256SUMS)
cat "$out/SHA256SUMS"

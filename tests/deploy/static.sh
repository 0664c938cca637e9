#!/usr/bin/env bash
# Builds what ships, static (deploy/static.sh), or takes TAILWIRE_BINARY, and starts it where nothing else is: in an empty
# folder as its root, as nobody, as the image has it. Takes a release build with link-time optimisation: minutes, by hand.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
most=$((20 * 1000 * 1000)) # bytes of the image: the program and the authorities
scratch=$(mktemp -d)
pids=()
finish() {
    kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$scratch"
}
trap finish EXIT

mkdir -p "$scratch/root/etc/ssl/certs" target
if [[ ${TAILWIRE_BINARY-} ]]; then
    cp "$TAILWIRE_BINARY" "$scratch/root/tailwire"
else
    sh deploy/static.sh "$scratch/root/tailwire"
fi
cp /etc/ssl/certs/ca-certificates.crt "$scratch/root/etc/ssl/certs/" 2>/dev/null || true

# Every container runtime gives these: names, and random numbers, which a static glibc program takes from a file.
printf '127.0.0.1 localhost\n' >"$scratch/root/etc/hosts"
if ((EUID == 0)); then
    mkdir "$scratch/root/dev"
    mknod -m 666 "$scratch/root/dev/random" c 1 8
    mknod -m 666 "$scratch/root/dev/urandom" c 1 9
fi

if readelf --program-headers "$scratch/root/tailwire" | grep --quiet INTERP; then
    echo "static: it wants a dynamic linker" >&2
    exit 1
fi
size=$(du --bytes --summarize "$scratch/root" | cut -f 1)
((size < most)) || { echo "static: $size bytes, $most at most" >&2; exit 1; }

# Only root may put a program into another root; without, it runs where it is.
inside() {
    if ((EUID == 0)); then
        chmod 755 "$scratch" "$scratch/root"
        exec env -i "${variables[@]}" "$(command -v chroot)" --userspec=65532:65532 "$scratch/root" /tailwire "$@"
    fi
    exec env -i "${variables[@]}" "$scratch/root/tailwire" "$@"
}
variables=(TAILWIRE_LOG_FORMAT=json)

# launch NAME ARGUMENT…: starts it and sets `url` to where it says it listens.
launch() {
    local line=
    mkfifo "$scratch/$1"
    inside "$@" >"$scratch/$1" 2>"$scratch/$1.log" &
    pids+=($!)
    read -r -t 30 line <"$scratch/$1" || true
    [[ $line =~ listening\ on\ (http://[^ ]+) ]] || { echo "static: $1 said '$line'" >&2; cat "$scratch/$1.log" >&2; exit 1; }
    url=${BASH_REMATCH[1]}
}

version=$(inside --version)
launch sim --listen 127.0.0.1:0
# By name: what a static glibc resolves without any library of the system's.
launch serve --listen 127.0.0.1:0 --upstream "${url/127.0.0.1/localhost}"
answer=$(curl --silent --fail --max-time 30 --noproxy '*' "$url/responses" -H 'authorization: Bearer sk-planted-static' \
    -H 'content-type: application/json' -d '{"model":"m","input":"hello"}' -D "$scratch/head")
grep --quiet '"status": *"completed"' <<<"$answer" || { echo "static: $answer" >&2; exit 1; }
grep --quiet --ignore-case '^x-tailwire: plan=full; reason=first-turn' "$scratch/head"
kill -TERM "${pids[1]}"
wait "${pids[1]}" || { echo "static: it ended with $? after SIGTERM" >&2; exit 1; }
echo "static: $version, $size bytes with authorities, one turn served$( ((EUID == 0)) && echo ' in an empty root as nobody')"

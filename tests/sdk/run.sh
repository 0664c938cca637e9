#!/usr/bin/env bash
# Judges the proxy by the official SDKs: builds the binary, starts the simulated provider and a proxy before
# it on free loopback ports, and lets both agents run their loops. Needs python3, node and npm, and the
# package registries on the first run; no key and no provider. It ends only what it started.
set -euo pipefail
cd "$(dirname "$0")"

# What the user's shell says about providers and proxies must not change what is judged.
unset OPENAI_ORG_ID OPENAI_PROJECT_ID OPENAI_BASE_URL ${!TAILWIRE_@}
export NO_PROXY="${NO_PROXY:+$NO_PROXY,}127.0.0.1" PIP_DISABLE_PIP_VERSION_CHECK=1
export no_proxy="$NO_PROXY"

scratch=$(mktemp -d)
pids=()

finish() {
  local status=$? pid
  trap - EXIT
  for pid in ${pids[@]+"${pids[@]}"}; do
    kill "$pid" 2>/dev/null || true
    for _ in {1..50}; do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
  done
  if ((status)); then
    tail -n 40 "$scratch"/*.log >&2 2>/dev/null || true
  fi
  rm -rf "$scratch"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# launch NAME ARGUMENT…: starts `tailwire NAME ARGUMENT…` and sets `url` to the address it says it listens on.
launch() {
  local name=$1 line=""
  mkfifo "$scratch/$name"
  "$tailwire" "$@" >"$scratch/$name" 2>"$scratch/$name.log" &
  pids+=($!)
  read -r -t 20 line <"$scratch/$name" || true
  if [[ ! $line =~ listening\ on\ (http://[^ ]+) ]]; then
    echo "tailwire $name did not say where it listens: '$line'" >&2
    exit 1
  fi
  url=${BASH_REMATCH[1]}
}

(cd ../.. && cargo build --quiet)
tailwire=${CARGO_TARGET_DIR:-../../target}/debug/tailwire

[[ -x .venv/bin/python ]] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --requirement requirements.txt
npm ci --loglevel=error >/dev/null

launch sim --listen 127.0.0.1:0
direct=$url
launch serve --listen 127.0.0.1:0 --admin off --upstream "$direct"
proxy=$url

.venv/bin/python agent.py "$direct" "$proxy"
node agent.mjs "$direct" "$proxy"
# Every turn after the first is a delta.
chat_plan=delta
.venv/bin/python chat.py --expect "$chat_plan" "$direct" "$proxy"
node chat.mjs --expect "$chat_plan" "$direct" "$proxy"

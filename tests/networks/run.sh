#!/usr/bin/env bash
# The real binary through real forward proxies, tinyproxy and microsocks as Debian ships them: sockets and HTTP through both,
# with and without credentials, refusals named, a private authority, NO_PROXY. Needs curl, openssl and Debian's packages: those
# two are installed where this runs as root, else unpacked under target/tools. It ends only what it started.
set -euo pipefail
cd "$(dirname "$0")/../.."

# What the user's shell says about providers and proxies must not change what is judged.
unset OPENAI_ORG_ID OPENAI_PROJECT_ID OPENAI_BASE_URL SSL_CERT_FILE SSL_CERT_DIR ${!TAILWIRE_@}
unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY no_proxy NO_PROXY
export OPENAI_API_KEY=sk-networks-key

tools=$PWD/target/tools
mkdir -p "$tools"
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

export PATH=$tools/debian/usr/bin:$PATH
provide() {
  local command=$1 package=$2
  command -v "$command" >/dev/null && return
  if ((EUID == 0)) && apt-get install -y --no-install-recommends "$package" >"$scratch/apt.log" 2>&1; then
    return
  fi
  (cd "$scratch" && apt-get download "$package" >apt.log 2>&1 && dpkg-deb -x "$package"_*.deb "$tools/debian")
  command -v "$command" >/dev/null
}
provide tinyproxy tinyproxy-bin
provide microsocks microsocks

# launch LOG ARGUMENT…: starts `tailwire ARGUMENT…` and sets `line` to what it says, `url` to where it listens.
launches=0
launch() {
  launches=$((launches + 1))
  local pipe=$scratch/pipe-$launches
  line=""
  mkfifo "$pipe"
  "$tailwire" "$@" >"$pipe" 2>"$scratch/tailwire-$launches.log" &
  pids+=($!)
  read -r -t 30 line <"$pipe" || true
  [[ $line =~ listening\ on\ ([^ ]+) ]] || fail "tailwire $1 did not say where it listens: '$line'"
  url=${BASH_REMATCH[1]}
}

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# A port that was free a moment ago.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# serving NAME PORT: waits until a program listens.
serving() {
  for _ in {1..100}; do
    (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && return
    sleep 0.1
  done
  fail "$1 does not listen"
}

# tiny NAME LINE…: starts a tinyproxy with these settings; sets `port`.
tiny() {
  local name=$1
  shift
  port=$(free_port)
  printf '%s\n' "Port $port" "Listen 127.0.0.1" "Timeout 600" "MaxClients 50" "LogLevel Info" "LogFile \"$scratch/$name.log\"" \
    "PidFile \"$scratch/$name.pid\"" "$@" >"$scratch/$name.conf"
  tinyproxy -d -c "$scratch/$name.conf" >/dev/null 2>&1 &
  pids+=($!)
  serving "$name" "$port"
}

# socks NAME ARGUMENT…: starts a microsocks; sets `port`.
socks() {
  local name=$1
  shift
  port=$(free_port)
  microsocks -i 127.0.0.1 -p "$port" "$@" >"$scratch/$name.log" 2>&1 &
  pids+=($!)
  serving "$name" "$port"
}

# turn URL [HEADER]: asks for a response and prints its plan and status.
turn() {
  curl --silent --show-error --noproxy '*' --max-time 60 -o "$scratch/body" -D "$scratch/head" "$1/responses" \
    -H "authorization: Bearer $OPENAI_API_KEY" -H 'content-type: application/json' ${2:+-H "$2"} \
    -d '{"model":"gpt-sim","store":false,"input":[{"role":"user","content":"hello [sim text=20]"}]}'
  printf '%s %s\n' "$(sed -n 's/^x-tailwire: plan=\([a-z]*\).*/\1/p' "$scratch/head" | tr -d '\r')" \
    "$(sed -n '1s/^[^ ]* \([0-9]*\).*/\1/p' "$scratch/head")"
}

expect() {
  [[ $2 == "$3" ]] || fail "$1: '$2' where '$3' was expected; $(cat "$scratch/body" 2>/dev/null)"
  echo "ok  $1: $2"
}

cargo build --quiet --locked
tailwire=${CARGO_TARGET_DIR:-$PWD/target}/debug/tailwire

launch sim --listen 127.0.0.1:0
sim=$url
provider=${sim#http://}
provider=${provider%/v1}

# An authority, and the provider behind TLS: another tailwire passes everything on to it.
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=tailwire networks" -addext basicConstraints=critical,CA:TRUE \
  -keyout "$scratch/ca.key" -out "$scratch/ca.pem" 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout "$scratch/server.key" -out "$scratch/server.csr" 2>/dev/null
openssl x509 -req -days 2 -in "$scratch/server.csr" -CA "$scratch/ca.pem" -CAkey "$scratch/ca.key" -CAcreateserial \
  -extfile <(echo "subjectAltName=DNS:localhost") -out "$scratch/server.pem" 2>/dev/null
TAILWIRE_TLS_CERTIFICATE=$scratch/server.pem TAILWIRE_TLS_KEY=$scratch/server.key \
  launch serve --listen 127.0.0.1:0 --upstream "$sim"
secure=https://localhost:${url##*:}

# through NAME LOG UPSTREAM VARIABLE=VALUE…: a socket turn and an HTTP turn, both seen in the proxy's log.
through() {
  local name=$1 log=$2 upstream=$3 before after place
  shift 3
  place=${upstream#*://}
  place=${place%/v1}
  [[ $place == localhost:* && $name == socks5\ * ]] && place=127.0.0.1:${place##*:}
  before=$(grep -c "$place" "$log" || true)
  for variable in "$@"; do export "${variable?}"; done
  launch serve --listen 127.0.0.1:0 --upstream "$upstream"
  for variable in "$@"; do unset "${variable%%=*}"; done
  expect "$name, socket" "$(turn "$url")" "full 200"
  expect "$name, HTTP" "$(turn "$url" 'x-tailwire-mode: http')" "http 200"
  after=$(grep -c "$place" "$log" || true)
  ((after - before >= 2)) || fail "$name: the proxy saw $((after - before)) connections to $place"
}

# refused NAME WORDS UPSTREAM VARIABLE=VALUE…: both kinds of turn get a named error, and so does the check.
refused() {
  local name=$1 words=$2 upstream=$3 report
  shift 3
  for variable in "$@"; do export "${variable?}"; done
  launch serve --listen 127.0.0.1:0 --upstream "$upstream"
  report=$("$tailwire" check --upstream "$upstream" 2>/dev/null) && fail "$name: the check is content: $report"
  for variable in "$@"; do unset "${variable%%=*}"; done
  expect "$name, socket" "$(turn "$url")" "http 502"
  grep -q '"tailwire_proxy_failed"' "$scratch/body" && grep -qF "$words" "$scratch/body" || fail "$name: $(cat "$scratch/body")"
  expect "$name, HTTP" "$(turn "$url" 'x-tailwire-mode: http')" "http 502"
  grep -qF "$words" <<<"$report" || fail "$name: the check says $report"
  grep -qF hunter2 "$scratch/body" <(printf '%s' "$report") && fail "$name: a password is shown"
  return 0
}

tiny tiny
through "CONNECT" "$scratch/tiny.log" "$sim" "http_proxy=http://127.0.0.1:$port"
through "CONNECT, TLS" "$scratch/tiny.log" "$secure" "HTTPS_PROXY=127.0.0.1:$port" "TAILWIRE_EXTRA_CA_FILES=$scratch/ca.pem"
through "CONNECT, SSL_CERT_FILE" "$scratch/tiny.log" "$secure" "ALL_PROXY=http://127.0.0.1:$port" "SSL_CERT_FILE=$scratch/ca.pem"

lines=$(grep -c "$provider" "$scratch/tiny.log")
HTTP_PROXY=http://127.0.0.1:$port NO_PROXY=example.com,127.0.0.1 launch serve --listen 127.0.0.1:0 --upstream "$sim"
expect "NO_PROXY" "$(turn "$url")" "full 200"
HTTP_PROXY=http://127.0.0.1:$port launch serve --listen 127.0.0.1:0 --upstream "$sim" --proxy off
expect "--proxy off" "$(turn "$url")" "full 200"
expect "neither came to the proxy" "$(grep -c "$provider" "$scratch/tiny.log")" "$lines"

tiny guarded "BasicAuth user hunter2"
through "CONNECT with credentials" "$scratch/guarded.log" "$sim" "HTTP_PROXY=http://user:hunter2@127.0.0.1:$port"
refused "CONNECT without credentials" "user name and a password (407)" "$sim" "HTTP_PROXY=http://127.0.0.1:$port"
refused "CONNECT with others" "does not accept the user name and password" "$sim" "HTTP_PROXY=http://user:hunter22@127.0.0.1:$port"

tiny narrow "ConnectPort 443"
refused "CONNECT to a port that is not allowed" "with status 403" "$sim" "HTTP_PROXY=http://127.0.0.1:$port"

socks socks
through "socks5h" "$scratch/socks.log" "$secure" "ALL_PROXY=socks5h://127.0.0.1:$port" "TAILWIRE_EXTRA_CA_FILES=$scratch/ca.pem"
through "socks5 resolves here" "$scratch/socks.log" "$secure" "ALL_PROXY=socks5://127.0.0.1:$port" "SSL_CERT_FILE=$scratch/ca.pem"

socks guarded-socks -u user -P hunter2
through "socks5h with credentials" "$scratch/guarded-socks.log" "$sim" "http_proxy=socks5h://user:hunter2@127.0.0.1:$port"
refused "socks5h without credentials" "SOCKS error" "$sim" "http_proxy=socks5h://127.0.0.1:$port"
refused "socks5 with others" "credentials not accepted" "$sim" "http_proxy=socks5://user:hunter22@127.0.0.1:$port"

status=0
HTTP_PROXY=http://user:hunter2/@proxy:1 "$tailwire" serve --listen 127.0.0.1:0 --upstream "$sim" 2>"$scratch/body" >/dev/null || status=$?
expect "an invalid proxy ends the program" "$status" "78"
grep -q '^tailwire: HTTP_PROXY: ' "$scratch/body" && ! grep -q hunter2 "$scratch/body" || fail "$(cat "$scratch/body")"

launch serve --listen "unix:$scratch/tailwire.sock" --upstream "$sim"
expect "a unix socket" "$line" "tailwire listening on unix:$scratch/tailwire.sock -> $sim"
expect "curl over it" "$(curl --silent --max-time 30 -o /dev/null -w '%{http_code}' --unix-socket "$scratch/tailwire.sock" \
  -H "authorization: Bearer $OPENAI_API_KEY" http://localhost/v1/models)" "200"

echo "all networks passed"

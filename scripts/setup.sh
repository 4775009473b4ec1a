#!/usr/bin/env bash
# Installs what the tests and benchmarks of Gridwatch need and this machine does not have:
# PostgreSQL, RabbitMQ, a C compiler, and the programs that the arguments name (haproxy,
# prometheus, wrk).
# `setup.sh openapi` also installs schemathesis, from PyPI, in target/schemathesis.
# `setup.sh docs` also installs pandas and pyarrow, from PyPI, in target/python-docs.
# `setup.sh build` installs nothing: it reports what is missing for a build.
# Packages are installed on systems with apt only. Elsewhere the script reports what to install.
# The services of the packages are not started: Gridwatch starts private servers on free ports.
set -euo pipefail

fail() {
    echo "setup: $1" >&2
    exit 2
}
require_cargo() {
    command -v cargo >/dev/null 2>&1 ||
        fail "cargo was not found. Install Rust (https://rustup.rs) and run this again."
}

if [ "${1:-}" = build ]; then
    require_cargo
    command -v cc >/dev/null 2>&1 ||
        fail "no C compiler (cc) was found. Install gcc or clang and run this again."
    exit 0
fi

missing=()
has_postgres() {
    command -v initdb >/dev/null 2>&1 ||
        compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}
has_rabbitmq() {
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] ||
        command -v rabbitmq-server >/dev/null 2>&1
}
has_postgres || missing+=(postgresql)
has_rabbitmq || missing+=(rabbitmq-server)
command -v cc >/dev/null 2>&1 || missing+=(gcc libc6-dev)
command -v openssl >/dev/null 2>&1 || missing+=(openssl)
# README's commands use it, which a test runs.
command -v curl >/dev/null 2>&1 || missing+=(curl)
pypi=()
for program in "$@"; do
    case "$program" in
        openapi) pypi+=("openapi schemathesis") ;;
        docs) pypi+=("docs python-docs") ;;
        *)
            command -v "$program" >/dev/null 2>&1 || [ -x "/usr/sbin/$program" ] ||
                missing+=("$program")
            continue
            ;;
    esac
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
done

# Installs scripts/$1/requirements.txt in target/$2. Where PyPI cannot be reached, the file
# `unreachable` says so, and the test that needs it is skipped.
install_from_pypi() {
    local requirements directory output
    requirements=$(dirname "$0")/$1/requirements.txt
    directory=$(dirname "$0")/../target/$2
    cmp -s "$requirements" "$directory/requirements.txt" && return
    echo "setup: installing $requirements in target/$2"
    rm -rf "$directory"
    python3 -m venv "$directory"
    if output=$("$directory/bin/pip" install --quiet --disable-pip-version-check --retries 1 \
        --requirement "$requirements" 2>&1); then
        cp "$requirements" "$directory/requirements.txt"
    elif grep -q 'connection broken by\|Could not fetch URL' <<<"$output"; then
        tail -n 1 <<<"$output" >"$directory/unreachable"
        echo "setup: PyPI cannot be reached: the test that needs target/$2 is skipped" >&2
    else
        fail "$requirements cannot be installed: $output"
    fi
}
finish() {
    local each
    for each in "${pypi[@]}"; do
        # shellcheck disable=SC2086 # two words
        install_from_pypi $each
    done
    exit 0
}

require_cargo
[ ${#missing[@]} -eq 0 ] && finish

command -v apt-get >/dev/null 2>&1 ||
    fail "missing: ${missing[*]}. This system has no apt-get: install them and run this again."
sudo=()
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        fail "missing: ${missing[*]}. Run 'sudo apt-get install ${missing[*]}' and run this again."
    fi
    sudo=(sudo -n)
fi

echo "setup: installing ${missing[*]} (their system services stay off)"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
    "${sudo[@]}" chmod +x "$policy"
    trap '"${sudo[@]}" rm -f "$policy"' EXIT
fi
"${sudo[@]}" apt-get update -q
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${missing[@]}"
finish

#!/usr/bin/env bash
# The one test command: every check, then all tests, in an environment of its own (.venv-test).
#
#     bash tests/run.sh                      everything
#     bash tests/run.sh -k header -x         arguments go to pytest; paths are relative to the project root
#     PYTHON=python3.12 bash tests/run.sh    with that interpreter
#
# Needs Python 3.10 or later with venv. PyPI is asked when the environment is made: the first time, and
# again when pyproject.toml or the interpreter changed. Stops at the first step that fails. The transport
# is proved on a real RabbitMQ: as root on Debian or Ubuntu its package is installed where it is missing.
set -euo pipefail
unset CDPATH PYTHONHOME PYTHONPATH

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
venv=$PWD/.venv-test

step() { printf '\n== %s\n' "$*"; }
die() {
    printf 'tests/run.sh: %s\n' "$*" >&2
    exit 2
}

# Everything temporary goes here and leaves with us.
scratch=$(mktemp -d)
made_policy=
cleanup() {
    rm -rf -- "$scratch"
    [ -z "$made_policy" ] || rm -f -- "$made_policy"
}
trap cleanup EXIT
export TMPDIR=$scratch

# The interpreter: $PYTHON if set, else the first that is recent enough (macOS's own python3 may not be).
is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }
if [ -n "${PYTHON:-}" ]; then
    is_recent "$PYTHON" || die "PYTHON=$PYTHON is not Python 3.10 or later"
else
    for PYTHON in python3 python3.13 python3.12 python3.11 python3.10 ''; do
        if is_recent "$PYTHON"; then break; fi
    done
    [ -n "$PYTHON" ] || die "Python 3.10 or later is needed: install it, or name it in PYTHON=..."
fi

# The environment is good for one pyproject.toml, interpreter and place.
key=$("$PYTHON" -c '
import hashlib, os, sys
with open("pyproject.toml", "rb") as file:
    parts = [file.read(), sys.version.encode(), os.fsencode(sys.base_prefix), os.fsencode(os.getcwd())]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
')

has_venv() { "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; }
make_environment() {
    if ! has_venv; then
        # Debian and Ubuntu keep venv's pip in a package beside the interpreter's.
        local package
        package=$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            step "apt-get install $package"
            export DEBIAN_FRONTEND=noninteractive
            apt-get -qq update </dev/null || true
            apt-get -qq install -y --no-install-recommends "$package" </dev/null || true
        fi
        has_venv || die "$PYTHON has no venv; on Debian or Ubuntu: apt-get install $package"
    fi
    step "environment: $("$PYTHON" -V) in .venv-test"
    "$PYTHON" -m venv --clear "$venv"
    # 25.1 is the first pip that installs dependency groups.
    "$venv/bin/python" -m pip install --quiet --upgrade "pip>=25.1"
    "$venv/bin/python" -m pip install --quiet --editable ".[all]" --group dev
    printf '%s\n' "$key" >"$venv/made-for" # last: a half-made environment is made again
}

export PIP_DISABLE_PIP_VERSION_CHECK=1
if [ "$(cat "$venv/made-for" 2>/dev/null)" != "$key" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
    make_environment
fi
export VIRTUAL_ENV=$venv PATH="$venv/bin:$PATH"

has_rabbitmq() {
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null
}
install_rabbitmq() {
    # The package would start a service on ports that are not ours to take: packages ask this file
    # whether they may, and 101 says no. One that is there already is left alone.
    local policy=/usr/sbin/policy-rc.d answer=0
    if [ -e "$policy" ]; then
        "$policy" rabbitmq-server start >/dev/null 2>&1 || answer=$?
        [ "$answer" = 101 ] || return 0
    else
        made_policy=$policy
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    step "apt-get install rabbitmq-server"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update </dev/null || true
    if apt-get -qq install -y --no-install-recommends rabbitmq-server </dev/null >"$scratch/apt" 2>&1; then
        systemctl --quiet disable rabbitmq-server >/dev/null 2>&1 || true # nor at the next boot
    else
        tail -n 20 "$scratch/apt" >&2
    fi
    if [ -n "$made_policy" ]; then
        rm -f -- "$made_policy"
        made_policy=
    fi
}
if ! has_rabbitmq && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install_rabbitmq
fi
if ! has_rabbitmq; then
    printf '\nNOT PROVEN: no rabbitmq-server, so the transport is not tried on a real broker (a failure if CI is set); install it, on Debian or Ubuntu: apt-get install rabbitmq-server\n' >&2
fi

step "ruff format --check"
ruff format --check .

step "ruff check"
ruff check .

step "mypy"
mypy

step "lint-imports"
lint-imports --no-logo

step "pytest"
pytest "$@"

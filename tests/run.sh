#!/usr/bin/env bash
# Lint, types and tests in one command: bash tests/run.sh [--install_browser] [pytest arguments]
# The error browser is tested in Chromium or Chrome where one is found; --install_browser fetches Debian's first where none is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source solution/environment.sh

install_browser() {
    local name as=""
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        if command -v "$name" >/dev/null; then
            return
        fi
    done
    if [ "$(id -u)" != 0 ]; then
        as="sudo -n"
    fi
    # shellcheck disable=SC2086
    if ! { command -v apt-get && $as apt-get update -qq && $as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } >/dev/null; then
        echo "warning: chromium could not be installed (it needs apt-get, and root or sudo): tests in a browser are skipped" >&2
    fi
}

if [ "${1:-}" = --install_browser ]; then
    shift
    install_browser
fi
environment requirements.txt tests/requirements.txt
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # a test process on each core, which is quicker than all cores for one
exec "$PYTHON" -m pytest -n auto "$@"

#!/usr/bin/env bash
# Lint and tests in one command: bash tests/run.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source solution/environment.sh
environment requirements.txt tests/requirements.txt
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest "$@"

#!/usr/bin/env bash
# The tests with the oldest packages that pyproject.toml allows: bash tests/oldest.sh [FOLDER] [pytest arguments]
# It needs Python 3.11, for which all of them have wheels. Their environment stays in FOLDER (work/oldest by default, 6 GB).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source solution/environment.sh

VENV=work/oldest
if [ $# -gt 0 ] && [[ $1 != -* ]]; then
    VENV=$1
    shift
fi
unset PYTHON
BASE_PYTHON=${BASE_PYTHON:-python3.11}
mkdir -p "$VENV"
environment tests/oldest.txt tests/requirements.txt
"$PYTHON" -V
grep -v '^#' tests/oldest.txt
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$PYTHON" -m pytest -n auto "$@"

#!/usr/bin/env bash
# From data to submissions/submission.csv in one command; `bash run_all.sh --help` tells more.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here"
source solution/environment.sh
environment requirements.txt
exec "$PYTHON" solution/run_all.py "$@"

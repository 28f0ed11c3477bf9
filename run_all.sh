#!/usr/bin/env bash
# From data to submissions/submission.csv in one command. `bash run_all.sh --help` lists examples.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$repository/solution/environment.sh"
environment "$repository/requirements.txt"
exec "$PYTHON" "$repository/solution/run_all.py" "$@"

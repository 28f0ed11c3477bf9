# Sourced by run_all.sh, tests/run.sh and tests/oldest.sh. Sets PYTHON to an interpreter with the packages of the requirement files.
#   environment FILE [FILE ...]   makes .venv/ next to the first file from it, and installs the other files into it.
#                                 .venv/ is made again when the first file changes.
# Environment variables: PYTHON, an interpreter that is used unchanged (Kaggle kernels, conda); VENV, another folder than .venv/;
# BASE_PYTHON, the interpreter to make it with (by default the newest).

environment() {
    if [ -n "${PYTHON:-}" ]; then
        if ! command -v "$PYTHON" >/dev/null; then
            echo "error: $PYTHON: no such program (set PYTHON to an interpreter that has the packages, or unset it: then .venv/ is made)" >&2
            return 1
        fi
        echo "using $PYTHON unchanged"
        return
    fi
    local file first=$1 base
    venv=${VENV:-$(dirname "$1")/.venv}
    if ! _installed "$first"; then
        base=$(_base_python) || return 1
        echo "making $venv from $first with $base (about 6 GB, a few minutes)"
        rm -rf "$venv"
        "$base" -m venv "$venv"
    fi
    for file in "$@"; do
        _installed "$file" || _install "$file" || return 1
    done
    PYTHON=$venv/bin/python
}

_stamp() {
    echo "$(cksum < "$1") ${1#"$(dirname "$venv")"/}"
}

_installed() {
    [ -x "$venv/bin/python" ] && grep -qxF "$(_stamp "$1")" "$venv/made-from" 2>/dev/null
}

_install() {
    local quiet=--quiet
    [ -t 1 ] && quiet=
    # shellcheck disable=SC2086
    "$venv/bin/python" -m pip install $quiet --disable-pip-version-check -r "$1" || {
        echo "error: $1: pip could not install it (see above; a package mirror or PYTHON=/path/to/python may help)" >&2
        return 1
    }
    _stamp "$1" >> "$venv/made-from"
}

_base_python() {
    local name
    for name in ${BASE_PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "error: ${BASE_PYTHON:-python}: no Python 3.11 or newer with venv found (install one, or set PYTHON=/path/to/python)" >&2
    return 1
}

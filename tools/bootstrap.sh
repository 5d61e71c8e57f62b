#!/bin/sh
# Finds a Python that can build the environment, then hands over to bootstrap.py with the same arguments.
# PYTHON=/path/to/python decides it; else 3.11 to 3.13 (what Hydra supports) is preferred to anything newer.
here=$(dirname "$0")

usable() { # usable PYTHON LOWEST BELOW: does it run, is its version in the range, can it make environments?
    "$1" -c "
import sys
if not ($2) <= sys.version_info[:2] < ($3): sys.exit(3)
try: import ensurepip, venv
except ImportError: sys.exit(4)" >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
    usable "$PYTHON" "3, 11" "9, 0" && exec "$PYTHON" "$here/bootstrap.py" "$@"
    echo "bootstrap: PYTHON=$PYTHON cannot be used: need Python >= 3.11 with the venv and ensurepip modules" >&2
    exit 1
fi

for candidate in python3 python3.13 python3.12 python3.11 python; do
    usable "$candidate" "3, 11" "3, 14" && exec "$candidate" "$here/bootstrap.py" "$@"
done
for candidate in python3 python3.15 python3.14 python; do
    usable "$candidate" "3, 14" "9, 0" && exec "$candidate" "$here/bootstrap.py" "$@"
done

echo "bootstrap: found no Python >= 3.11 that can create an environment. Looked at:" >&2
for candidate in python3 python3.15 python3.14 python3.13 python3.12 python3.11 python; do
    path=$(command -v "$candidate") || continue
    version=$("$path" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null) || continue
    if "$path" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        echo "  $path: Python $version, too old" >&2
    else
        echo "  $path: Python $version, lacks ensurepip (Debian, Ubuntu: apt install python${version%.*}-venv)" >&2
    fi
done
echo "Install one, or say which to use: make PYTHON=/path/to/python3.12 ..." >&2
exit 1

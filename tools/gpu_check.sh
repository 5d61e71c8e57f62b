#!/usr/bin/env bash
# All that needs a GPU, in under five minutes, every failure shown: the tests' short form, the registry in all dtypes for
# as long as there is time, digits CNN and nanoGPT against the CPU's losses. No network, no make.
#   tools/gpu_check.sh              on the first GPU; needs CuPy; PYTHON=... decides which Python
#   tools/gpu_check.sh --stand-in   a rehearsal without one
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
[ -x .venv/bin/python ] && [ -z "${PYTHON:-}" ] && python=.venv/bin/python
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
where=gpu
[ "${1:-}" = --stand-in ] && where=cpu-reverse
failed=0

part() { # part SECONDS COMMAND...: run it for so long at most
    local started=$SECONDS
    echo "== ${*:2}"
    timeout -k 5 "$@" || failed=1
    echo "== $((SECONDS - started)) s"
}

part 110 "$python" -m pytest tests/device tests/cuda tests/kernels/test_on_device_arrays.py -k "$where" -q --tb=line \
    -p no:cacheprovider
part 95 "$python" -m tests.device.walk --limit 80 "$@"
part 80 "$python" tools/gpu_train.py "$@"
[ "$failed" -eq 0 ] && echo "all of it passed" || echo "FAILED: see above"
exit "$failed"

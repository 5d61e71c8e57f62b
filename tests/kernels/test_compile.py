"""Compiled text and its cache: cold starts, kills, damaged files, folders that cannot be written, no compiler."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rushlight_tensor.kernels import compile as kernels
from rushlight_tensor.kernels.compile import c_library, compile_c, find_compiler

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler, or RUSHLIGHT_CC=none")

DOUBLED = (
    "EXPORT void doubled(LENGTH(n) const float *x, LENGTH(n) float *y, long n) {\n"
    "    for (long i = 0; i < n; i++) y[i] = 2 * x[i];\n"
    "}\n"
)
PROGRAM = f"""
import numpy as np
from rushlight_tensor.kernels.compile import compile_c
library = compile_c({DOUBLED!r})
x, y = np.arange(4, dtype=np.float32), np.empty(4, np.float32)
if library is None:
    print("numpy")
else:
    library.doubled(x, y, 4)
    print(y.tolist())
"""


def start(cache: Path, program: str = PROGRAM, **environment: str) -> subprocess.Popen:
    variables = {**os.environ, "RUSHLIGHT_CACHE": str(cache), "TMPDIR": str(cache.parent), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", program], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip(), err


@needs_compiler
def test_eight_processes_that_start_cold_compile_once_and_agree(tmp_path):
    compiler = tmp_path / "counting-cc"
    compiler.write_text(f'#!/bin/sh\necho run >> {tmp_path}/runs\nexec {find_compiler().command[0]} "$@"\n')
    compiler.chmod(0o755)
    processes = [start(tmp_path / "cache", RUSHLIGHT_CC=str(compiler)) for _ in range(8)]
    assert {finish(process)[0] for process in processes} == {"[0.0, 2.0, 4.0, 6.0]"}
    assert len((tmp_path / "runs").read_text().split()) < 8  # one, or a few where the compiler knows not all flags
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".so"]


@needs_compiler
def test_process_killed_while_it_compiles_leaves_nothing_harmful(tmp_path):
    slow = tmp_path / "slow-cc"
    slow.write_text('#!/bin/sh\necho half > "$TMPDIR/kernel.so"\nexec sleep 10\n')
    slow.chmod(0o755)
    cache = tmp_path / "cache"
    process = start(cache, RUSHLIGHT_CC=str(slow))
    deadline = time.monotonic() + 60
    while not list(cache.glob(".build-*/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(cache.glob("*.so"))
    assert finish(start(cache))[0] == "[0.0, 2.0, 4.0, 6.0]"


@needs_compiler
def test_damaged_library_is_recognised_and_built_again(tmp_path):
    cache = tmp_path / "cache"
    finish(start(cache))
    (library,) = cache.glob("*.so")
    library.write_bytes(library.read_bytes()[:5000])
    assert finish(start(cache))[0] == "[0.0, 2.0, 4.0, 6.0]"
    (library,) = cache.glob("*.so")
    assert library.stat().st_size > 5000


@needs_compiler
def test_cache_that_cannot_be_written_falls_back_to_a_temporary_folder(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where the cache folder would have to be")
    out, err = finish(start(blocked / "cache", TMPDIR=str(tmp_path)))
    assert out == "[0.0, 2.0, 4.0, 6.0]"
    assert err.count(f"RUSHLIGHT_CACHE={blocked}/cache cannot be used") == 1
    assert list((tmp_path / f"rushlight-{os.getuid()}").glob("*.so"))


@needs_compiler
def test_missing_home_is_no_trouble(tmp_path):
    out, err = finish(start(tmp_path / "unused", RUSHLIGHT_CACHE="", XDG_CACHE_HOME="", HOME="/nonexistent/home"))
    assert (out, err) == ("[0.0, 2.0, 4.0, 6.0]", "") or os.getuid() == 0  # root may create any home


@needs_compiler
def test_full_disk_means_numpy_and_a_warning_that_says_why(tmp_path):
    full = tmp_path / "full-cc"
    full.write_text('#!/bin/sh\necho "fatal error: writing output: No space left on device" >&2\nexit 1\n')
    full.chmod(0o755)
    out, err = finish(start(tmp_path / "cache", RUSHLIGHT_CC=str(full)))
    assert out == "numpy"
    assert "No space left on device" in err
    assert "slower" in err


def test_no_compiler_means_numpy_and_one_warning(tmp_path):
    out, err = finish(start(tmp_path / "cache", PROGRAM + PROGRAM, RUSHLIGHT_CC="no-such-compiler"))
    assert out == "numpy\nnumpy"
    assert err.count("no C compiler found (tried no-such-compiler)") == 1


@needs_compiler
def test_cc_that_cannot_be_run_is_named_and_rushlight_cc_wins(tmp_path):
    out, err = finish(start(tmp_path / "cache", PROGRAM + PROGRAM, CC="no-such-compiler -O1", RUSHLIGHT_CC=""))
    assert out == "[0.0, 2.0, 4.0, 6.0]\n[0.0, 2.0, 4.0, 6.0]"
    assert err.count("CC=no-such-compiler -O1 cannot be run; rushlight compiles its kernels with /") == 1
    out, err = finish(start(tmp_path / "cache", CC="no-such-compiler", RUSHLIGHT_CC=find_compiler().command[0]))
    assert (out, err) == ("[0.0, 2.0, 4.0, 6.0]", "")


def test_a_wish_for_the_accelerator_that_is_none_is_refused_by_name(tmp_path):
    process = start(tmp_path / "cache", "import rushlight_tensor", RUSHLIGHT_ACCELERATOR="foo")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "RUSHLIGHT_ACCELERATOR: expects none, or nothing; got 'foo'; unset it" in err


def test_compiler_that_is_turned_off_is_no_reason_to_warn(tmp_path):
    assert finish(start(tmp_path / "cache", RUSHLIGHT_CC="none")) == ("numpy", "")
    assert not (tmp_path / "cache").exists()


def test_importing_kernels_compiles_nothing(tmp_path):
    program = "import rushlight_tensor.kernels.attention, rushlight_tensor.kernels.conv; print('ok')"
    assert finish(start(tmp_path / "cache", program))[0] == "ok"
    assert not (tmp_path / "cache").exists()


@needs_compiler
def test_users_flags_are_part_of_the_key(tmp_path):
    cache = tmp_path / "cache"
    for flags in ("", "-O1 '-DNAME=a b'", "-O1"):
        assert finish(start(cache, RUSHLIGHT_CFLAGS=flags)) == ("[0.0, 2.0, 4.0, 6.0]", "")
    assert len(list(cache.glob("*.so"))) == 3


@needs_compiler
def test_users_flags_come_after_ours(tmp_path):
    program = PROGRAM.replace("EXPORT", "#ifdef __FAST_MATH__\\n#error fast\\n#endif\\nEXPORT")
    assert program != PROGRAM
    out, err = finish(start(tmp_path / "cache", program, RUSHLIGHT_CFLAGS="-ffast-math"))
    assert (out, "#error fast" in err) == ("numpy", True)


@needs_compiler
def test_flags_that_the_compiler_refuses_are_a_warning_that_names_the_variable(tmp_path):
    out, err = finish(start(tmp_path / "cache", RUSHLIGHT_CFLAGS="-march=no-such-processor"))
    assert out == "numpy"
    assert "with RUSHLIGHT_CFLAGS='-march=no-such-processor'" in err
    assert err.count("UserWarning") == 1


@needs_compiler
def test_flags_whose_quotes_do_not_match_are_an_error(monkeypatch):
    monkeypatch.setenv("RUSHLIGHT_CFLAGS", "-O1 'half")
    with pytest.raises(RuntimeError, match="RUSHLIGHT_CFLAGS: expects flags as in a shell"):
        compile_c(DOUBLED)


@needs_compiler
def test_compiler_named_by_a_relative_path_is_found(tmp_path):
    (tmp_path / "cc").symlink_to(find_compiler().command[0])
    relative = os.path.relpath(tmp_path / "cc")
    assert finish(start(tmp_path / "cache", RUSHLIGHT_CC=relative)) == ("[0.0, 2.0, 4.0, 6.0]", "")


@needs_compiler
def test_the_same_text_is_loaded_once():
    assert compile_c(DOUBLED) is compile_c(DOUBLED)
    assert c_library("norm") is c_library("norm")


@needs_compiler
def test_text_that_does_not_compile_is_a_warning_with_the_compilers_words(monkeypatch):
    monkeypatch.setattr(kernels, "_warned", set())
    with pytest.warns(UserWarning, match="no_such_type"):
        assert compile_c("EXPORT void broken(long n) { no_such_type x; }\n") is None


@needs_compiler
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, x: f(x, x), "takes 3 arguments, got 2"),
        (lambda f, x: f(x[::2], x, 2), "argument x: need a C-contiguous array of type code 'f'"),
        (lambda f, x: f(np.zeros(17, np.uint8)[1:].view(np.float32), x, 4), "argument x"),  # not aligned
        (lambda f, x: f(x.astype(np.float64), x, 2), "argument x"),
        (lambda f, x: f(x.astype(">f4"), x, 2), "argument x"),
        (lambda f, x: f(None, x, 2), "argument x"),
        (lambda f, x: f([1.0], x, 2), "argument x"),
        (lambda f, x: f(x, np.broadcast_to(x[:1], 4), 4), "argument y: need a writable"),
        (lambda f, x: f(x, x, "2"), "cannot be interpreted as an integer"),
    ],
)
def test_wrong_arguments_never_reach_c(call, message):
    with pytest.raises(TypeError, match=message):
        call(compile_c(DOUBLED).doubled, np.zeros(4, np.float32))


@needs_compiler
@pytest.mark.parametrize("arguments", [(), (5,), ([1.0],), (np.zeros(1), np.zeros(1))])
def test_address_is_that_of_one_array(arguments):
    with pytest.raises(TypeError, match=r"rl_address: (need an array|takes 1 arguments)"):
        compile_c(DOUBLED).rl_address(*arguments)


@needs_compiler
def test_every_kind_of_argument_arrives():
    library = compile_c(
        "EXPORT double mixed(OPTIONAL LENGTH(1) const float *x, EXTENT(span(3, step, 1, 1)) const double *y,\n"
        "    LENGTH(count, sizes[i]) const int64_t *const *many, LENGTH(count) const int64_t *sizes,\n"
        "    LENGTH(2) const bool *flags, long count, POSITIVE long step, long n, double f) {\n"
        "    return (x ? x[0] : 100) + y[0] + many[1][0] + flags[1] + n + f;\n"
        "}\n"
    )
    y, many = np.arange(6.0)[1::2], [np.array([5]), np.array([7])]
    sizes, flags = np.ones(2, np.int64), np.array([False, True])
    assert library.mixed(None, y, many, sizes, flags, 2, 2, 1000, 0.5) == 100 + 1 + 7 + 1 + 1000 + 0.5
    assert library.mixed(np.ones(1, np.float32), y, many, sizes, ~flags, 2, 2, -1, 2) == 1 + 1 + 7 - 1 + 2
    assert library.float32(np.ones(1, np.float32), None)
    assert not library.float32(y)
    with pytest.raises(TypeError, match="need a list of arrays"):
        library.mixed(None, y, tuple(many), sizes, flags, 2, 2, 1, 1)


def test_prototype_that_cannot_be_bound_is_named():
    if find_compiler() is not None:
        with pytest.raises(ValueError, match="cannot bind an argument 'struct thing x'"):
            compile_c("EXPORT void f(struct thing x) {}\n")

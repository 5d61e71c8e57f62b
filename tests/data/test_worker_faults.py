"""What happens when a worker, or the training process, is killed or hangs; and scripts as users write them."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rushlight_data import DataLoader, blocks, parallel
from rushlight_data import start as start_module
from tests.data.samples import Ends, Images, Numbers

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

START = pytest.mark.parametrize("start", [None, "spawn"])
SOON_S = 30.0  # milliseconds on an idle machine; samples that hang do so for 100 s
LAUNCHER_VARIABLES = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "MPI_")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until(condition):
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, f"not so within {SOON_S} s"
        time.sleep(0.01)


def start_script(tmp_path, text, **variables):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER_VARIABLES)} | variables
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore:This DataLoader:UserWarning", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def run_script(tmp_path, text, **variables):
    with start_script(tmp_path, text, **variables) as process:
        try:
            out, err = process.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("end", "start", "how"),
    [
        ("SIGKILL", None, r"is killed by signal: Killed \(SIGKILL\), often a sign of too little memory"),
        ("SIGKILL", "spawn", r"is killed by signal: Killed \(SIGKILL\)"),
        ("SIGTERM", None, r"is killed by signal: Terminated \(SIGTERM\)"),
        ("exit", None, "exited unexpectedly with exit code 3"),
        ("exit", "spawn", "exited unexpectedly with exit code 3"),
    ],
)
def test_a_dead_worker_is_reported_with_what_it_was_doing(end, start, how):
    batches = iter(DataLoader(Ends(40, 21, end), 2, num_workers=2, multiprocessing_context=start))
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=how) as caught:
        list(batches)
    assert "loading sample 21, batch 10 (indices 20, 21)" in str(caught.value)
    assert f"(pid {batches._batches.workers[0].pid})" in str(caught.value)
    assert time.monotonic() - began < SOON_S
    assert not any(alive(worker.pid) for worker in batches._batches.workers)
    with pytest.raises(RuntimeError, match="iterate over the loader anew"):
        next(batches)


def test_a_crash_is_reported_with_the_workers_traceback():
    with pytest.raises(RuntimeError, match="SIGSEGV") as caught:
        list(DataLoader(Ends(4, 1, "SIGSEGV"), 2, num_workers=1))
    assert "Its traceback:" in str(caught.value)
    assert "__getitem__" in str(caught.value)


@START
def test_a_worker_killed_from_outside_is_reported(start):
    batches = iter(DataLoader(Images(4000), 2, num_workers=2, multiprocessing_context=start))
    next(batches)
    victim = batches._batches.workers[1]
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=rf"worker 1 \(pid {victim.pid}\) is killed by signal: Killed"):
        list(batches)


@START
def test_deaths_are_noticed_without_pidfds(start, monkeypatch):
    monkeypatch.setattr(start_module, "_pidfd", lambda pid: -1)  # as on a kernel before 5.3
    for end in ("SIGKILL", "exit"):
        with pytest.raises(RuntimeError, match=r"loading sample 21, batch 10"):
            list(DataLoader(Ends(40, 21, end), 2, num_workers=2, multiprocessing_context=start))
    batches = iter(DataLoader(Ends(40, 5, "sleep"), 2, num_workers=2, multiprocessing_context=start))
    next(batches)
    pids = [worker.pid for worker in batches._batches.workers]
    assert all(alive(pid) for pid in pids)
    del batches
    assert not any(alive(pid) for pid in pids)


def test_the_next_iteration_starts_new_workers():
    loader = DataLoader(Numbers(40), 2, num_workers=2, persistent_workers=True)
    batches = iter(loader)
    next(batches)
    os.kill(batches._batches.workers[0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="Killed"):
        list(batches)
    assert len(list(loader)) == 20


def test_a_hanging_worker_is_named_after_the_timeout():
    batches = iter(DataLoader(Ends(4, 1, "sleep"), 2, num_workers=1, timeout=1.5))
    with pytest.raises(
        RuntimeError, match=r"DataLoader timed out after 1\.5 seconds waiting for worker 0 .* sample 1,"
    ):
        next(batches)
    assert not alive(batches._batches.workers[0].pid)


def test_a_long_wait_is_told(monkeypatch):
    monkeypatch.setattr(parallel, "_STALL_NOTICE_S", 1.0)  # on a loaded machine sample 0 may take its time, too
    batches = iter(DataLoader(Ends(4, 1, "sleep"), 2, num_workers=1, timeout=1.5))
    with (
        pytest.warns(RuntimeWarning, match="has waited for .* loading sample 1,"),
        pytest.raises(RuntimeError, match="timed out"),
    ):
        next(batches)


def test_a_worker_that_does_not_end_is_killed():
    batches = iter(DataLoader(Ends(40, 5, "sleep"), 2, num_workers=2))
    next(batches)
    pids = [worker.pid for worker in batches._batches.workers]
    began = time.monotonic()
    del batches
    assert time.monotonic() - began < SOON_S
    assert not any(alive(pid) for pid in pids)


def test_signals_that_the_training_process_handles_are_left_to_it():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(True))
    try:
        batches = iter(DataLoader(Numbers(400), 2, num_workers=2))
        next(batches)
        for worker in batches._batches.workers:
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGINT)
        assert len(list(batches)) == 199
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not seen


def test_without_shared_memory_batches_come_through_the_pipe(monkeypatch):
    expected = [batch["image"].tolist() for batch in DataLoader(Images(8), 4)]
    real = blocks.anonymous_file

    def full(nbytes):
        if nbytes > 4096:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(nbytes)

    monkeypatch.setattr(blocks, "anonymous_file", full)  # in the workers, which are forked
    monkeypatch.setattr(parallel, "_warned", False)
    with pytest.warns(RuntimeWarning, match="sent through a pipe, which is slower") as warned:
        assert [b["image"].tolist() for b in DataLoader(Images(8), 4, num_workers=2)] == expected
    assert len(warned) == 1


def test_a_small_dev_shm_does_not_matter():
    mount = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    code = "from rushlight_data import DataLoader; from tests.data.samples import Images; "
    code += "print(sum(len(b['label']) for b in DataLoader(Images(300), 100, num_workers=2)))"
    done = subprocess.run(
        [*mount, sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("300\n", 0), done.stderr


FOREVER = """
    import os, sys, time
    import numpy as np
    from rushlight_data import DataLoader, Dataset

    class Slow(Dataset):
        def __len__(self):
            return 1000
        def __getitem__(self, index):
            if index >= 8:
                time.sleep(100)
            return np.full((200, 200), os.getpid()), lambda: index

    if "WITHOUT" in os.environ:
        from rushlight_data import start
        start._pidfd = lambda pid: -1
    loader = DataLoader(Slow(), 2, num_workers=2, collate_fn=lambda batch: batch[0][0])
    pids = []
    for batch in loader:
        pids.append(int(batch[0, 0]))
        print(pids[-1], flush=True)
"""


@pytest.mark.parametrize(
    "launched",
    [{}, {"PMIX_RANK": "0"}, {"WITHOUT": "pidfd"}, {"WITHOUT": "pidfd", "PMIX_RANK": "0"}],
    ids=["fork", "server", "fork, old kernel", "server, old kernel"],
)
def test_nothing_is_left_of_a_killed_training_process(tmp_path, launched):
    with start_script(tmp_path, FOREVER, **launched) as process:
        pids = {int(process.stdout.readline()) for _ in range(4)}
        group = {int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and in_group(p, process.pid)}
        assert pids < group
        assert "/dev/shm" not in "".join(Path(f"/proc/{pid}/maps").read_text() for pid in group)  # nothing with a name
        process.kill()
        wait_until(lambda: not any(alive(pid) for pid in group))
        process.communicate()
    assert len(pids) == 2


def in_group(process, group):
    try:
        return os.getpgid(int(process.name)) == group
    except ProcessLookupError:
        return False


def test_ctrl_c_ends_everything_quietly(tmp_path):
    with start_script(tmp_path, FOREVER) as process:
        pids = {int(process.stdout.readline()) for _ in range(4)}
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        began = time.monotonic()
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - began < SOON_S
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1
    assert err.endswith("KeyboardInterrupt\n")
    assert not any(alive(pid) for pid in pids)


UNGUARDED = """
    import os, sys, threading
    import numpy as np
    from rushlight_data import DataLoader, Dataset, get_worker_info

    print("script runs", flush=True)
    FACTOR = 3

    class Mine(Dataset):
        def __len__(self):
            return 12
        def __getitem__(self, index):
            assert get_worker_info() is not None
            assert sys.argv[0] or True
            return FACTOR * index, sorted(k for k in os.environ if k.startswith(("OMPI_", "PMIX_")))

    loader = DataLoader(Mine(), 6, num_workers=2, collate_fn=lambda b: ([x for x, _ in b], b[0][1]))
    for _ in range(2):
        print(list(loader), flush=True)
    kept = iter(loader)  # alive when the script ends
    print(next(kept)[0])
"""


@pytest.mark.parametrize("launched", [{}, {"OMPI_COMM_WORLD_RANK": "0", "PMIX_RANK": "0"}], ids=["fork", "server"])
def test_an_unguarded_script_runs_unchanged(tmp_path, launched):
    code, out, err = run_script(tmp_path, UNGUARDED, **launched)
    batches = [([0, 3, 6, 9, 12, 15], []), ([18, 21, 24, 27, 30, 33], [])]
    assert out.splitlines() == ["script runs", str(batches), str(batches), str(batches[0][0])]
    assert (code, err) == (0, "")


def test_a_script_with_threads_and_kernels_forks_safely(tmp_path):
    script = """
        import threading, time
        import numpy as np
        from rushlight_data import DataLoader
        import rushlight_tensor as T

        x = T.tensor(np.random.rand(256, 256).astype(np.float32))
        threading.Thread(target=time.sleep, args=(2,), daemon=True).start()
        y = (T.exp(x) + x.exp()).sum()  # wakes the pool of threads, where there is one

        class Computes:
            def __len__(self):
                return 8
            def __getitem__(self, i):
                return (T.exp(x) + x.exp()).sum() + i

        total = sum(float(b.sum()) for b in DataLoader(Computes(), 2, num_workers=2, timeout=20))
        assert abs(total / (8 * float(y) + 28) - 1) < 1e-4
    """
    assert run_script(tmp_path, script) == (0, "", "")


def test_threads_that_draw_random_numbers_do_not_block_forked_workers(tmp_path):
    script = """
        import threading
        import numpy as np
        import rushlight_tensor as T
        from rushlight_data import DataLoader

        going = True
        def draw(function):
            while going:
                function(300_000)
        threads = [threading.Thread(target=draw, args=(function,)) for function in (T.rand, np.random.rand)]
        for thread in threads:
            thread.start()
        for _ in range(8):
            assert len(list(DataLoader(range(4), 2, num_workers=2, timeout=30))) == 2
        going = False
    """
    assert run_script(tmp_path, script) == (0, "", "")


def test_a_server_that_died_is_replaced(tmp_path):
    script = """
        import os
        from rushlight_data import DataLoader, start

        loader = DataLoader(range(4), 2, num_workers=1, multiprocessing_context="forkserver")
        assert len(list(loader)) == 2
        start._Server._current.process.kill()
        start._Server._current.process.wait()
        assert len(list(loader)) == 2
    """
    assert run_script(tmp_path, script) == (0, "", "")

"""Strangers at the launcher's port: whatever they say or do not say, the job goes on and ends as it would have."""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from rushlight_launch import channel, interfaces, launch, reception, runner
from rushlight_launch.channel import ANSWER_BYTES, CHALLENGE_BYTES, WELCOME, answer, connect, encode, introduced
from rushlight_launch.mpi import find_mpi

pytestmark = [pytest.mark.mpirun, pytest.mark.mpi_skip]

PROGRAM = """
import os, sys, time
from pathlib import Path
print("running", flush=True)
while not Path(sys.argv[1]).exists():
    time.sleep(0.02)
print("the end", flush=True)
"""


class Job:
    """A job of two ranks in a thread, that listens on TCP and runs until it may end."""

    def __init__(self, folder, monkeypatch, hosts):
        self.folder, self.listeners = folder, []

        class Seen(channel.Listener):
            def __init__(seen, addresses):
                super().__init__(addresses)
                self.listeners.append(seen)

        monkeypatch.setattr(runner, "Listener", Seen)
        (folder / "program.py").write_text(PROGRAM)
        if hosts is not None:
            (folder / "hosts").write_text(hosts)
        self.hostfile = None if hosts is None else str(folder / "hosts")
        self.result = None
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        self.result = launch(
            str(self.folder / "program.py"),
            [str(self.folder / "may end")],
            ranks=2,
            hostfile=self.hostfile,
            log_dir=self.folder / "logs",
            show="none",
            timeout_s=100,
        )

    def until_running(self):
        until = time.monotonic() + 60
        while not all(self.log(r).startswith("running") for r in range(2)):
            assert time.monotonic() < until
            time.sleep(0.02)

    def log(self, rank):
        path = self.folder / "logs" / f"rank{rank}.log"
        return path.read_text() if path.exists() else ""

    @property
    def place(self):
        host, _, port = self.listeners[0].address.removeprefix("tcp:").rpartition(":")
        return host, int(port)

    def stranger(self):
        return socket.create_connection(self.place, timeout=20)

    def end(self):
        (self.folder / "may end").touch()
        self.thread.join(60)
        assert self.result is not None
        assert (self.result.exit_code, self.result.report) == (0, "")
        assert [self.log(r) for r in range(2)] == ["running\nthe end\n"] * 2


@pytest.fixture
def start(tmp_path, monkeypatch):
    jobs = []

    def started(hosts="localhost slots=2\n"):
        jobs.append(Job(tmp_path, monkeypatch, hosts))
        jobs[-1].thread.start()
        return jobs[-1]

    yield started
    for job in jobs:
        (job.folder / "may end").touch()
        job.thread.join(60)


def is_shown_the_door(end, within_s=20.0):
    """Whether the launcher ends the connection; what it said before is skipped."""
    end.settimeout(within_s)
    with contextlib.suppress(ConnectionError):
        while end.recv(4096):
            pass
    return True


needs_hostfile = pytest.mark.skipif(find_mpi().kind != "open mpi", reason="the hostfile here is one of Open MPI")


@needs_hostfile
def test_strangers_do_not_disturb_a_job(start, monkeypatch):
    monkeypatch.setattr(reception, "PATIENCE_S", 1.0)
    job = start()
    job.until_running()
    hello = b'{"token": "%s", "rank": 0, "stream": "control"}\n' % job.listeners[0].token.encode()
    for words in (
        b"[" * 200_000 + b"\n",
        b"x" * 5_000_000,  # an endless line
        os.urandom(ANSWER_BYTES),
        b"GET / HTTP/1.1\r\n\r\n" * 10,
        hello,  # the token itself is no answer
        answer("wrong" * 8, bytes(CHALLENGE_BYTES), 0, "control"),
        b"\0" * ANSWER_BYTES,
    ):
        with job.stranger() as end:
            with contextlib.suppress(ConnectionError):
                end.sendall(words)
            assert is_shown_the_door(end)
    with job.stranger() as slow, job.stranger() as silent:  # a byte now and then, and none at all
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                slow.sendall(b"x")
                time.sleep(0.1)
        assert is_shown_the_door(slow)
        assert is_shown_the_door(silent)
    job.end()


@needs_hostfile
def test_what_was_overheard_opens_nothing(start):
    job = start()
    job.until_running()
    token = job.listeners[0].token
    with job.stranger() as end:
        challenge = end.recv(CHALLENGE_BYTES)
        end.sendall(answer(token, challenge, 1, "control"))  # all of it right, but rank 1 has its socket already
        assert end.recv(1) == b""
    with job.stranger() as end:
        end.recv(CHALLENGE_BYTES)
        end.sendall(answer(token, challenge, 1, "control"))  # to another challenge
        assert end.recv(1) == b""
    for rank, stream in ((2, "stdout"), (2**32 - 1, "stderr")):
        with job.stranger() as end:
            end.sendall(answer(token, end.recv(CHALLENGE_BYTES), rank, stream))
            assert end.recv(1) == b""
    job.end()


@needs_hostfile
def test_flood_of_connections_neither_ends_nor_stalls_a_job(start):
    job = start()
    over = threading.Event()
    counts = [0, 0]

    def flood(which):
        while not over.is_set():
            kept = []
            with contextlib.suppress(OSError):
                for _ in range(200):
                    kept.append(job.stranger())
                    counts[which] += 1
            for end in kept:
                end.close()

    until = time.monotonic() + 30
    while not job.listeners and time.monotonic() < until:
        time.sleep(0.001)
    threads = [threading.Thread(target=flood, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    try:
        job.until_running()  # the ranks find the door among all the others
        while sum(counts) < 3000 and time.monotonic() < until:
            time.sleep(0.05)
        job.end()
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert sum(counts) >= 3000


@needs_hostfile
def test_port_is_open_where_it_must_be_only(start):
    job = start()
    job.until_running()
    port = job.place[1]
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [words[1] for words in listening if words[3] == "0A" and int(words[1].partition(":")[2], 16) == port]
    assert ours == [f"0100007F:{port:04X}"]  # 127.0.0.1, and nothing else
    job.end()


@pytest.mark.parametrize("hosts", [None, pytest.param("localhost slots=2\n", marks=needs_hostfile)])
def test_token_is_on_no_command_line(start, hosts):
    job = start(hosts)
    job.until_running()
    token = job.listeners[0].token.encode()
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes())
    assert any(b"rushlight_launch.rank" in line for line in lines)
    assert not any(token in line for line in lines)
    if hosts is None:  # nobody listens on the network, and no other user gets to the socket
        path = Path(job.listeners[0].address.removeprefix("unix:"))
        assert path.parent.stat().st_mode & 0o077 == 0
    job.end()


@pytest.mark.parametrize(
    "line",
    [b"[" * 200_000, b"{}", b"[1]", b'{"event": "start"}', b'{"event": "start", "pid": "x", "host": 1}', b"\xff"],
)
def test_event_that_is_none_changes_nothing(line):
    one = runner._Job(1, None)
    one._event(0, channel.decode(line))
    assert one.ranks[0] == runner._Rank()
    assert one.failures == []


def test_line_without_end_is_cut():
    one = runner._Job(1, None)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    one._welcome(ours, 0, "control")
    key = next(iter(one._selector.get_map().values()))
    theirs.setblocking(False)
    sent = 0
    while not one.ranks[0].lost:
        sent += theirs.send(b"x" * 65536)
        key.data()
        assert sent < 2 * channel.LINE_BYTES
    assert one.failures == [0]
    theirs.close()


def test_answer_fits_its_challenge_token_and_content_only():
    challenge = os.urandom(CHALLENGE_BYTES)
    said = answer("token", challenge, 3, "stderr")
    assert introduced("token", challenge, said) == (3, "stderr")
    assert introduced("other", challenge, said) is None
    assert introduced("token", os.urandom(CHALLENGE_BYTES), said) is None
    for i in range(len(said)):
        changed = bytearray(said)
        changed[i] ^= 1
        assert introduced("token", challenge, bytes(changed)) is None


def test_rank_tries_again_and_gives_up_in_the_end(monkeypatch):
    monkeypatch.setattr(channel, "CONNECT_TIMEOUT_S", 5.0)
    with socket.create_server(("127.0.0.1", 0)) as door:
        address = f"tcp:127.0.0.1:{door.getsockname()[1]}"

        def rude_at_first():
            door.accept()[0].close()
            end, _ = door.accept()
            end.sendall(bytes(CHALLENGE_BYTES))
            end.recv(ANSWER_BYTES)
            end.close()
            end, _ = door.accept()
            end.sendall(bytes(CHALLENGE_BYTES))
            assert introduced("token", bytes(CHALLENGE_BYTES), end.recv(ANSWER_BYTES)) == (0, "control")
            end.sendall(WELCOME)
            assert end.recv(100) == encode({"event": "finished"})
            end.close()

        thread = threading.Thread(target=rude_at_first)
        thread.start()
        with connect(address, "token", 0, "control") as end:
            end.sendall(encode({"event": "finished"}))
        thread.join()
    monkeypatch.setattr(channel, "CONNECT_TIMEOUT_S", 0.2)
    with pytest.raises(OSError, match="refused"):
        connect(address, "token", 0, "control")


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("node1 slots=4\n# a comment\n\nnode2:8  # another\nuser@node3\nnode1\n", ["node1", "node2", "node3"]),
        ("10.0.0.1 slots=1\n", ["10.0.0.1"]),
    ],
)
def test_hostfile_is_read(tmp_path, text, hosts):
    (tmp_path / "hosts").write_text(text)
    assert interfaces.hosts_of(str(tmp_path / "hosts")) == hosts


def test_addresses_to_listen_on(monkeypatch):
    ways = {
        "10.1.0.7": "10.1.0.1",
        "10.2.0.7": "10.2.0.1",
        "127.0.0.1": "127.0.0.1",
        interfaces._ELSEWHERE: "192.168.0.1",
    }
    names = {"a": ["10.1.0.7"], "b": ["10.2.0.7"], "localhost": ["127.0.0.1"], "alias": []}
    monkeypatch.setattr(interfaces, "_source", lambda address: ways[address])
    monkeypatch.setattr(interfaces, "_looked_up", lambda hosts: {h: names[h] for h in hosts})
    assert interfaces.listening_addresses(["localhost"]) == ["127.0.0.1"]
    assert interfaces.listening_addresses(["a"]) == ["10.1.0.1"]
    assert interfaces.listening_addresses(["localhost", "a", "b"]) == ["10.1.0.1", "10.2.0.1"]
    assert interfaces.listening_addresses(["localhost", "alias"]) == ["192.168.0.1"]  # a name that only ssh knows
    ways[interfaces._ELSEWHERE] = ""  # no network at all
    assert interfaces.listening_addresses(["alias"]) == ["127.0.0.1"]

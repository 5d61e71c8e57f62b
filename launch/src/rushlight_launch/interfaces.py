"""On which addresses the launcher listens: those from which this host reaches the hosts of a hostfile, no other."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

_LOOK_UP_S = 5.0
_ANY_PORT = 9  # nothing is sent there
_ELSEWHERE = "192.0.2.254"  # TEST-NET-1 (RFC 5737): stands for "some other host"


def hosts_of(hostfile: str) -> list[str]:
    """The names in a hostfile: the first word of each line, without user, slots and comments."""
    names = []
    for line in Path(hostfile).read_text().splitlines():
        words = line.partition("#")[0].split()
        if words:
            names.append(words[0].rpartition("@")[2].partition(":")[0])
    return list(dict.fromkeys(names))


def listening_addresses(hosts: Iterable[str]) -> list[str]:
    """Addresses of this host that ranks on `hosts` can reach: of the loopback alone, if all are this host.

    A name that only ssh knows has no address here: then it is the one with which this host reaches others by default.
    """
    found: set[str] = set()
    for addresses in _looked_up(list(hosts)).values():
        found |= {source for a in addresses if (source := _source(a))} if addresses else {_source(_ELSEWHERE)}
    found.discard("")
    far = sorted(a for a in found if not ipaddress.ip_address(a).is_loopback)
    return far or ["127.0.0.1"]  # this host's ranks can reach its other addresses, too


def _looked_up(names: list[str]) -> dict[str, list[str]]:
    """The addresses of each name; none for one that is not found, or not in time."""
    found: dict[str, list[str]] = {name: [] for name in names}

    def look(name: str) -> None:
        try:
            answers = socket.getaddrinfo(name, _ANY_PORT, type=socket.SOCK_DGRAM)
        except OSError:
            return
        # One address is enough, and IPv4 serves in more places.
        answers.sort(key=lambda a: a[0] != socket.AF_INET)
        found[name] = [str(a[4][0]) for a in answers[:1]]

    threads = [threading.Thread(target=look, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_LOOK_UP_S)
    return dict(found)


def _source(address: str) -> str:
    """This host's address on the way to `address`; empty if there is no way. Nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, _ANY_PORT))
        except OSError:
            return ""
        return str(probe.getsockname()[0])

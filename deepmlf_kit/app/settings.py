"""Settings of the app: where it listens and for whom; limits of clips, users, requests and disk; pace of live mode."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Settings:
    """Settings of one running app.

    Attributes:
        host: address to listen on.
        allowed_hosts: names under which the app is used besides its own: a proxy's, a tunnel's.
        on_space: whether it runs on Hugging Face Spaces.
        max_seconds: longest clip.
        max_megabytes: largest upload.
        max_request_megabytes: largest other request (live mode's pictures are the largest).
        max_disk_megabytes: all files of all users together; beyond it uploads are refused.
        workers: clips processed at the same time.
        threads: torch threads of one answer. More would be a little faster on idle cores, and ten times slower on busy
            ones, where they wait for each other (benchmarks/app_threads.py).
        queue: requests that may wait; further ones are refused with a message.
        live_users: live sessions at the same time.
        live_window: length of the window that a live prediction reads, in seconds.
        live_every: seconds between live predictions.
        live_fps: frames per second that the browser sends.
        idle_hours: a session that is not used for this long is closed, its files with it.
    """

    host: str = "127.0.0.1"
    allowed_hosts: tuple[str, ...] = ()
    on_space: bool = False
    max_seconds: float = 60.0
    max_megabytes: int = 100
    max_request_megabytes: int = 8
    max_disk_megabytes: int = 1000
    workers: int = 2
    threads: int = 1
    queue: int = 32
    live_users: int = 2
    live_window: float = 6.0
    live_every: float = 2.0
    live_fps: float = 10.0
    idle_hours: float = 2.0

    @property
    def place(self) -> Literal["local", "network", "space"]:
        """Who can reach the app: this machine, other machines too, or everybody, on Hugging Face's servers."""
        if self.on_space:
            return "space"
        return "local" if is_loopback(self.host) else "network"


def is_loopback(host: str) -> bool:
    """Whether an address or name can be reached from this machine only."""
    address = as_address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def as_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """A host as numbers; None where it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None

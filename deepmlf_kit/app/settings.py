"""Limits of the app: clip length and size, number of users, pace of live mode."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Limits of one running app.

    Attributes:
        max_seconds: longest clip.
        max_megabytes: largest upload.
        workers: clips processed at the same time.
        queue: requests that may wait; further ones are refused with a message.
        live_users: live sessions at the same time.
        live_window: length of the window that a live prediction reads, in seconds.
        live_every: seconds between live predictions.
        live_fps: frames per second that the browser sends.
        idle_hours: a session that is not used for this long is closed, its files with it.
    """

    max_seconds: float = 60.0
    max_megabytes: int = 100
    workers: int = 2
    queue: int = 32
    live_users: int = 2
    live_window: float = 6.0
    live_every: float = 2.0
    live_fps: float = 10.0
    idle_hours: float = 2.0

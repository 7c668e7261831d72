"""What is said about where clips go: exactly what is true of this app, where it runs and on this system."""

from __future__ import annotations

from ..workers.network import can_refuse_network
from .settings import Settings

_SAID = {
    "local": (
        "Your clip is read on this machine and nothing of it leaves it; it is deleted when you close the tab."
    ),
    "network": (
        "Your clip is sent to the machine that serves this page, read there and sent nowhere else; it is deleted when you "
        "close the tab. The way there is encrypted only if the address begins with https."
    ),
    "space": (
        "This page runs on Hugging Face's servers: your clip is sent there, read there and sent nowhere else; it is "
        "deleted when you close the tab."
    ),
}
_REPORTS = (
    " The face reader, MediaPipe, may report to its maker, Google, that and how fast it ran; no pictures."
)


def privacy_statement(settings: Settings) -> str:
    """Where a user's clip goes, in plain text for the page."""
    return _SAID[settings.place] + ("" if can_refuse_network() else _REPORTS)


def network_warning(settings: Settings) -> str:
    """What to tell whoever starts an app that others can reach; empty where nobody else can, or all are meant to."""
    if settings.place != "network":
        return ""
    return (
        f"Warning: listening on {settings.host}, everybody who can reach this machine can use the app, without a password; "
        "clips and answers travel unencrypted unless a proxy with HTTPS stands before it."
    )

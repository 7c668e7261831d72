"""A worker that reports whatever it is sent; its settings say how it misbehaves. Run by tests/test_workers.py."""

from __future__ import annotations

import os
import signal
import time

from deepmlf_kit.workers.child import Channel


def main() -> None:
    channel = Channel()
    print("a library's greeting")
    os.write(1, b"not a report\n")
    if channel.settings.get("ignores_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.report(settings=channel.settings)
    if channel.settings.get("ends_with_parent"):
        channel.end_with_parent(grace=0.1)
        time.sleep(600)
    for message in channel.messages():
        if "die" in message:
            os.write(2, f"{message['die']}\n\n".encode())
            os._exit(3)
        channel.report(echo=message)


if __name__ == "__main__":
    main()

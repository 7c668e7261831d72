"""Run a command in a network of its own, whose name server is this program, and print which names it asks for.

`unshare -rn python network_witness.py COMMAND ...`: the last line of what it prints is a JSON list of names. Every name
gets the address 127.0.0.9, where a connection to port 443 is noticed as `connected` and closed.
"""

from __future__ import annotations

import fcntl
import json
import re
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

SET_FLAGS, SET_ADDRESS, UP = 0x8914, 0x8916, 0x41  # linux/sockios.h; IFF_UP | IFF_RUNNING
HOST = "127.0.0.9"

seen: list[str] = []


def give_loopback(name: str, address: str = "") -> None:
    """Switch a loopback interface on, with a further address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        if address:
            packed = socket.inet_aton(address)
            fcntl.ioctl(
                control, SET_ADDRESS, struct.pack("16sHH4s8x", name.encode(), socket.AF_INET, 0, packed)
            )
        fcntl.ioctl(control, SET_FLAGS, struct.pack("16sH14x", name.encode(), UP))


def answer_names(server: socket.socket) -> None:
    while True:
        query, sender = server.recvfrom(2000)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        seen.append(".".join(labels))
        is_v4 = query[at + 1 : at + 3] == b"\x00\x01"
        found = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04" + socket.inet_aton(HOST) if is_v4 else b""
        head = query[:2] + b"\x81\x80\0\x01\0" + bytes([is_v4]) + b"\0\0\0\0"
        server.sendto(head + query[12 : at + 5] + found, sender)


def accept(server: socket.socket) -> None:
    while True:
        server.accept()[0].close()
        seen.append("connected")


def main() -> None:
    give_loopback("lo")
    servers = re.findall(r"^nameserver\s+([\d.]+)$", Path("/etc/resolv.conf").read_text(), re.M)
    for number, address in enumerate(servers):
        if not address.startswith("127."):
            give_loopback(f"lo:{number + 1}", address)
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        names.bind((address, 53))
        threading.Thread(target=answer_names, args=(names,), daemon=True).start()
    web = socket.create_server((HOST, 443))
    threading.Thread(target=accept, args=(web,), daemon=True).start()
    code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
    print(json.dumps(seen))
    sys.exit(code)


if __name__ == "__main__":
    main()

"""Two machines on this one, for tests of runs on several: with a link that can be cut.

``Namespaces`` are network namespaces joined by a pair of virtual interfaces, which takes root.
``Loopbacks`` are two loopback addresses; all that the second machine asks of the first goes through
a proxy, which passes nothing on while the link is down. As a router that translates addresses does,
it writes its own in the place of those that the first machine has left in the store.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NODE = Path(__file__).with_name("node.py")


def environment() -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }


def launch(command: list[str], extra: dict[str, str]) -> subprocess.Popen:
    """Start a machine's processes in a session of their own, which a test can kill."""
    return subprocess.Popen(
        command,
        env=environment() | extra,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


class Machines:
    """Two machines of two processes each, ranks 0 and 1, and 2 and 3."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        # What went wrong between the machines.
        self.faults: list[OSError] = []

    def __exit__(self, *_: object) -> None:
        self.stack.close()
        assert not self.faults, self.faults

    def both(self, port: int, arguments: list[str]) -> list[subprocess.Popen]:
        """Start both machines; rank 0 listens at a port."""
        return [self.start(number, port, arguments) for number in (0, 1)]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


class Namespaces(Machines):
    """Two namespaces with a link between them."""

    addresses = ("10.213.77.1", "10.213.77.2")

    def __init__(self) -> None:
        super().__init__()
        self.names = [f"osum{os.getpid()}{side}" for side in "ab"]
        self.links = [f"vo{os.getpid() % 10**6}{side}" for side in "ab"]

    def __enter__(self) -> Namespaces:
        for name in self.names:
            ip("netns", "add", name)
            self.stack.callback(ip, "netns", "del", name)
        ip("link", "add", self.links[0], "type", "veth", "peer", "name", self.links[1])
        for name, link, address in zip(self.names, self.links, self.addresses, strict=True):
            ip("link", "set", link, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        return self

    def link(self, state: str) -> None:
        """Set the link of the second machine ``up`` or ``down``."""
        ip("-n", self.names[1], "link", "set", self.links[1], state)

    def start(self, number: int, port: int, arguments: list[str]) -> subprocess.Popen:
        """Start the two processes of a machine."""
        command = ["ip", "netns", "exec", self.names[number], sys.executable, str(NODE)]
        command += [str(2 * number), "2", "4", self.addresses[0], str(port), *arguments]
        return launch(command, {"GLOO_SOCKET_IFNAME": self.links[number]})


def permitted() -> bool:
    """Tell whether namespaces and links between them can be made here."""
    try:
        with Namespaces():
            return True
    except (OSError, subprocess.SubprocessError):
        return False


class Loopbacks(Machines):
    """Two loopback addresses with a proxy between them.

    Of two processes gloo lets that with the higher address connect, so every connection between the
    machines is opened by the second, and the proxy's address is below all.
    """

    proxy, *addresses = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    # An IPv4 address and port as the kernel keeps them, which processes leave in the store.
    first = re.compile(rb"(?s)(\x02\x00(..))" + re.escape(socket.inet_aton(addresses[0])))

    def __init__(self) -> None:
        super().__init__()
        self.up = threading.Event()
        self.up.set()
        self.ports: set[int] = set()

    def __enter__(self) -> Loopbacks:
        return self

    def link(self, state: str) -> None:
        """Let the proxy pass bytes on, ``up``, or none, ``down``."""
        if state == "up":
            self.up.set()
        else:
            self.up.clear()

    def start(self, number: int, port: int, arguments: list[str]) -> subprocess.Popen:
        """Start the two processes of a machine; to the second, the proxy is the first.

        The store listens at all addresses of its port, so that the proxy has another for it.
        """
        master = [self.addresses[0], str(port)]
        if number == 1:
            self.listen(port + 100, port)
            master = [self.proxy, str(port + 100)]
        command = [sys.executable, str(NODE), str(2 * number), "2", "4", *master]
        return launch(command + arguments, {"NODE_ADDRESS": self.addresses[number]})

    def listen(self, port: int, asked: int) -> None:
        """Take connections at a port for one of the first machine."""
        if port not in self.ports:
            self.ports.add(port)
            try:
                server = socket.create_server((self.proxy, port), backlog=64)
            except OSError as fault:
                self.faults.append(fault)
                raise
            self.stack.callback(server.close)
            # Else an accept that waits keeps it listening.
            self.stack.callback(server.shutdown, socket.SHUT_RDWR)
            in_background(self.accept, server, asked)

    def accept(self, server: socket.socket, port: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                asking, _ = server.accept()
                try:
                    asked = socket.create_connection((self.addresses[0], port))
                except ConnectionRefusedError:
                    # The first machine does not listen yet; the second asks again.
                    asking.close()
                    continue
                for end in (asking, asked):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.stack.callback(end.close)
                in_background(self.pass_on, asking, asked)
                in_background(self.pass_on, asked, asking, self.translate)

    def pass_on(
        self,
        source: socket.socket,
        target: socket.socket,
        change: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """Pass bytes on until they end; none while the link is down, not even the end."""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.up.wait()
                target.sendall(change(data))
            self.up.wait()
            target.shutdown(socket.SHUT_WR)

    def translate(self, data: bytes) -> bytes:
        """Write the proxy's address where the first machine's stands, and listen there."""

        def own(found: re.Match) -> bytes:
            port = int.from_bytes(found[2], "big")
            self.listen(port, port)
            return found[1] + socket.inet_aton(self.proxy)

        return self.first.sub(own, data)


def in_background(work: Callable, *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()

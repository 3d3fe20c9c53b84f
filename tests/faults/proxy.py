"""A TCP proxy in front of a server, which delays, cuts or refuses connections; threads of the test's own process."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Forwards a port of this machine; what it does to connections can be changed at any time."""

    def __init__(self, target: int) -> None:
        self.delay = 0.0
        """Seconds before a piece of an answer is forwarded."""
        self.cut = 0.0
        """Chance that a connection is cut in place of a piece of an answer: the server has done what it was asked for."""
        self.answers = 0
        self.cuts = 0
        self._target = target
        self._chance = random.Random(0)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as server:
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            while answer := server.recv(65536):
                self.answers += 1
                time.sleep(self.delay)
                if self._chance.random() < self.cut:
                    self.cuts += 1
                    _cut(client)
                    return
                client.sendall(answer)
        with suppress(OSError):
            client.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(65536):
            target.sendall(content)
        target.shutdown(socket.SHUT_WR)


def _cut(client: socket.socket) -> None:
    """End a connection that another thread reads from."""
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
    client.close()

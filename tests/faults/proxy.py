"""A proxy in front of a server, which delays, cuts or refuses connections, or answers itself; threads of the test's own process."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

UPLOAD = 32_768
"""Bytes of one request after which it counts as an upload; its headers and the first of its content are through by then."""
_METHODS = (b"GET ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ")


class Proxy:
    """Forwards a port of this machine; what it does to connections can be changed at any time."""

    def __init__(self, target: int) -> None:
        self.delay = 0.0
        """Seconds before a piece of an answer is forwarded."""
        self.cut = 0.0
        """Chance that a connection is cut in place of a piece of an answer: the server has done what it was asked for."""
        self.break_off = 0
        """How many of the next answers are cut before their last byte."""
        self.refuse = 0.0
        """Chance that a connection is closed as soon as it is there."""
        self.reject = 0.0
        """Chance that a request is not forwarded, and answered with ``status``."""
        self.status = "500 Internal Server Error"
        self.cut_uploads = 0.0
        """Chance that a connection is cut in the middle of an upload."""
        self.answers = 0
        self.cuts = 0
        self.faults = 0
        """What was refused, rejected, or cut in the middle of an upload."""
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
        if self._happens(self.refuse):
            _cut(client)
            return
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as server:
            threading.Thread(target=self._pump, args=(client, server), daemon=True).start()
            while answer := server.recv(65536):
                self.answers += 1
                time.sleep(self.delay)
                if self._chance.random() < self.cut:
                    self.cuts += 1
                    _cut(client)
                    return
                if self.break_off > 0:
                    self.break_off -= 1
                    client.sendall(answer[:-1])
                    _cut(client)
                    return
                client.sendall(answer)
        with suppress(OSError):
            client.close()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        """Forward requests; one begins a piece, since nobody sends the next before the answer to the last has come."""
        sent = 0
        with suppress(OSError):
            while content := client.recv(65536):
                sent = 0 if content.startswith(_METHODS) else sent
                if sent == 0 and self._happens(self.reject):
                    client.sendall(
                        f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
                    )
                    _cut(client)
                    break
                sent += len(content)
                if sent > UPLOAD and self._happens(self.cut_uploads):
                    server.sendall(content[: len(content) // 2])
                    _cut(client)
                    break
                server.sendall(content)
            server.shutdown(socket.SHUT_WR)

    def _happens(self, chance: float) -> bool:
        happens = self._chance.random() < chance
        self.faults += happens
        return happens


def _cut(client: socket.socket) -> None:
    """End a connection that another thread reads from."""
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
    client.close()

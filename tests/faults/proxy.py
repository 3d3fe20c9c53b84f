"""TCP proxy in front of a server that delays, cuts or rejects connections."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

UPLOAD_BYTES = 32_768
"""Size in bytes from which a request counts as an upload."""
_CHUNK_BYTES = 65_536
_METHODS = (b"GET ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ")


class Proxy:
    """Forwards connections to a port of this machine, in threads of this process.

    All settings can be changed while it runs. Probabilities are between 0 and 1.
    """

    def __init__(self, target_port: int) -> None:
        """Listen on a free port, ``port``. Call ``running`` to accept connections."""
        self.delay = 0.0
        """Seconds to wait before each part of an answer is forwarded."""
        self.cut_probability = 0.0
        """Probability to cut the connection instead of forwarding a part of an answer.

        The server has handled the request by then.
        """
        self.answers_to_truncate = 0
        """How many of the next answers lose their last byte."""
        self.refuse_probability = 0.0
        """Probability to close a new connection at once."""
        self.reject_probability = 0.0
        """Probability to answer a request with ``reject_status`` instead of forwarding it."""
        self.reject_status = "500 Internal Server Error"
        self.reject_path = b""
        """Reject only requests that contain this text in their first line."""
        self.cut_upload_probability = 0.0
        """Probability to cut the connection during an upload."""
        self.answer_count = 0
        """Parts of answers that arrived from the server."""
        self.cut_count = 0
        """Connections cut by ``cut_probability``."""
        self.fault_count = 0
        """Connections and requests that were refused, rejected, or cut during an upload."""
        self._target_port = target_port
        self._random = random.Random(0)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Accept connections inside the context."""
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the end of the context closes the socket
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._draw_fault(self.refuse_probability):
            _cut(client)
            return
        address = ("127.0.0.1", self._target_port)
        # The client or the server may end the connection at any time.
        with suppress(OSError), socket.create_connection(address) as server:
            requests = threading.Thread(
                target=self._forward_requests, args=(client, server), daemon=True
            )
            requests.start()
            if not self._forward_answers(client, server):
                _cut(client)
                return
        with suppress(OSError):
            client.close()

    def _forward_answers(self, client: socket.socket, server: socket.socket) -> bool:
        """Forward answers until the server ends the connection. Return False to cut it."""
        while answer := server.recv(_CHUNK_BYTES):
            self.answer_count += 1
            time.sleep(self.delay)
            if self._random.random() < self.cut_probability:
                self.cut_count += 1
                return False
            if self.answers_to_truncate > 0:
                self.answers_to_truncate -= 1
                client.sendall(answer[:-1])
                return False
            client.sendall(answer)
        return True

    def _forward_requests(self, client: socket.socket, server: socket.socket) -> None:
        """Forward requests until the client ends the connection.

        A client sends a request only after the answer to the previous one. Therefore each request
        begins at the start of a chunk.
        """
        sent_bytes = 0
        with suppress(OSError):  # the client or the server has ended the connection
            while chunk := client.recv(_CHUNK_BYTES):
                if chunk.startswith(_METHODS):
                    sent_bytes = 0
                can_reject = sent_bytes == 0 and self.reject_path in chunk.partition(b"\r\n")[0]
                if can_reject and self._draw_fault(self.reject_probability):
                    client.sendall(
                        f"HTTP/1.1 {self.reject_status}\r\n"
                        "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
                    )
                    _cut(client)
                    break
                sent_bytes += len(chunk)
                if sent_bytes > UPLOAD_BYTES and self._draw_fault(self.cut_upload_probability):
                    server.sendall(chunk[: len(chunk) // 2])
                    _cut(client)
                    break
                server.sendall(chunk)
            server.shutdown(socket.SHUT_WR)

    def _draw_fault(self, probability: float) -> bool:
        is_fault = self._random.random() < probability
        self.fault_count += is_fault
        return is_fault


def _cut(client: socket.socket) -> None:
    """Close a connection, even if another thread reads from it."""
    with suppress(OSError):  # the client has closed it already
        client.shutdown(socket.SHUT_RDWR)
    client.close()

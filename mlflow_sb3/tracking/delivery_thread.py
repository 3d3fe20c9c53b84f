"""Send the journal of a run to the tracking server in a thread."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from mlflow_sb3.client import retry
from mlflow_sb3.tracking.journal_sender import JournalSender

SEND_INTERVAL = 2.0
"""Seconds between two deliveries while the run goes on."""
_FINAL_SEND_INTERVAL = 1.0
"""Seconds between two attempts after the run has ended."""
_MIN_FINAL_TIMEOUT = 5.0
"""Smallest timeout of ``finish`` in seconds. A smaller one is raised to it."""


class DeliveryThread:
    """Send pending journal entries regularly, until the run ends and all entries are delivered."""

    def __init__(self, sender: JournalSender) -> None:
        """Prepare the thread. Call ``start`` to start it."""
        self.last_error: Exception | None = None
        """Why the last attempt to send entries failed. None if no attempt has failed."""
        self._journal = sender.journal
        self._sender = sender
        self._has_run_ended = threading.Event()
        self._has_timed_out = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-delivery", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def finish(self, timeout: float) -> bool:
        """Wait until the remaining entries are delivered.

        After a timeout the thread may go on, because a call to an artifact store can block for
        minutes. It does not keep the process alive.

        Args:
            timeout: Seconds without progress after which to stop waiting.

        Returns:
            Whether everything was delivered.
        """
        self._has_run_ended.set()
        timeout = max(timeout, _MIN_FINAL_TIMEOUT)
        remaining, deadline = self._count_pending(), time.monotonic() + timeout
        while self._thread.is_alive():
            self._thread.join(_FINAL_SEND_INTERVAL)
            pending = self._count_pending()
            if pending < remaining:
                remaining, deadline = pending, time.monotonic() + timeout
            elif pending and time.monotonic() > deadline:
                self._has_timed_out.set()
                return False
        self._journal.close()
        return self._count_pending() == 0

    def _count_pending(self) -> int:
        return len(self._journal.get_pending_entries())

    def _work(self) -> None:
        while not self._has_run_ended.wait(SEND_INTERVAL):
            self._send()
        while not self._send() and not self._has_timed_out.wait(_FINAL_SEND_INTERVAL):
            pass

    def _send(self) -> bool:
        """Try once to send all pending entries. Return whether that succeeded."""
        with suppress(OSError):  # a failed sync must not stop the delivery
            self._journal.sync()
        return retry.try_call(self._sender.send_pending, on_error=self._keep_error)

    def _keep_error(self, error: Exception) -> None:
        self.last_error = error

"""Stop signals: the first one asks, the second one leaves at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from vlmrm_fast.errors import VLMRMError

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Schedulers grant five seconds and more between the signal and the kill.
GRACE_SECONDS = 4.5


class TrainingStoppedError(VLMRMError):
    """Training ended on a signal, its state saved.

    Attributes:
        exit_code: 130 after Ctrl-C, else 143.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopSignals:
    """A context in which SIGTERM, SIGINT and SIGUSR1 set a flag instead of ending the process.

    A second signal ends it at once, and so does `GRACE_SECONDS` after the first one: a step of
    a large model may outlast the time that a scheduler grants. Outside of the main thread, where
    Python takes no signals, the context does nothing.

    Attributes:
        received: the first signal's number, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> StopSignals:
        """Install the handlers.

        Returns:
            This object.
        """
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the former handlers back."""
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """The exit code that the signal asks for: 130 after Ctrl-C, else 143."""
        return 130 if self.received == signal.SIGINT else 143

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None:
            os._exit(130 if number == signal.SIGINT else 143)
        self.received = number
        self._timer = threading.Timer(GRACE_SECONDS, self._leave)
        self._timer.daemon = True
        self._timer.start()

    def _leave(self) -> None:
        text = "Stopped without saving: a step took too long. The last checkpoint is whole.\n"
        sys.stderr.write(text)
        sys.stderr.flush()
        os._exit(self.exit_code)

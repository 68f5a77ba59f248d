"""What `superfan up` shows: one line per finished step, and beneath them what is going on now."""

import time

from rich.console import Console


class Progress:
    """On a terminal the present action is one line that changes; elsewhere a line is printed every few seconds."""

    QUIET_SECONDS = 3

    def __init__(self, console: Console, steps: int) -> None:
        self._console = console
        self._steps = steps
        self._done = 0
        self._said_at = 0.0
        self._status = console.status("starting")

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes the changing line away."""
        self._status.stop()

    def say(self, text: str) -> None:
        """Shows what is going on; may be called from any thread."""
        if self._console.is_terminal:
            self._status.update(text)
        elif time.monotonic() - self._said_at > self.QUIET_SECONDS:
            self._said_at = time.monotonic()
            self._console.print(f"      {text}", highlight=False, markup=False)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(f"      {text}", highlight=False, markup=False)

    def done(self, what: str, detail: str, began: float) -> None:
        """A finished step; `began` is the time.monotonic() of its start."""
        self._done += 1
        took = f"{time.monotonic() - began:.1f}s"
        head = f"[{self._done}/{self._steps}]"
        self._console.print(f"{head} {what:<10} {detail:<52} ok {took:>6}", highlight=False, markup=False)

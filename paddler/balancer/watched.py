"""State that tells when it changes."""

from collections.abc import Callable


class Watched:
    """Base of what others watch: whoever changes it calls :meth:`_changed` afterwards."""

    def __init__(self) -> None:
        self._watchers: list[Callable[[], object]] = []

    def watch(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` after every change, synchronously: it must be quick and not raise."""
        self._watchers.append(callback)

    def unwatch(self, callback: Callable[[], object]) -> None:
        """Undo :meth:`watch`."""
        self._watchers.remove(callback)

    def _changed(self) -> None:
        for callback in tuple(self._watchers):
            callback()

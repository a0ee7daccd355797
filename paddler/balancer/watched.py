"""State that tells when it changes."""

from collections.abc import Callable


class Watched:
    """Base of what others watch: whoever changes it calls :meth:`_changed` afterwards."""

    def __init__(self) -> None:
        # Changed anew each time, as a watcher may come or go while others are called.
        self._watchers: tuple[Callable[[], object], ...] = ()

    def watch(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` after every change, synchronously: it must be quick and not raise."""
        self._watchers += (callback,)

    def unwatch(self, callback: Callable[[], object]) -> None:
        """Undo :meth:`watch`."""
        watchers = list(self._watchers)
        watchers.remove(callback)
        self._watchers = tuple(watchers)

    def _changed(self) -> None:
        for callback in self._watchers:
            callback()

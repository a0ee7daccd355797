"""The asyncio side: pumps bytes between transports and the protocols of paddler.proto."""

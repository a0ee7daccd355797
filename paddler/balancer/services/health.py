"""``GET /health``: the listener runs. The same on every listener."""

from paddler.net.connection import Exchange
from paddler.net.http import Response, text


async def get_health(exchange: Exchange) -> Response:
    """Exactly ``OK``; clients compare it."""
    return text(200, "OK")

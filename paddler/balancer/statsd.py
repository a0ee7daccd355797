"""Gauges by UDP to a StatsD server."""

import asyncio
import logging
import socket

from paddler.balancer.link import AgentLink, Pool
from paddler.balancer.waitline import Waitline
from paddler.config import Address

log = logging.getLogger(__name__)


def encode_gauge(prefix: str, name: str, value: int) -> bytes:
    """One datagram. The prefix is parted from the name by exactly one dot; an empty one by none."""
    prefix = prefix.rstrip(".")
    return f"{prefix}.{name}:{value}|g".encode() if prefix else f"{name}:{value}|g".encode()


async def report_gauges(
    address: Address, prefix: str, interval_s: float, pool: Pool, waitline: Waitline[AgentLink]
) -> None:
    """Send the three gauges now and then every ``interval_s``, until cancelled.

    A server that cannot be reached is logged and never stops the balancer.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        while True:
            gauges = (
                ("slots_processing", pool.slots_busy),
                ("slots_total", pool.slots_total),
                ("requests_buffered", waitline.waiting),
            )
            try:
                for name, value in gauges:
                    udp.sendto(encode_gauge(prefix, name, value), (address.host, address.port))
            except OSError as error:
                log.warning("cannot report to StatsD at %s: %s", address.text, error)
            await asyncio.sleep(interval_s)

"""Many scripted agents in one process."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from bench.scripted.agent import ScriptedAgent
from bench.scripted.pacemaker import Pacemaker
from bench.scripted.script import Script
from bench.scripted.tally import Tally
from paddler.config import Address
from paddler.ids import new_id

MAX_DIALLING = 64  # at once; a balancer's accept queue is finite
GOODBYE_S = 0.2


class ScriptedFleet:
    """``count`` agents that follow one script. ``tally`` tells what they did."""

    def __init__(
        self,
        address: Address,
        count: int,
        script: Script,
        *,
        name_prefix: str = "scripted-",
        seed: int | None = None,
    ) -> None:
        self._address = address
        self._count = count
        self._script = script
        self._name_prefix = name_prefix
        self._dice = random.Random(seed)
        self.tally = Tally()
        self.agents: list[ScriptedAgent] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedFleet"]:
        """Agents that dial, and dial again, within the block; :meth:`wait_joined` is apart."""
        pacemaker = Pacemaker(self.tally)
        dialling = asyncio.Semaphore(MAX_DIALLING)
        width = len(str(self._count))
        self.agents = [
            ScriptedAgent(
                self._address,
                new_id(),
                f"{self._name_prefix}{number:0{width}}",
                self._script,
                pacemaker,
                self.tally,
                self._dice,
            )
            for number in range(1, self._count + 1)
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(agent.run(dialling)) for agent in self.agents]
            try:
                yield self
            finally:
                pacemaker.stop()
                for agent in self.agents:
                    agent.leave()
                await asyncio.wait(tasks, timeout=GOODBYE_S)  # for goodbyes to be read
                for task in tasks:
                    task.cancel()

    async def wait_joined(self) -> None:
        """Return once every agent is connected."""
        for agent in self.agents:
            await agent.joined.wait()

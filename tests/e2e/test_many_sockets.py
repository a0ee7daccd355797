"""Many sockets with many requests, a third of them cancelled: all are accounted for."""

import asyncio
import json
import random
from pathlib import Path

from websockets.asyncio.client import connect

from tests.e2e.fleet import Fleet, raw_prompt, wait_until

SOCKETS = 200
REQUESTS_EACH = 5


async def use_socket(port: int, seed: int) -> tuple[int, int]:
    """Answers that came to their end, and requests that were cancelled."""
    randomness = random.Random(seed)
    url = f"ws://127.0.0.1:{port}/api/v1/inference_socket"
    async with connect(url, open_timeout=60, ping_timeout=None) as socket:
        ids = [str(number) for number in range(REQUESTS_EACH)]
        for request_id in ids:
            body = raw_prompt(f"{seed} {request_id}", 2)
            job = {"id": request_id, "request": {"ContinueFromRawPrompt": body}}
            await socket.send(json.dumps({"Request": job}))
        open_ids = set(ids)
        cancelled = {request_id for request_id in ids if randomness.random() < 1 / 3}
        for request_id in cancelled:
            await asyncio.sleep(randomness.random() / 10)  # at any moment of its life
            await socket.send(json.dumps({"Notification": {"StopRespondingTo": request_id}}))
        while open_ids - cancelled:
            message = json.loads(await asyncio.wait_for(socket.recv(), 120))
            assert "Error" not in message, message
            envelope = message["Response"]
            if "Done" in envelope["response"]["GeneratedToken"]:
                open_ids.discard(envelope["request_id"])
        return REQUESTS_EACH - len(cancelled), len(cancelled)


def test_every_request_ends_or_is_cancelled_and_no_slot_or_place_is_left_taken(
    tmp_path: Path, smollm2_path: Path
) -> None:
    total = SOCKETS * REQUESTS_EACH
    flags = ("--buffered-request-timeout", "150s", "--inference-item-timeout", "90s")
    with Fleet(tmp_path, *flags, "--max-buffered-requests", str(total)) as fleet:
        fleet.start_agent("a", 8)
        fleet.start_agent("b", 8)
        fleet.put_model(smollm2_path, context_size=2048)
        fleet.wait_slots(16)

        async def use_all() -> list[tuple[int, int]]:
            sockets = (use_socket(fleet.inference, seed) for seed in range(SOCKETS))
            return await asyncio.gather(*sockets)

        outcomes = asyncio.run(use_all())
        assert sum(done + cancelled for done, cancelled in outcomes) == total
        assert sum(cancelled for _, cancelled in outcomes) > total / 5
        wait_until(lambda: (fleet.slots_busy(), fleet.buffered()) == (0, 0), "all is free again")

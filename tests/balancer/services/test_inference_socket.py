"""Requests on an inference socket of a real balancer, whose agent is played by the test."""

import json

import pytest

from paddler.balancer.services.inference_socket import InferenceSocket
from paddler.net.client import connect_websocket
from paddler.net.websocket import WebSocketConnection
from tests.balancer.services.running import Agent, Running, on_balancer
from tests.net.peers import Recorder

RAW = {"raw_prompt": "Once", "max_tokens": 5}
REQUEST = {"Request": {"id": "same", "request": {"ContinueFromRawPrompt": RAW}}}


@pytest.mark.parametrize("end", ["Done", "SamplerError"])
def test_an_id_is_free_as_soon_as_its_last_message_is_sent(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A client may use it again before the balancer's loop comes round once more."""
    body = json.dumps(REQUEST).encode()
    sockets: list[InferenceSocket] = []
    take, send = InferenceSocket.on_text, WebSocketConnection.send_text

    def take_and_note(socket: InferenceSocket, data: memoryview) -> None:
        sockets.append(socket)
        take(socket, data)

    def send_and_hear_the_client(connection: WebSocketConnection, data: bytes) -> None:
        send(connection, data)
        if end.encode() in data and len(sockets) == 1:
            sockets[0].on_text(memoryview(body))

    monkeypatch.setattr(InferenceSocket, "on_text", take_and_note)
    monkeypatch.setattr(WebSocketConnection, "send_text", send_and_hear_the_client)

    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        recorders: list[Recorder] = []

        def open_handler(connection: WebSocketConnection) -> Recorder:
            recorders.append(Recorder(connection))
            return recorders[0]

        path = "/api/v1/inference_socket"
        await connect_websocket(
            "127.0.0.1", running.inference, path, open_handler, connect_timeout_s=5.0
        )
        recorders[0].connection.send_text(body)
        first = await agent.hear_start()
        if end == "Done":
            agent.finish(first.stream_id)
        else:
            agent.fail(first.stream_id, {"SamplerError": "no token is left"})
        second = await agent.hear_start()
        agent.finish(second.stream_id)
        messages = [json.loads((await recorders[0].messages.get())[1]) for _ in range(2)]
        assert [message["Response"]["request_id"] for message in messages] == ["same", "same"]
        agent.leave()

    on_balancer(test)

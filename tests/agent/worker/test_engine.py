from paddler.agent.worker.engine import ScriptedEngine
from paddler.agent.worker.logprobs import TokenLogprobs
from paddler.messages.link import Sampling


def test_scripted_engine_tells_logprobs_of_what_it_said_to_those_who_asked() -> None:
    engine = ScriptedEngine(answers={"p": b"\xffa"})
    engine.open(0, [ord("p")], Sampling(top_logprobs=3), None)
    engine.open(1, [ord("p")], Sampling(), None)
    engine.open(2, [ord("p")], Sampling(top_logprobs=0), None)
    assert engine.sample([0, 1, 2]) == [0xFF] * 3
    sure = ScriptedEngine.LOGPROB
    assert engine.logprobs(0) == TokenLogprobs(
        0xFF, sure, [(0xFF, sure), (0, sure - 2), (1, sure - 4)]
    )
    assert engine.logprobs(1) is None
    assert engine.logprobs(2) == TokenLogprobs(0xFF, sure, [])
    engine.sample([0])
    told = engine.logprobs(0)
    assert told is not None
    assert told.token == ord("a")
    engine.release(0)
    assert engine.logprobs(0) is None

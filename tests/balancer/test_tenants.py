import asyncio

import pytest

from paddler.balancer.tenants import Tenants, TooManyRequests, current_tenant


def tenants(limit: int = 0, waiting: int = 0) -> Tenants:
    return Tenants(requests_per_key=limit, waiting_per_key=lambda: waiting)


def test_a_key_may_have_so_many_requests_and_no_more() -> None:
    counted = tenants(limit=2)
    with counted.request("a"), counted.request("a"), counted.request("b"):
        with (
            pytest.raises(TooManyRequests, match="'a' has 2 requests") as caught,
            counted.request("a"),
        ):
            pass
        assert (caught.value.status, counted.running("a")) == (429, 2)
    assert counted.running("a") == counted.running("b") == 0


def test_nobody_in_particular_has_no_limit() -> None:
    counted = tenants(limit=1, waiting=1)
    with counted.request(""), counted.request(""):
        assert counted.may_wait("", 99)


def test_a_failed_request_counts_no_longer() -> None:
    counted = tenants(limit=1)
    with pytest.raises(RuntimeError), counted.request("a"):
        raise RuntimeError
    with counted.request("a"):
        pass


@pytest.mark.parametrize(("limit", "waiting", "may"), [(0, 99, True), (2, 1, True), (2, 2, False)])
def test_a_key_has_its_share_of_the_buffer(limit: int, waiting: int, may: bool) -> None:
    assert tenants(waiting=limit).may_wait("a", waiting) is may


def test_the_tasks_of_a_request_know_whose_it_is() -> None:
    async def test() -> None:
        counted = tenants()

        async def serve(name: str) -> list[str]:
            with counted.request(name):
                child = asyncio.create_task(asyncio.sleep(0, current_tenant()))
                return [current_tenant(), await child]

        assert await asyncio.gather(serve("a"), serve("b")) == [["a", "a"], ["b", "b"]]
        assert current_tenant() == ""

    asyncio.run(test())

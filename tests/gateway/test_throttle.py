"""Token buckets on a clock that stands still."""

from __future__ import annotations

import pytest

from martlet.clock import ManualClock
from martlet.errors import InvalidInput
from martlet.gateway.throttle import Buckets
from martlet.types import Throttle


def test_a_burst_then_the_rate(manual: ManualClock) -> None:
    buckets = Buckets(Throttle(rate=2, burst=3), manual)
    assert [buckets.take("c") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("c") == pytest.approx(0.5)
    manual.advance(0.4)
    assert buckets.take("c") == pytest.approx(0.1)  # a refused request costs nothing
    manual.advance(0.1)
    assert buckets.take("c") == 0
    assert buckets.take("c") > 0


def test_a_rest_fills_the_bucket_and_no_more(manual: ManualClock) -> None:
    buckets = Buckets(Throttle(rate=10, burst=5), manual)
    for _ in range(5):
        buckets.take("c")
    manual.advance(3600)
    assert sum(buckets.take("c") == 0 for _ in range(50)) == 5


def test_the_long_run_keeps_the_rate(manual: ManualClock) -> None:
    buckets = Buckets(Throttle(rate=7, burst=3), manual)
    served = 0
    for _ in range(10_000):
        manual.advance(0.01)
        served += buckets.take("c") == 0
    assert 700 <= served <= 703


def test_a_route_is_one_bucket_and_clients_are_many(manual: ManualClock) -> None:
    route = Buckets(Throttle(rate=1, burst=1), manual)
    assert [route.take("a") == 0, route.take("b") == 0] == [True, False]
    client = Buckets(Throttle(rate=1, burst=1, per="client"), manual)
    assert [client.take("a") == 0, client.take("b") == 0, client.take("a") == 0] == [True, True, False]


def test_a_host_with_2_to_the_64_addresses_is_one_client(manual: ManualClock) -> None:
    buckets = Buckets(Throttle(rate=1, burst=1, per="client"), manual)
    assert buckets.take("2001:db8:1:2::1") == 0
    assert buckets.take("2001:db8:1:2:ffff::9") > 0
    assert buckets.take("2001:db8:1:3::1") == 0
    assert buckets.take("::ffff:192.0.2.1") == 0
    assert buckets.take("192.0.2.1") > 0
    assert buckets.take("::ffff:192.0.2.2") == 0
    assert buckets.take("not:an:address") == 0


def test_memory_is_bounded_and_the_longest_unseen_goes_first(manual: ManualClock) -> None:
    buckets = Buckets(Throttle(rate=0.001, burst=1, per="client"), manual, clients=100)
    assert buckets.take("faithful") == 0
    for number in range(10_000):
        buckets.take(f"c{number}")
        if number % 50 == 0:
            assert buckets.take("faithful") > 0
    assert len(buckets) == 100


def test_the_refusal_says_when_to_come_back(manual: ManualClock) -> None:
    buckets = Buckets(Throttle(rate=0.25, burst=1), manual)
    buckets.take("c")
    error = buckets.refusal(buckets.take("c"))
    assert error.retry_after_seconds == 4
    assert error.problem()["rate"] == 0.25
    assert buckets.refusal(0.001).retry_after_seconds == 1


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1), (float("inf"), 1)])
def test_a_bucket_that_could_not_work_is_refused(manual: ManualClock, rate: float, burst: int) -> None:
    with pytest.raises(InvalidInput):
        Buckets(Throttle(rate=rate, burst=burst), manual)

"""Virtual links: rates and latencies that are none are refused; seconds follow from bits."""

import json
from dataclasses import asdict

import pytest

from pluralis_lab.errors import RunSpecError
from pluralis_lab.links import Links


@pytest.mark.parametrize(("rate", "bits"), [("80mbit", 80e6), ("1gbit", 1e9), ("500 KBIT", 500e3), (" 2.5mbit ", 2.5e6)])
def test_a_rate_is_read_in_bits_a_second(rate, bits):
    assert Links(rate).bits_per_s == bits
    assert Links(rate).seconds(1000) == pytest.approx(8000 / bits)


@pytest.mark.parametrize("rate", ["", "80", "80 MB", "-1mbit", "0mbit", "1e3mbit", "mbit", "80mbit/s", 80])
def test_a_rate_that_is_none_is_refused_with_an_example(rate):
    with pytest.raises(RunSpecError, match="80mbit") as raised:
        Links(rate)
    assert repr(rate) in str(raised.value)


@pytest.mark.parametrize("latency", [-1.0, float("nan"), float("inf")])
def test_a_latency_that_is_none_is_refused(latency):
    with pytest.raises(RunSpecError, match="latency_ms"):
        Links("1gbit", latency_ms=latency)


@pytest.mark.parametrize("rate", ["", "80", "-1mbit", "0mbit", "80mbit/s", 80, True])
def test_an_uplink_that_is_none_is_refused_by_its_name(rate):
    with pytest.raises(RunSpecError, match=r"uplink=.*80mbit") as raised:
        Links("1gbit", uplink=rate)
    assert repr(rate) in str(raised.value)


def test_an_uplink_is_the_same_for_every_pair_and_none_takes_no_time():
    links = Links("1gbit", 1, pairs=[("worker-3", "*", "10mbit", 80)], uplink="80mbit")
    assert links.uplink_seconds(1000) == pytest.approx(8000 / 80e6)
    assert links.between("worker-0", "worker-3") == Links("10mbit", 80, uplink="80mbit")
    assert links.between("worker-0", "worker-1") == Links("1gbit", 1, uplink="80mbit")
    assert Links("1gbit").uplink_seconds(10**12) == 0


def test_links_go_through_a_record_and_come_back():
    links = Links("1gbit", 1, pairs=[("worker-3", "*", "10mbit", 80)], uplink="80mbit")
    assert Links(**json.loads(json.dumps(asdict(links)))) == links
    old = {"rate": "80mbit", "latency_ms": 20, "pairs": []}  # as runs have it that were made before there were uplinks
    assert Links(**old) == Links("80mbit", 20)


@pytest.mark.parametrize(
    ("links", "said"),
    [
        (Links("80MBIT", 50), "a wire of 80 Mbit/s and 50 ms for each pair, none shared"),
        (
            Links("1 gbit", 0.5, uplink="2.5mbit"),
            "an uplink of 2.5 Mbit/s for each worker, behind it a wire of 1 Gbit/s and 0.5 ms for each pair",
        ),
        (
            Links("500kbit", 1, pairs=[("a", "b", "1mbit", 1)]),
            "a wire of 500 kbit/s and 1 ms for each pair (1 other named), none shared",
        ),
    ],
)
def test_links_say_what_workers_share(links, said):
    assert links.described() == said


def test_latency_is_given_in_milliseconds():
    assert Links("1gbit", latency_ms=20).latency_s == 0.02


def test_a_pair_can_have_a_link_of_its_own_and_the_later_one_wins():
    links = Links("1gbit", 1, pairs=[("worker-3", "*", "10mbit", 80), ("worker-2", "worker-3", "100mbit", 5)])
    assert links.between("worker-0", "worker-1") == Links("1gbit", 1)
    assert links.between("worker-0", "worker-3") == links.between("worker-3", "worker-0") == Links("10mbit", 80)
    assert links.between("worker-3", "worker-2") == Links("100mbit", 5)
    assert Links("1gbit", 1).between("worker-0", "worker-1") == Links("1gbit", 1)


@pytest.mark.parametrize(
    "pair", [("worker-0", "worker-1", "10mbit"), ("worker-0", 1, "10mbit", 1), ("a", "b", "slow", 1), ("a", "b", "1mbit", -1)]
)
def test_a_pair_that_is_none_is_refused(pair):
    with pytest.raises(RunSpecError, match=r"mbit|latency_ms"):
        Links(pairs=[pair])

"""Numbers as people read them."""

import math

import pytest

from pluralis_lab.views import units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.format_bytes(0), "0 B"),
        (units.format_bytes(999), "999 B"),
        (units.format_bytes(999.6), "1.00 kB"),
        (units.format_bytes(1_234_567), "1.23 MB"),
        (units.format_bytes_per_s(12_300), "12.3 kB/s"),
        (units.format_flops(3.2e15), "3.20 PFLOP"),
        (units.format_count(12_345), "12.3 k"),
        (units.format_tokens_per_s(7460), "7.46 k tokens/s"),
        (units.format_duration(0.35), "350 ms"),
        (units.format_duration(9.97), "10 s"),
        (units.format_duration(59.7), "1 min 00 s"),
        (units.format_duration(102), "1 min 42 s"),
        (units.format_duration(11_100), "3 h 05 min"),
        (units.format_duration(3 * 86_400 + 7200), "3 d 02 h"),
        (units.format_nats(2.0991), "2.099 nats"),
        (units.format_share(1 / 3), "33.3 %"),
        (units.format_number(0.91234), "0.912"),
        (units.count_word(6), "six"),
        (units.count_word(32), "32"),
    ],
)
def test_a_number_is_written_with_its_unit(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_not_known_is_a_dash(value: float | None) -> None:
    for write in (
        units.format_bytes,
        units.format_duration,
        units.format_nats,
        units.format_share,
        units.format_count,
        units.format_flops,
    ):
        assert write(value) == "–"

"""Numbers as people read them: bytes, durations, counts, floating point operations and shares, with their units."""

import math

_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
NOT_KNOWN = "–"


def _scaled(value: float) -> tuple[str, str]:
    """Return `value` in three significant digits and the SI prefix that goes with it."""
    magnitude = abs(value)
    power = 0
    while magnitude >= 999.5 and power < len(_PREFIXES) - 1:
        magnitude /= 1000
        power += 1
    digits = 0 if power == 0 and magnitude == int(magnitude) else max(0, 2 - int(math.log10(magnitude))) if magnitude >= 1 else 2
    return f"{'-' if value < 0 else ''}{magnitude:.{digits}f}", _PREFIXES[power]


def format_count(value: float | None) -> str:
    """Return a plain count, as `12.4 k`."""
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    number, prefix = _scaled(value)
    return f"{number} {prefix}".rstrip()


def _with_unit(value: float | None, unit: str) -> str:
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    number, prefix = _scaled(value)
    return f"{number} {prefix}{unit}"


def format_bytes(size_bytes: float | None) -> str:
    """Return a number of bytes in decimal units, as `1.20 MB`."""
    return _with_unit(size_bytes, "B")


def format_bytes_per_s(rate: float | None) -> str:
    """Return a transfer rate, as `1.20 MB/s`."""
    return _with_unit(rate, "B/s")


def format_flops(flops: float | None) -> str:
    """Return an amount of floating point operations, as `3.20 PFLOP`."""
    return _with_unit(flops, "FLOP")


def format_tokens_per_s(rate: float | None) -> str:
    """Return a training speed, as `12.4 k tokens/s`."""
    return NOT_KNOWN if rate is None or not math.isfinite(rate) else f"{format_count(rate)} tokens/s"


def format_duration(seconds: float | None) -> str:
    """Return a length of time, as `350 ms`, `4.2 s`, `1 min 42 s` or `3 h 05 min`."""
    if seconds is None or not math.isfinite(seconds):
        return NOT_KNOWN
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = whole // 60
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60:02d} h"


def format_nats(loss: float | None, digits: int = 3) -> str:
    """Return a loss per token, as `2.913 nats`."""
    return NOT_KNOWN if loss is None or not math.isfinite(loss) else f"{loss:.{digits}f} nats"


def format_number(value: float | None, digits: int = 3) -> str:
    """Return a bare number in `digits` significant digits, as `0.912`."""
    return NOT_KNOWN if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def format_share(share: float | None) -> str:
    """Return a fraction of one as a percentage, as `33.4 %`."""
    return NOT_KNOWN if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def count_word(count: int) -> str:
    """Return small counts as a word, as `six`; larger ones in digits."""
    return _WORDS[count] if 0 <= count < len(_WORDS) else str(count)

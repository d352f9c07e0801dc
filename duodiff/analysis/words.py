"""Numbers with their intervals, as pages say them."""

import math


def with_half(value: float, half: float, digits: int, unit: str = "", sign: str = "") -> str:
    """A number with half its interval, "" where it is not known; an interval that rounds to 0 is left out."""
    if math.isnan(value):
        return ""
    text = f"{value:{sign}.{digits}f}"
    if float(text) == 0:
        text = text.replace("-", "+" if sign else "")
    if not half >= 0.5 * 10**-digits:  # NaN where there is none
        return text + unit
    return f"{text} ± {half:.{digits}f}{unit}"


def percent(share: float, half: float, digits: int = 1) -> str:
    """A share in percent, with half its interval."""
    return with_half(100 * share, 100 * half, digits, "%")


def between(low: float, high: float, digits: int = 1) -> str:
    """An interval of shares in percent."""
    return f"[{_unsigned(100 * low, digits)}%, {_unsigned(100 * high, digits)}%]"


def _unsigned(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text

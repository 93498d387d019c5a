"""Write the figures in a Chinese text as they are read aloud: 3.5% → 百分之三点五.

Recognizers write 25岁 where transcripts have 二十五岁. A figure is read by the first form of
``FORMS`` that it has: years and long figures digit by digit, amounts and what is counted as numbers
with their units, and a 2 before 百, 千, 万 and 亿 as 两.
"""

from __future__ import annotations

import re
from collections.abc import Callable

DIGITS = "零一二三四五六七八九"
# Power of ten → its unit, largest first.
UNITS = {12: "兆", 8: "亿", 4: "万", 3: "千", 2: "百", 1: "十"}
# A 2 that begins a number, or what follows a unit larger than ten.
LIANG = re.compile(rf"(?<![{DIGITS}十])二(?=[百千万亿兆])")

# Full-width figures, and the point between them.
HALF_WIDTH = {ord("０") + figure: str(figure) for figure in range(10)} | {ord("．"): "."}
# Thousands divided by commas, which no year or telephone has; group 1 is a percent sign.
GROUPED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?![\d,])([%％]?)")

NUMBER = r"\d+(?:\.\d+)?"
# What may stand between a number and what it counts.
ABOUT = "[多余几]?"
# Units of money, and of ten thousand that close a shortened number.
MONEY = "[元块角毛分百千万亿]"
# Measure words after which even a long figure is read as a number.
MEASURES = "[个名位家户张条支只件辆双对本口层篇页年月日天时秒里斤两岁次回场]"
DECIMAL_POINT = "点"


def spoken(text: str) -> str:
    """Return the text with its figures in Chinese characters."""
    text = text.translate(HALF_WIDTH)
    text = GROUPED.sub(_ungrouped, text)
    for form, read in FORMS:
        text = form.sub(read, text)
    return text


def cardinal(number: str) -> str:
    """Read a number in decimal figures: 10500 → 一万零五百, 2.50 → 二点五零."""
    whole, point, decimals = number.partition(".")
    read = _with_units(whole) or DIGITS[0]
    read = LIANG.sub("两", read)
    # Ten to nineteen begin with 十.
    if read.startswith("一十"):
        read = read[1:]
    if point:
        read += DECIMAL_POINT + digit_by_digit(decimals)
    return read


def digit_by_digit(figures: str) -> str:
    """Read each figure by itself: 2020 → 二零二零."""
    read = [DIGITS[int(figure)] for figure in figures]
    return "".join(read)


def _with_units(figures: str) -> str:
    """Read figures with their units; however many zeros at the front are one 零."""
    bare = figures.lstrip("0")
    if not bare:
        return ""
    zero = DIGITS[0] if bare != figures else ""
    if len(bare) == 1:
        digit = digit_by_digit(bare)
        return zero + digit

    # The largest unit divides the figures in two numbers.
    power = next(power for power in UNITS if power < len(bare))
    above = _with_units(bare[:-power])
    below = _with_units(bare[-power:])
    unit = UNITS[power]
    return zero + above + unit + below


def _ungrouped(match: re.Match) -> str:
    """Read a number with commas; before a percent sign, which is read first, only take them out."""
    figures = match[0].replace(",", "")
    if match[1]:
        return figures
    return cardinal(figures)


def _number(match: re.Match) -> str:
    return cardinal(match[0])


def _digits(match: re.Match) -> str:
    figures = match[0].replace("-", "")
    return digit_by_digit(figures)


def _fraction(match: re.Match) -> str:
    above = cardinal(match[1])
    below = cardinal(match[2])
    return f"{below}分之{above}"


def _percentage(match: re.Match) -> str:
    return "百分之" + cardinal(match[1])


# Forms of figures, each with how it is read; an earlier one comes first.
FORMS: list[tuple[re.Pattern, Callable[[re.Match], str]]] = [
    # A year of these centuries, in two or four figures.
    (re.compile(r"(?<!\d)(?:[089]\d|(?:19|20)\d\d)(?=年)"), _digits),
    (re.compile(rf"{NUMBER}(?={ABOUT}{MONEY})"), _number),
    # A telephone, with its area code or without.
    (re.compile(r"(?<!\d)(?:0\d{2,3}-?)?[1-9]\d{6,7}(?!\d)"), _digits),
    (re.compile(r"(\d+)/(\d+)"), _fraction),
    (re.compile(rf"({NUMBER})[%％]"), _percentage),
    (re.compile(rf"{NUMBER}(?={ABOUT}{MEASURES})"), _number),
    (re.compile(r"\d{4,}"), _digits),
    (re.compile(NUMBER), _number),
    # B2C is said in English.
    (re.compile(r"(?<=[A-Za-z])二(?=[A-Za-z])"), lambda match: "2"),
]

"""The elements of pages."""

from __future__ import annotations

from wenet_osum.report import page


def test_differences_are_marked_and_chinese_is_not_spaced():
    html = page.side_by_side("今天好", "今日好", "zh")
    assert "今<del>天</del>好" in html and "今<ins>日</ins>好" in html
    assert "(empty)" in page.side_by_side("a", "", "en")

"""The table of prompt sensitivity, in markdown and HTML."""

from __future__ import annotations

import math
from pathlib import Path

from wenet_osum.report import prompt_table
from wenet_osum.score.prompt_sensitivity import Wording

ASKED = [Wording(name, name[:2], f"<{name}>", Path(name)) for name in ("zh_0", "zh_1", "en_0")]
ROW = {
    "task": "<GENDER>",
    "field": "gender",
    "metric": "accuracy",
    "subset": "all",
    "scoring_prompt": 100.0,
    "values": {"zh_0": 100.0, "zh_1": 50.0, "en_0": 25.0},
    "by_language": {"zh": 75.0, "en": 25.0},
    "mean": 58.333,
    "lowest": 25.0,
    "highest": 100.0,
    "spread": 75.0,
    "language_difference": {"zh - en": 50.0},
}


def test_cells_are_those_of_the_row_and_a_dash_where_it_has_none():
    last = prompt_table.markdown([ROW]).splitlines()[-1]
    assert last == (
        "| <GENDER> | gender | accuracy all | 100.00 | 58.33 | 25.00 | 100.00 | 75.00 | – "
        "| zh 75.00, en 25.00 | zh - en: +50.00 |"
    )


def test_every_wording_stands_in_the_page_with_its_value():
    html = prompt_table.section([ROW], {"<GENDER>": ASKED})
    assert "3 wordings" in html and "<td class=n>25.00</td>" in html
    assert "&lt;en_0&gt;" in html and "<en_0>" not in html


def test_a_value_that_is_not_defined_is_a_dash():
    values = {"zh_0": 100.0, "zh_1": math.nan}
    html = prompt_table.section([ROW | {"values": values}], {"<GENDER>": ASKED})
    assert html.count("<td class=n>–</td>") == 3 and "nan" not in html


def test_without_rows_there_is_no_table():
    assert prompt_table.markdown([]) == prompt_table.section([], {}) == ""

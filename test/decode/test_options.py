"""The options of decoding: one field is found by commands, load, settings and docs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

from wenet_osum.bin import recognize, serve, transcribe
from wenet_osum.decode import options
from wenet_osum.decode.options import DecodeOptions, option

DOCS = Path(__file__).resolve().parents[2] / "docs" / "decoding.md"


@dataclass
class MoreOptions(DecodeOptions):
    """The search with an option that nothing else knows."""

    patience: int = option(3, "steps that a beam waits for a better one", int)


@pytest.fixture
def one_more(monkeypatch):
    monkeypatch.setattr(options, "TABLES", (MoreOptions, *options.TABLES[1:]))


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    return parser.parse_args(words)


def test_a_new_field_is_an_option_of_every_command(one_more, capsys):
    for command in (recognize, transcribe, serve):
        with pytest.raises(SystemExit):
            command.main(["--help"])
        assert "--patience PATIENCE" in capsys.readouterr().out, command.__name__


def test_a_new_field_is_a_setting_of_load_and_reaches_the_search(one_more):
    assert options.from_settings({}).patience == 3
    found = options.decode_options(options.from_settings({"patience": 5}))
    assert isinstance(found, MoreOptions) and found.patience == 5
    assert options.decode_options(parsed("--patience", "7")).patience == 7


def test_a_new_field_is_kept_beside_answers_and_in_the_docs(one_more):
    assert options.deciding(parsed("--patience", "7"))["patience"] == 7
    assert "| `--patience` | `3` | steps that a beam waits for a better one |" in options.markdown()


def test_the_table_in_the_docs_is_that_of_the_code():
    assert options.markdown() in DOCS.read_text(encoding="utf-8")


def test_what_changes_no_answer_is_not_kept():
    kept = options.deciding(parsed())
    assert {"num_beams", "length_penalty", "prompt", "lang", "longest_s", "dtype"} <= kept.keys()
    assert not kept.keys() & {"batch_size", "max_frames", "threads", "plugins"}


def test_beams_are_compared_by_the_length_penalty_that_is_given():
    assert options.decode_options(parsed("--num_beams", "2", "--length_penalty", "0.5")).length_penalty == 0.5
    with pytest.raises(ValueError, match="length_penalty nan"):
        DecodeOptions(length_penalty=float("nan"))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"num_beam": 2}, "unknown setting 'num_beam', did you mean 'num_beams'"),
        ({"num_beams": "two"}, "num_beams 'two'"),
        ({"num_beams": [2]}, "num_beams .2.: expected one value"),
        ({"lang": "fr"}, "lang: unknown value 'fr'; known: zh, en"),
        ({"rescore": "ctc_prefix"}, "must read NAME=WEIGHT"),
    ],
)
def test_bad_settings_are_told(settings, why):
    with pytest.raises(ValueError, match=why):
        options.from_settings(settings)


def test_settings_are_texts_or_values():
    texts = options.from_settings({"rescore": "ctc_prefix=0.5", "plugins": "a,b", "max_tokens": "9"})
    values = options.from_settings(
        {"rescore": {"ctc_prefix": 0.5}, "plugins": ["a", "b"], "max_tokens": 9}
    )
    assert texts == values

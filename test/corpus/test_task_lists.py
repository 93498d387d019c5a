"""Lists per task hold what the task can be scored on, and nothing else."""

import pytest

from wenet_osum.corpus.task_lists import choose, reference_lines
from wenet_osum.records import Utterance

UTTERANCES = [Utterance(key=str(i), wav="a.wav", txt="x", labels={"emotion": "sad" if i % 2 else None}) for i in range(20)]


def test_only_utterances_with_all_fields_in_order_and_evenly():
    assert [u.key for u in choose(UTTERANCES, "ser")] == [str(i) for i in range(1, 20, 2)]
    assert [u.key for u in choose(UTTERANCES, "asr", limit=4)] == ["0", "5", "10", "15"]


def test_a_task_without_utterances_says_what_is_missing():
    with pytest.raises(ValueError, match="none of 20 utterances holds transcript, age"):
        choose(UTTERANCES, "sap")


def test_reference_text_is_the_target_by_a_key_without_white_space():
    utterance = Utterance(key="a b", wav="a.wav", txt="one two", labels={"emotion": "sad"})
    assert reference_lines([utterance], "ser") == "a_b one two<sad>\n"
    assert reference_lines([utterance], "asr") == "a_b one two\n"

"""SAP: the transcript, then the speaker's age group."""

from __future__ import annotations

from dataclasses import dataclass

from wenet_osum.records import Utterance
from wenet_osum.tasks.asr import TRANSCRIPT
from wenet_osum.tasks.base import LabelSet, Task
from wenet_osum.tasks.fields import Label

# Years of the age groups, the upper end excluded; 13 to 17 belong to none.
BANDS = {"child": (0, 13), "adult": (18, 60), "old": (60, 150)}
SPELLINGS = {
    "child": ["children", "kid", "儿童", "小孩"],
    "adult": ["youth", "young", "middle-aged", "teens-adult", "成年", "成人", "青年", "中年"],
    "old": ["elderly", "senior", "老年", "老人"],
}


@dataclass(frozen=True)
class AgeLabel(Label):
    """An age group, given as a label or in years."""

    def value(self, utterance: Utterance) -> str | None:
        """Return the age group; None for years that belong to none, or to none of the label set."""
        years = _years(utterance.get(self.attribute))
        if years is None:
            return super().value(utterance)
        for name, (low, high) in BANDS.items():
            if low <= years < high and name in self.labels.names:
                return name
        return None

    def unknown(self, utterance: Utterance) -> str | None:
        """Return the label that the set does not know; years are always known."""
        years = _years(utterance.get(self.attribute))
        return super().unknown(utterance) if years is None else None


def _years(age: object) -> float | None:
    """Return an age in years; None for a label or no age."""
    try:
        return float(age)
    except (TypeError, ValueError):
        return None


AGE = AgeLabel(
    name="age",
    tag="<AGE>",
    attribute="age",
    metric="accuracy",
    labels=LabelSet(list(BANDS), SPELLINGS),
    ask={"zh": "说话人的年龄段", "en": "the speaker's age group"},
)
TASK = Task(
    name="sap",
    fields=(TRANSCRIPT, AGE),
    written_prompts={
        "zh": [
            "写出语音内容，再判断说话人的年龄段。",
            "听写，然后给出年龄段。",
            "说了什么？说话人是小孩、成人还是老人？",
            "先转写，再标出年龄段。",
            "写下内容和说话人的年龄段。",
        ],
        "en": [
            "Write what is said, then the speaker's age group.",
            "Transcribe, then name the age group.",
            "What is said, and is it a child, an adult or an old person?",
            "First the text, then the age group.",
            "Write the words and the speaker's age group.",
        ],
    },
)

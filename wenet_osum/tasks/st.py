"""ST: the transcript, then its translation. No task of OSUM.

A manifest holds the text as ``translation`` and its language as ``target_lang``. ``{target}`` in a
prompt stands for that language; where it is not known it is Chinese for English speech, English for
any other.
"""

from __future__ import annotations

from dataclasses import dataclass

from wenet_osum.records import Utterance
from wenet_osum.tasks.asr import TRANSCRIPT
from wenet_osum.tasks.base import CJK, Task
from wenet_osum.tasks.fields import FreeText
from wenet_osum.tasks.lid import LANGUAGE, LANGUAGES

TARGET = "{target}"


@dataclass(frozen=True)
class Translation(FreeText):
    """A translation after ``<开始翻译>``."""

    def fill(self, prompt: str, utterance: Utterance) -> str:
        """Name the target language in a prompt, in the language that the prompt is in."""
        if TARGET not in prompt:
            return prompt
        named = _target(utterance)
        code = _code(named)
        if code is None:
            return prompt.replace(TARGET, named)
        english, chinese, *_ = LANGUAGES[code]
        name = chinese if CJK.search(prompt) else english
        return prompt.replace(TARGET, name)


def _target(utterance: Utterance) -> str:
    """Return the language to translate into, as the manifest spells it."""
    given = utterance.get("target_lang")
    if given:
        return str(given)
    spoken = _code(utterance.lang or "")
    if spoken == "en":
        return "zh"
    return "en"


def _code(named: str) -> str | None:
    """Return the code of a language under any of its names, a region behind it or not (``zh-CN``);
    None for one that is not known."""
    spelled = named.replace("_", "-")
    first, _, _ = spelled.partition("-")
    known = LANGUAGE.labels
    whole = known.find(spelled)
    return whole or known.find(first)


TRANSLATION = Translation(
    name="translation",
    tag="<TRANSLATE>",
    attribute="translation",
    metric="bleu",
    more_metrics=("chrf",),
    beside=("target_lang",),
    mark="<开始翻译>",
    ask={"zh": "{target}译文", "en": "a translation into {target}"},
)
TASK = Task(
    name="st",
    fields=(TRANSCRIPT, TRANSLATION),
    by_default=False,
    written_prompts={
        "zh": [
            "写出语音内容，再译成{target}。",
            "听写，然后翻译成{target}。",
            "说了什么？用{target}怎么说？",
            "先转写，再给出{target}译文。",
            "写下这段话和它的{target}翻译。",
        ],
        "en": [
            "Write what is said, then translate it into {target}.",
            "Transcribe, then give a translation into {target}.",
            "What is said, and what is that in {target}?",
            "First the text, then its {target} translation.",
            "Write the words and say them in {target}.",
        ],
    },
)

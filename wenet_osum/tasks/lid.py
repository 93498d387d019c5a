"""LID: the transcript, then the language that is spoken.

The label is the utterance's ``lang``, so that a list with languages needs nothing else. No task of
OSUM.
"""

import re
from functools import lru_cache

from wenet_osum.tasks.asr import TRANSCRIPT
from wenet_osum.tasks.base import Task
from wenet_osum.tasks.fields import label

# ISO 639 code → English and Chinese name, other codes and spellings
LANGUAGES = {
    "zh": ["Chinese", "中文", "cmn", "zho", "mandarin", "普通话", "汉语"],
    "yue": ["Cantonese", "粤语", "zh-yue"],
    "en": ["English", "英语", "eng"],
    "ja": ["Japanese", "日语", "jpn"],
    "ko": ["Korean", "韩语", "kor"],
    "fr": ["French", "法语", "fra", "fre"],
    "de": ["German", "德语", "deu", "ger"],
    "es": ["Spanish", "西班牙语", "spa"],
    "it": ["Italian", "意大利语", "ita"],
    "pt": ["Portuguese", "葡萄牙语", "por"],
    "nl": ["Dutch", "荷兰语", "nld"],
    "sv": ["Swedish", "瑞典语", "swe"],
    "pl": ["Polish", "波兰语", "pol"],
    "ru": ["Russian", "俄语", "rus"],
    "uk": ["Ukrainian", "乌克兰语", "ukr"],
    "tr": ["Turkish", "土耳其语", "tur"],
    "ar": ["Arabic", "阿拉伯语", "ara"],
    "fa": ["Persian", "波斯语", "fas", "farsi"],
    "hi": ["Hindi", "印地语", "hin"],
    "th": ["Thai", "泰语", "tha"],
    "vi": ["Vietnamese", "越南语", "vie"],
    "id": ["Indonesian", "印尼语", "ind"],
}
# Names and other codes in lower case → ISO 639 code
CODES = {name.lower(): code for code, names in LANGUAGES.items() for name in names} | {"cn": "zh"}
# Script and region behind a code, as in zh-hans-cn
REGION = re.compile(r"(-[a-z]{4})?(-[a-z]{2}|-\d{3})?")
LANGUAGE = label(
    name="language",
    tag="<LANGUAGE>",
    labels=LANGUAGES,
    ask={"zh": "语音的语言", "en": "the language"},
    attribute="lang",
)
TASK = Task(
    name="lid",
    fields=(TRANSCRIPT, LANGUAGE),
    by_default=False,
    written_prompts={
        "zh": [
            "写出语音内容，再判断是哪种语言。",
            "听写，然后给出语言。",
            "说了什么？用的是什么语言？",
            "先转写，再标出语种。",
            "写下内容和所说的语言。",
        ],
        "en": [
            "Write what is said, then the language.",
            "Transcribe, then name the language.",
            "What is said, and in which language?",
            "First the text, then the language it is in.",
            "Write the words and the language spoken.",
        ],
    },
)


@lru_cache(maxsize=4096)
def language_code(lang: str) -> str:
    """Return the code of a language under any of its names, without script and region.

    Two languages (zh-en), dialects and languages that nobody knows stay, in lower case.
    """
    bare = lang.strip().lower()
    named = bare.replace("_", "-")
    if named in CODES:
        return CODES[named]

    first, dash, rest = named.partition("-")
    if rest == first:
        return first
    # There is no country EN or ZH: such a pair is two languages.
    if rest in ("en", "zh"):
        return named
    if REGION.fullmatch(dash + rest):
        return CODES.get(first, first)
    return named

"""The sentences of the toy: two small languages of about a hundred words each.

A mood tilts the choice of words.
"""

from __future__ import annotations

import hashlib

import numpy as np

# Words are chosen to sound unlike each other; a few near pairs (blood/blue) never stand in the same
# slot.
WORDS = {
    "en": {
        "det": "the my this".split(),
        "adj": "big small hot cold fast slow wet dry dark bright soft hard empty full rich poor "
        "early late".split(),
        "being": "king queen doctor farmer robot horse rabbit tiger ghost dragon".split(),
        "object": "apple table window garden umbrella boat".split(),
        "item": "grass milk tomato night sky lemon mouse carrot chocolate flamingo".split(),
        "color": "green white red black blue yellow gray orange brown pink".split(),
        "verb": "sees buys paints carries finds loves hates".split(),
        "number": "one two three four five six seven eight nine ten".split(),
        "when": "today tomorrow again always".split(),
        "place": "behind under".split(),
        "opener": "sorry please suddenly wonderful terrible".split(),
    },
    "zh": {
        "det": list("这那"),
        "adj": list("大小冷热高矮快慢长短胖瘦远近软硬深浅好坏"),
        "being": list("狗猫马鸟王我你龙鬼虎"),
        "object": list("花车门桌船笔灯球"),
        "item": list("草雪火海夜蛋木鼠李桃"),
        "color": list("绿白红蓝黑黄棕灰紫粉"),
        "verb": list("看买找送推追怕吃"),
        "number": list("一二三四五六七八九"),
        "when": list("再不都"),
        "end": list("了呢"),
        "opener": list("请哭跳脏哇美"),
    },
}
# A lower-case name is a slot, "=x" the word x itself; the number is the template's weight.
TEMPLATES = {
    "en": [
        (4, "det being verb object number"),
        (4, "det adj being verb item"),
        (2, "opener det being verb item"),
        (5, "det color object place object number"),
        (2, "det being verb item when"),
        (2, "opener object number when"),
        (2, "when det adj object"),
        (5, "opener det color object"),
    ],
    "zh": [
        (4, "det adj being verb item end"),
        (6, "being verb color object end"),
        (4, "opener det number =个 object"),
        (2, "being =和 being when verb item"),
        (4, "number =个 adj being verb object"),
        (3, "opener =的 being when verb item"),
        (4, "det color object when adj end"),
        (1, "adj being verb number =个 item"),
    ],
}
# Words a mood prefers; with TILT they come somewhat more often. Every word occurs in every mood.
FAVOURITES = {
    "sad": "sorry poor empty cold slow 哭冷慢坏瘦",
    "anger": "hates terrible hot hard red 热硬推红追",
    "neutral": "sees table four today gray 看桌四门灰",
    "happy": "loves wonderful bright sky yellow 美好花跳黄",
    "surprise": "suddenly finds seven umbrella fast 哇找七球快",
    "fear": "ghost dark night behind tiger 怕夜鬼虎黑",
    "disgust": "wet mouse tomato late brown 脏鼠吃李棕",
    "other": "flamingo soft pink again rabbit 软桃粉再猫",
    "新闻科普": "doctor carries nine tomorrow early 送车近六白",
    "恐怖故事": "ghost dark night behind black 怕夜鬼虎黑",
    "童话故事": "king queen dragon white garden 王龙草绿小",
    "客服": "please number buys two apple 请买二笔你",
    "诗歌散文": "sky grass always soft blue 海雪桃远蓝",
    "有声书": "farmer horse carries window milk 马鸟木灯深",
    "日常口语": "my chocolate sees lemon big 我狗蛋大看",
    "其他": "robot three six hard orange 三八再紫船",
}
TILT = 2.5  # extra weight of a favorite, in units of an ordinary word's


def split_of(sentence: str) -> str:
    """Return the split a sentence belongs to.

    It is fixed by the sentence itself: no sentence can be in two splits.
    """
    digest = hashlib.sha1(sentence.encode()).hexdigest()
    share = int(digest[:8], 16) / 2**32
    if share < 0.15:
        return "test"
    if share < 0.2:
        return "dev"
    return "train"


def sentence(lang: str, mood: str | None, rng: np.random.Generator) -> list[str]:
    """Return the words (Mandarin: characters) of a random sentence.

    Its choice of words is tilted towards ``mood``.
    """
    weights = np.array([weight for weight, _ in TEMPLATES[lang]], float)
    chosen = rng.choice(len(weights), p=weights / weights.sum())
    _, template = TEMPLATES[lang][chosen]
    favorites = set(_favorites(mood, lang))
    words: list[str] = []
    for slot in template.split():
        if slot.startswith("="):
            words.append(slot[1:])
            continue
        # No word stands twice in a sentence.
        left = [word for word in WORDS[lang][slot] if word not in words]
        words.append(_choose(left, favorites, rng))
    return words


def _favorites(mood: str | None, lang: str) -> list[str]:
    """Return the words a mood prefers in a language."""
    if not mood:
        return []
    english = []
    mandarin = []
    for entry in FAVOURITES[mood].split():
        if entry.isascii():
            english.append(entry)
        else:
            mandarin += entry
    if lang == "en":
        return english
    return mandarin


def _choose(words: list[str], favorites: set[str], rng: np.random.Generator) -> str:
    """Draw a word; a favorite comes more often."""
    weights = np.array([1 + TILT * (word in favorites) for word in words])
    chosen = rng.choice(len(words), p=weights / weights.sum())
    return words[chosen]


def written(words: list[str], lang: str) -> str:
    """Write the transcript: words with spaces in English, characters without in Mandarin."""
    between = " " if lang == "en" else ""
    return between.join(words)

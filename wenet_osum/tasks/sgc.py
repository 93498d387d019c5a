"""SGC: the transcript, then the speaker's gender."""

from wenet_osum.tasks.asr import TRANSCRIPT
from wenet_osum.tasks.base import Task
from wenet_osum.tasks.fields import label

GENDER = label(
    name="gender",
    tag="<GENDER>",
    labels={
        "female": ["f", "woman", "girl", "female feminine", "女", "女性"],
        "male": ["m", "man", "boy", "male masculine", "男", "男性"],
    },
    ask={"zh": "说话人的性别", "en": "the speaker's gender"},
)
TASK = Task(
    name="sgc",
    fields=(TRANSCRIPT, GENDER),
    written_prompts={
        "zh": [
            "写出语音内容，再判断说话人的性别。",
            "听写，然后给出性别。",
            "说了什么？说话人是男是女？",
            "先转写，再标出性别。",
            "写下内容和说话人的性别。",
        ],
        "en": [
            "Write what is said, then the speaker's gender.",
            "Transcribe, then name the gender.",
            "What is said, and is the speaker female or male?",
            "First the text, then the gender.",
            "Write the words and the speaker's gender.",
        ],
    },
)

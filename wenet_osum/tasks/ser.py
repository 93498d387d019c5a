"""SER: the transcript, then the speaker's emotion."""

from wenet_osum.tasks.asr import TRANSCRIPT
from wenet_osum.tasks.base import Task
from wenet_osum.tasks.fields import label

EMOTION = label(
    name="emotion",
    tag="<EMOTION>",
    labels={
        "sad": ["sadness", "悲伤", "伤心", "难过"],
        "anger": ["angry", "ang", "生气", "愤怒"],
        "neutral": ["neu", "calm", "中性", "平静"],
        "happy": ["happiness", "joy", "hap", "excited", "高兴", "开心"],
        "surprise": ["surprised", "惊讶", "吃惊"],
        "fear": ["fearful", "害怕", "恐惧"],
        "disgust": ["disgusted", "厌恶"],
        "other": ["others", "其他", "其它"],
    },
    ask={"zh": "说话人的情感", "en": "the emotion"},
)
TASK = Task(
    name="ser",
    fields=(TRANSCRIPT, EMOTION),
    written_prompts={
        "zh": [
            "写出语音内容，再判断说话人的情感。",
            "听写，然后给出情感。",
            "说了什么？带着什么情感？",
            "先转写，再标出情感。",
            "写下内容和说话人的情绪。",
        ],
        "en": [
            "Write what is said, then the speaker's emotion.",
            "Transcribe, then name the emotion.",
            "What is said, and with which emotion?",
            "First the text, then the emotion.",
            "Write the words and how the speaker feels.",
        ],
    },
)

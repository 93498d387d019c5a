"""SRWT: the transcript with start and end time of every word (English) or character (Chinese)."""

from wenet_osum.tasks.base import Task
from wenet_osum.tasks.fields import TimedTranscript

TIMED_TRANSCRIPT = TimedTranscript(
    name="transcript",
    tag="<TRANSCRIBE> <ALIGN>",
    attribute="words",
    metric="timestamps",
    ask={"zh": "带时间的语音内容", "en": "what is said with word times"},
)
TASK = Task(
    name="srwt",
    fields=(TIMED_TRANSCRIPT,),
    written_prompts={
        "zh": [
            "写出语音内容和每个字的起止时间。",
            "听写，并标出每个字的时间。",
            "逐字写出内容及开始和结束的秒数。",
            "给文字标上时间。",
            "每个字从几秒到几秒？",
        ],
        "en": [
            "Write the words with their start and end times.",
            "Transcribe and give each word its times.",
            "When does each word begin and end?",
            "Write a transcript with word times.",
            "Give the words and their seconds.",
        ],
    },
)

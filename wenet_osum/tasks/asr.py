"""ASR: write down what was said."""

from wenet_osum.tasks.base import Task
from wenet_osum.tasks.fields import Transcript

TRANSCRIPT = Transcript(
    name="transcript",
    tag="<TRANSCRIBE>",
    attribute="txt",
    metric="error_rate",
    ask={"zh": "语音内容", "en": "what is said"},
)
TASK = Task(
    name="asr",
    fields=(TRANSCRIPT,),
    written_prompts={
        "zh": [
            "把这段语音写成文字。",
            "请写出录音里说的话。",
            "这段录音说了什么？",
            "听写下面的语音。",
            "把听到的话记下来。",
        ],
        "en": [
            "Write down what is said.",
            "Turn this speech into text.",
            "What does the speaker say?",
            "Transcribe the recording.",
            "Type what you hear.",
        ],
    },
)

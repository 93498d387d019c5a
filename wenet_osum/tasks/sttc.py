"""STTC: the transcript of a spoken question, then a reply in text."""

from wenet_osum.tasks.asr import TRANSCRIPT
from wenet_osum.tasks.base import Task
from wenet_osum.tasks.fields import Reply

REPLY = Reply(
    name="reply",
    tag="<S2TCHAT>",
    attribute="reply",
    metric="reply",
    ask={"zh": "对它的回答", "en": "a reply to it"},
)
TASK = Task(
    name="sttc",
    fields=(TRANSCRIPT, REPLY),
    written_prompts={
        "zh": [
            "写出问题，然后回答它。",
            "听写，然后作答。",
            "他问了什么？请回答。",
            "先转写，再回答。",
            "写下这句话并给出答复。",
        ],
        "en": [
            "Write the question, then answer it.",
            "Transcribe, then reply.",
            "What is asked? Give an answer.",
            "First the text, then the reply.",
            "Write what is said and answer the speaker.",
        ],
    },
)

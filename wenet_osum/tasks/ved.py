"""VED: the transcript, then the vocal event in the recording."""

from wenet_osum.tasks.asr import TRANSCRIPT
from wenet_osum.tasks.base import Task
from wenet_osum.tasks.fields import label

EVENT = label(
    name="event",
    tag="<CAPTION>",
    labels={
        "laugh": ["laughter", "laughing", "笑", "笑声"],
        "cough": ["coughing", "咳嗽", "咳嗽声"],
        "cry": ["crying", "crying baby", "sob", "哭", "哭声"],
        "screaming": ["scream", "尖叫", "尖叫声"],
        "sigh": ["sighing", "叹气", "叹息"],
        "throat clearing": ["throatclearing", "clear throat", "清嗓子"],
        "sneeze": ["sneezing", "喷嚏", "打喷嚏"],
        "other": ["others", "其他", "其它"],
    },
    ask={"zh": "人声事件", "en": "the vocal event"},
)
TASK = Task(
    name="ved",
    fields=(TRANSCRIPT, EVENT),
    written_prompts={
        "zh": [
            "写出语音内容，再指出人声事件。",
            "听写，然后说明有什么声音事件。",
            "说了什么？还有哪种人声？",
            "先转写，再标出人声事件。",
            "写下内容和出现的声音。",
        ],
        "en": [
            "Write what is said, then name the vocal event.",
            "Transcribe, then tell which sound occurs.",
            "What is said, and which vocal sound is heard?",
            "First the text, then the vocal event.",
            "Write the words and the sound event.",
        ],
    },
)

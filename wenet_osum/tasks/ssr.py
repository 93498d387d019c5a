"""SSR: the transcript, then the speaking style. The labels are the published ones, in Chinese."""

from wenet_osum.tasks.asr import TRANSCRIPT
from wenet_osum.tasks.base import Task
from wenet_osum.tasks.fields import label

STYLE = label(
    name="style",
    tag="<STYLE>",
    labels={
        "新闻科普": ["朗读", "科普百科", "新闻", "news"],
        "恐怖故事": ["悬疑恐怖", "恐怖", "horror story"],
        "童话故事": ["童话", "fairy tale"],
        "客服": ["客户服务", "customer service"],
        "诗歌散文": ["诗歌", "散文", "poetry", "prose"],
        "有声书": ["武侠评书", "小说", "历史", "科幻", "audiobook"],
        "日常口语": ["对话", "口语", "conversation", "daily"],
        "其他": ["幽默", "其它", "other"],
    },
    ask={"zh": "说话风格", "en": "the speaking style"},
)
TASK = Task(
    name="ssr",
    fields=(TRANSCRIPT, STYLE),
    written_prompts={
        "zh": [
            "写出语音内容，再判断说话风格。",
            "听写，然后给出风格。",
            "说了什么？是什么风格？",
            "先转写，再标出风格。",
            "写下内容和讲话的风格。",
        ],
        "en": [
            "Write what is said, then the speaking style.",
            "Transcribe, then name the style.",
            "What is said, and in which style?",
            "First the text, then the style.",
            "Write the words and the style of speech.",
        ],
    },
)

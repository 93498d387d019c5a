"""Initial weights, a text LLM on pseudo-speech, losses and rescorers for models made from nothing.

A published Whisper and a published LLM need none of it, and nothing of the core imports this room.
Its plug-ins are known where a yaml says ``plugins: [wenet_osum.small]``, or a command ``--plugins
wenet_osum.small``.
"""

from pathlib import Path

from wenet_osum import lookup

HERE = Path(__file__).parent

lookup.add_folder("wenet_osum.models.losses", str(HERE / "losses"))
lookup.add_folder("wenet_osum.models.adapter_init", str(HERE / "adapter_init"))
lookup.add_folder("wenet_osum.decode.rescore", str(HERE / "rescore"))

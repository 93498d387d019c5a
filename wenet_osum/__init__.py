"""Train, decode, score and serve speech understanding language models of the OSUM kind.

    import wenet_osum
    m = wenet_osum.load("exp/x/final")
    answer = m("a.wav", task="<TRANSCRIBE><EMOTION>")
    answer.transcript, answer.labels, answer.probs

Once it is imported, AutoConfig, AutoModel, AutoProcessor and AutoFeatureExtractor of transformers
know our model folders.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from wenet_osum.decode.speech import Transcriber

__version__ = "0.1.0"


def load(
    model: str | os.PathLike, task: str = "asr", device: str | None = None, **settings: Any
) -> Transcriber:
    """Load a model folder or hub name for answering.

    wenet_osum/decode/speech.py says which settings there are and how the Transcriber is called.
    torch is imported here, not with the package. Raises ValueError for bad settings and for folders
    without a fitting model.
    """
    from wenet_osum.decode import speech

    return speech.load(model, task, device, **settings)


class _Registration:
    """Registers our classes with transformers as soon as that is imported.

    Registering at once would load torch with the package, which takes seconds.
    A module of ours may be what imports transformers, and our classes may need that very module.
    Registration therefore waits until no import of ours is under way.
    """

    # This module registers the classes at its end.
    classes = "wenet_osum.models.osum"
    # How many imports of transformers and of our modules have begun and not ended.
    under_way = 0

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find transformers and our modules as Python does, and add a last step to their loading.

        Nothing else is found here.
        """
        watched = name == "transformers" or name.startswith(f"{__name__}.")
        if not watched:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        load_module = spec.loader.exec_module

        def load_and_register(module: Any) -> None:
            cls.under_way += 1
            try:
                load_module(module)
            finally:
                cls.under_way -= 1
            cls.register_when_due()

        spec.loader.exec_module = load_and_register
        return spec

    @classmethod
    def register_when_due(cls) -> None:
        """Import our classes, after which nothing is left to do here."""
        if cls in sys.meta_path and not cls.under_way and sys.modules.get("transformers"):
            sys.meta_path.remove(cls)
            importlib.import_module(cls.classes)


sys.meta_path.insert(0, _Registration)
_Registration.register_when_due()

"""Every module can be the first one imported, whatever registers itself with transformers
meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "wenet_osum"

# loads what is not ours once, then imports each module in a process of its own, to which
# transformers is new
FORKS = """
import importlib, os, sys, traceback
import torch, numpy, torch.distributed.checkpoint, torch.distributed.fsdp
import transformers.models.whisper.modeling_whisper, transformers.models.auto.modeling_auto
import transformers.models.auto.processing_auto, transformers.processing_utils
import transformers.generation.utils, transformers.integrations.sdpa_attention
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, WhisperFeatureExtractor
del sys.modules["transformers"]
for name in sys.stdin.read().split():
    if os.fork() == 0:
        try:
            importlib.import_module(name)
            import transformers
            assert "wenet_osum" in transformers.CONFIG_MAPPING, "our classes are not registered"
        except BaseException:
            print(name, traceback.format_exc(limit=-2), flush=True)
        os._exit(0)
    os.wait()
"""


def modules() -> list[str]:
    """Dotted names of the front door, and of all files that our classes may need: nothing after the
    room of models.
    """
    rooms = [PACKAGE / room for room in ("text", "dataset", "models")]
    files = [path for room in rooms for path in room.rglob("*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return sorted({"wenet_osum", *(name.removesuffix(".__init__") for name in names)})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="imports each module in a fork")
def test_every_module_can_be_imported_first_and_registers_our_classes():
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FORKS]
    done = subprocess.run(
        command, input="\n".join(modules()), env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr

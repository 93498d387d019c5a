"""A small model with random weights, the offline way to ask it, and servers around it on free ports
of this machine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the extra [serve] is not installed")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def load_tool():
    """tools/bench/serve_load.py as a module."""
    spec = importlib.util.spec_from_file_location("serve_load", ROOT / "tools/bench/serve_load.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["serve_load"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def model_dir(load_tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    load_tool.write_random_model(folder)
    return folder / "model"


@pytest.fixture(scope="session")
def m(model_dir):
    """The model, answered offline."""
    import wenet_osum

    return wenet_osum.load(model_dir, device="cpu", max_tokens=20)


@pytest.fixture(scope="session")
def serving(m):
    """(page=…, **settings) → context of (url, service) of a running server."""
    from wenet_osum.serve.app import make_app
    from wenet_osum.serve.server import bind, make_server, url
    from wenet_osum.serve.settings import Settings

    @contextlib.contextmanager
    def run(page: bool = False, **settings):
        app = make_app(
            m, Settings(**{"max_seconds": 40.0, "max_bytes": 2_000_000} | settings), page
        )
        listening = bind("127.0.0.1", 0)
        address, server = url(listening), make_server(app)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield address, app.state.service
        finally:
            server.should_exit = True
            thread.join(30)
            listening.close()
            assert not thread.is_alive()

    logging.getLogger("httpx").setLevel(logging.WARNING)
    return run


@pytest.fixture(scope="session")
def server(serving):
    """(url, service) of one server for tests that leave it as it was."""
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def wavs(load_tool):
    """Recordings as bytes; number 0 is over 30 s long."""
    import numpy as np

    return load_tool.sounds(12, np.random.default_rng(5))


@pytest.fixture(scope="session")
def post():
    """(url, data, **fields) → response of the transcription endpoint."""
    import httpx

    def send(
        url: str, data: bytes | None, headers: dict | None = None, name: str = "a.wav", **fields
    ) -> httpx.Response:
        files = {"file": (name, data)} if data is not None else {"none": (None, "")}
        return httpx.post(
            f"{url}/v1/audio/transcriptions",
            files=files,
            data=fields,
            headers=headers,
            timeout=60,
            trust_env=False,
        )

    return send

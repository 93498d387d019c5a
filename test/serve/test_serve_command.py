"""``wenet_osum serve`` as a shell sees it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from wenet_osum.bin import serve

ROOT = Path(__file__).resolve().parents[2]


def test_a_port_in_use_and_a_missing_model_are_said_in_a_line(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert serve.main(["--model", str(tmp_path), "--port", port, "--no_page"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"serve: cannot listen on 127.0.0.1 port {port}: Address already in use; give another --port")
    assert serve.main(["--model", str(tmp_path / "none"), "--port", "0", "--no_page"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("serve: ") and "none" in err and err.count("\n") == 1


BAD = [
    (["--queue", "0"], "queue 0 must be a number above 0"),
    (["--timeout", "nan"], "timeout_s nan must be a number above 0"),
    (["--max_mb", "inf"], "max_bytes inf must be a number above 0"),
    (["--wait_ms", "1001"], "wait_ms 1001 must be from 0 to 1000"),
    (["--port", "99999"], "from 0 to 65535"),
    (["--host", "256.1.1.1", "--api_key", "k"], "is no address"),
]


@pytest.mark.parametrize(("words", "why"), BAD)
def test_bad_values_stop_before_the_model_is_loaded(words, why, capsys, tmp_path):
    assert serve.main(["--model", str(tmp_path), "--no_page", *words]) == 2
    assert why in capsys.readouterr().err


def test_a_key_stands_in_no_message(capsys, tmp_path):
    assert serve.main(["--model", str(tmp_path), "--no_page", "--queue", "0", "--api_key", "s3cret"]) == 2
    args = serve.parse(["--model", "nowhere", "--api_key", "s3cret"])
    assert "s3cret" not in capsys.readouterr().err + repr(serve._settings(args))


def test_a_missing_extra_is_named(monkeypatch, capsys, tmp_path):
    import wenet_osum.serve.server  # noqa: F401

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "wenet_osum.serve.server")
    monkeypatch.delattr("wenet_osum.serve.server")
    assert serve.main(["--model", str(tmp_path), "--no_page"]) == 2
    assert "uvicorn is not installed; pip install 'wenet_osum[serve]'" in capsys.readouterr().err


def test_only_this_machine_is_served_unless_told_otherwise():
    from wenet_osum.serve import server

    assert server.names("127.0.0.1", []) == ("127.0.0.1", "localhost", "[::1]")
    assert "speech.example.org" in server.names("0.0.0.0", ["Speech.example.org"])
    assert server.names("0.0.0.0", [], api_key="k") is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_others_are_let_in_only_with_a_key_or_names(host, capsys, tmp_path, monkeypatch):
    monkeypatch.delenv(serve.KEY, raising=False)
    assert serve.main(["--model", str(tmp_path), "--port", "0", "--no_page", "--host", host]) == 2
    out, err = capsys.readouterr()
    assert not out and f"--host {host} " in err and serve.KEY in err and "--allow_host NAME" in err


@pytest.mark.slow
def test_the_command_serves_and_leaves_with_0_at_a_signal(model_dir, wavs):
    command = [sys.executable, "-m", "wenet_osum", "serve", "--model", str(model_dir), "--port", "0", "--no_page", "--max_tokens", "9"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:")
    assert httpx.post(f"{url}/v1/audio/transcriptions", files={"file": wavs[1]}, timeout=60, trust_env=False).status_code == 200
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and not out and "Traceback" not in err, err

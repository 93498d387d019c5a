"""Decoding agrees with soundfile, features with the textbook form, and bad audio says what is wrong with it."""

from __future__ import annotations

import io
import struct

import librosa
import numpy as np
import pytest
import soundfile
import torch

from wenet_osum.dataset import audio
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.log_mel import log_mel


def tone(seconds=0.5, rate=16000, level=0.5, hz=440.0):
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encode(samples, rate=16000, subtype="PCM_16", kind="WAV"):
    out = io.BytesIO()
    soundfile.write(out, samples, rate, subtype=subtype, format=kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "FLAC"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_decode_equals_soundfile(kind, subtype):
    data = encode(tone(), subtype=subtype, kind=kind)
    want, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    got = audio.decode(data)
    assert got.dtype == np.float32 and np.array_equal(got, want)
    assert np.array_equal(audio.decode(memoryview(data)), want)


def test_chunks_before_the_samples_and_unknown_sizes_are_read():
    plain = encode(tone())
    at = plain.index(b"data")
    listed = plain[:at] + b"LIST" + struct.pack("<I", 5) + b"abcde\0" + plain[at:]  # odd sizes are padded
    streamed = plain[: at + 4] + b"\xff\xff\xff\xff" + plain[at + 8 :]
    for data in (listed, streamed):
        assert audio.read_riff(data)
        assert np.array_equal(audio.decode(data), audio.decode(plain)) and audio.read_duration(data) == pytest.approx(0.5)


def test_gsm_in_wav_is_read_though_it_cannot_seek():
    out = io.BytesIO()
    soundfile.write(out, 0.3 * np.sin(np.arange(16000) / 20), 8000, subtype="GSM610", format="WAV")
    whole = audio.decode(out.getvalue())
    assert len(whole) == 32000 and audio.read_duration(out.getvalue()) == 2.0
    part = audio.decode(audio.cut(out.getvalue(), 0.5, 1.0))
    assert len(part) == 8000 and np.allclose(part[100:-100], whole[8100:15900], atol=1e-3)


@pytest.mark.parametrize("rate", [8000, 48000, 44100, 22050, 11127])
def test_other_rates_become_16_khz(rate):
    got = audio.decode(encode(tone(rate=rate), rate))
    assert abs(len(got) - 8000) <= 1
    assert np.abs(got[400:-400] - tone()[400 : len(got) - 400]).max() < 0.02


def test_stereo_is_averaged():
    left, right = tone(level=0.5), tone(level=0.25)
    got = audio.decode(encode(np.stack([left, right], 1)))
    assert np.abs(got - (left + right) / 2).max() < 1e-4


def test_full_scale_never_wraps():
    samples = np.array([1.0, -1.0, 1.5, 0.5] * 100, np.float32)
    assert np.array_equal(audio.decode(encode(samples, subtype="FLOAT")), samples)
    packed = audio.decode(audio.write_wav(samples))
    assert packed[:4].tolist() == [32767 / 32768, -1.0, 32767 / 32768, 0.5]


def test_segments():
    data = encode(np.arange(16000, dtype=np.int16))
    want = np.arange(4000, 8000, dtype=np.float32) / 32768
    assert np.array_equal(audio.decode(data, 0.25, 0.5), want)
    assert np.array_equal(audio.decode(audio.cut(data, 0.25, 0.5)), want)
    assert len(audio.decode(data, start=0.75)) == 4000 and len(audio.decode(data, end=0.75)) == 12000
    for call in (audio.decode, audio.cut):
        with pytest.raises(Drop, match="segment outside the recording"):
            call(data, 1.0, 1.5)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_cut_is_bit_exact(subtype):
    data = encode(tone(), subtype=subtype)
    assert np.array_equal(audio.decode(audio.cut(data, 0.1, 0.3)), audio.decode(data)[1600:4800])
    assert soundfile.info(io.BytesIO(audio.cut(data, 0.1, 0.3))).subtype == subtype


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "audio: unreadable"),
        (b"hello, this is no audio at all", "audio: unreadable"),
        (encode(np.zeros(0, np.float32)), "audio: empty"),
        (encode(np.zeros(1, np.float32)), "audio: shorter than 10 ms"),
        (encode(np.zeros(1, np.float32), 8000), "audio: shorter than 10 ms"),
        (encode(tone())[:5000], "audio: cut short"),
        (encode(tone(), subtype="PCM_24")[:5000], "audio: cut short"),
        (encode(np.array([0.0, np.nan] * 400, np.float32), subtype="FLOAT"), "audio: NaN or infinity"),
        (encode(np.array([0.0, -np.inf] * 400, np.float32), subtype="FLOAT"), "audio: NaN or infinity"),
    ],
)
def test_bad_audio_has_a_reason(data, reason):
    with pytest.raises(Drop) as raised:
        audio.decode(data)
    assert raised.value.reason == reason and " object at 0x" not in str(raised.value)


@pytest.mark.parametrize("rate", [1, 40, 999, 768_001, 0xFFFFFFFF])
def test_a_rate_that_no_recording_has_is_refused(rate):
    data = bytearray(encode(tone()))
    data[24:28] = struct.pack("<I", rate)
    for read in (audio.decode, lambda wav: audio.convert(wav, 16000)):
        with pytest.raises(Drop, match=f"sample rate outside 1000 to 768000 Hz: .* {rate} Hz"):
            read(bytes(data))


M4A = b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom" + bytes(200)
WEBM = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01webm" + bytes(200)


@pytest.mark.parametrize("data", [M4A, WEBM])
def test_a_format_that_is_not_known_comes_with_the_way_out(data, tmp_path):
    path = tmp_path / "a.m4a"
    path.write_bytes(data)
    for read in (audio.decode, audio.read_duration, lambda _: audio.read_duration(path)):
        with pytest.raises(Drop, match="ffmpeg -i yours out.wav makes one"):
            read(data)


def mp3(counted: bool, tag: int = 0) -> bytes:
    """Return 4 s, half of them silent, with a varying bit rate, behind an ID3 tag of ``tag`` bytes."""
    samples = np.concatenate([np.zeros(32000), np.random.default_rng(0).normal(0, 0.3, 32000)])
    out = io.BytesIO()
    soundfile.write(out, samples, 16000, format="MP3", bitrate_mode="VARIABLE", compression_level=0)
    data = out.getvalue()
    frames = data if counted else data[data.index(b"\xff\xf3", 10) :]
    head = b"ID3\4\0\0" + bytes([0, 0, tag >> 7, tag & 0x7F]) + bytes(tag) if tag else b""
    return head + frames


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("tag", [0, 9000])
def test_the_length_of_an_mp3_is_never_guessed(counted, tag, tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3(counted, tag))
    assert audio.read_duration(path) == pytest.approx(4.0, abs=0.15)
    assert audio.read_duration(path.read_bytes()) == audio.read_duration(path)


def test_an_mp3_that_begins_loud_is_read_to_its_end(tmp_path):
    """Its first frame has many bits, by which libsndfile takes it for a third of its length."""
    samples = np.concatenate([np.random.default_rng(0).uniform(-0.9, 0.9, 32000), 0.01 * np.sin(np.arange(160000) / 20)])
    out = io.BytesIO()
    soundfile.write(out, samples, 16000, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    data = out.getvalue()
    data = data[data.index(b"\xff\xf3", 10) :]
    assert soundfile.info(io.BytesIO(data)).frames < 0.6 * len(samples), "as libsndfile guesses"
    path = tmp_path / "a.mp3"
    path.write_bytes(data)
    assert audio.read_duration(path) == audio.read_duration(data) == pytest.approx(12.0, abs=0.15)
    assert len(audio.decode(data)) == pytest.approx(192000, abs=2400)
    tail = audio.decode(audio.cut(path, 10.0, 11.0))
    assert len(tail) == 16000 and 0.005 < np.abs(tail).max() < 0.02
    with pytest.raises(Drop, match="segment outside the recording"):
        audio.cut(data, 20.0, 21.0)


def test_a_cut_flac_is_never_taken_for_whole():
    data = encode(np.random.default_rng(0).uniform(-0.5, 0.5, 32000).astype(np.float32), kind="FLAC")
    with pytest.raises(Drop, match="audio: (cut short|unreadable)"):
        audio.decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("rate", "subtype", "kind"),
    [(16000, "PCM_16", "WAV"), (8000, "PCM_24", "WAV"), (48000, "FLOAT", "WAV"), (16000, "PCM_16", "FLAC"), (16000, "VORBIS", "OGG")],
)
def test_duration_from_bytes_and_path(tmp_path, rate, subtype, kind):
    data = encode(np.stack([tone(0.7, rate)] * 2, 1), rate, subtype, kind)
    (tmp_path / "a").write_bytes(data)
    for source in (data, memoryview(data), tmp_path / "a"):
        assert audio.read_duration(source) == pytest.approx(0.7, abs=1e-4)


def test_duration_needs_no_decoding():
    assert audio.read_duration(encode(tone(2.0))[:100]) == 2.0
    assert audio.read_duration(encode(tone(2.0), kind="FLAC")[:42]) == 2.0


def test_duration_of_bad_audio(tmp_path):
    for data, reason in ((b"", "audio: empty"), (encode(np.zeros(0, np.float32)), "audio: empty"), (b"junk", "audio: unreadable")):
        with pytest.raises(Drop, match=reason) as raised:
            audio.read_duration(data)
        assert " object at 0x" not in str(raised.value)
    with pytest.raises(Drop, match="file not found: .*none.wav"):
        audio.read_duration(tmp_path / "none.wav")


def reference(samples, mels):
    """Whisper's features as its paper's code states them."""
    spectrum = torch.stft(torch.from_numpy(samples), 400, 160, window=torch.hann_window(400), return_complex=True)
    power = spectrum[:, :-1].abs() ** 2
    logs = torch.clamp(torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=400, n_mels=mels)) @ power, min=1e-10).log10()
    return ((torch.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0).T


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("samples", [201, 1600, 16000, 12345])
def test_log_mel_equals_the_textbook(mels, samples):
    wave = (tone(2.0) + np.random.default_rng(1).normal(0, 0.1, 32000)).astype(np.float32)[:samples]
    got = log_mel(wave, mels)
    assert got.shape == (samples // 160, mels) and got.dtype == torch.float32
    torch.testing.assert_close(got, reference(wave, mels), atol=2e-5, rtol=0)


def test_log_mel_leaves_its_input_and_repeats():
    wave = tone()
    first, before = log_mel(wave), wave.copy()
    assert torch.equal(first, log_mel(wave)) and np.array_equal(wave, before)


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 200])
def test_log_mel_of_clips_shorter_than_the_reflection(samples):
    got = log_mel(tone()[:samples])
    assert got.shape == (1, 80) and torch.isfinite(got).all()


def test_digital_silence():
    assert torch.all(log_mel(np.zeros(1600, np.float32)) == -1.5)


def test_a_flac_without_a_count_of_its_samples_is_refused():
    """As a program writes it to a pipe: 0 means that nobody knows."""
    data = bytearray(encode(tone(2.0), kind="FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    for read in (audio.decode, audio.read_duration):
        with pytest.raises(Drop, match="^audio: its header does not count the samples"):
            read(bytes(data))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_joined_ogg_files_are_refused_and_whole_ones_read(subtype):
    """libsndfile would read the first and be silent about the rest."""
    parts = []
    for seconds in (1, 2):
        parts.append(encode(tone(seconds), subtype=subtype, kind="OGG"))
        assert abs(len(audio.decode(parts[-1])) - 16000 * seconds) < 1000
    with pytest.raises(Drop, match="Ogg files joined into one"):
        audio.decode(b"".join(parts))

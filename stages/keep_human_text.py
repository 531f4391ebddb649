"""Keep videos whose text mentions people and their movements.

A cheap filter on titles, descriptions and speech before any frame is decoded. Words in a script that no keyword uses (such
as a Chinese title with English keywords) are ignored.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal

from schemas.records import Rejection, Video
from stages.base import Stage, StageConfig
from stages.language.morphology import forms

GROUPS = {
    "people": """
        person people man woman human adult girl boy kid child baby toddler teenager lady guy athlete player dancer gymnast runner
        swimmer skater boxer fighter wrestler climber rider cyclist walker hiker performer actor actress acrobat juggler
        cheerleader trainer coach instructor teacher student soldier worker nurse doctor patient cook barber hairdresser
        pedestrian crowd family couple team mother father brother sister grandmother grandfather friend
    """,
    "body": """
        body arm leg hand foot shoulder elbow wrist knee ankle hip waist chest spine torso neck head finger toe thigh calf
        muscle glute posture gait stance gesture flexibility
    """,
    "movement": """
        walk run jog sprint jump leap hop skip march step stroll stride crawl climb roll tumble spin turn twist bend stretch reach
        kick punch throw catch swing lift carry push pull squat lunge crouch kneel sit stand lie bow wave point clap nod shake
        stomp stumble fall balance slide glide dodge duck lean swim dive skate ski surf paddle ride pedal hike dance waltz
        twirl move motion movement warmup stagger limp tiptoe sneak vault flip cartwheel somersault handstand backflip
    """,
    "sports": """
        sport sports tennis badminton squash football soccer basketball volleyball handball baseball softball cricket rugby hockey
        golf bowling boxing kickboxing karate judo taekwondo aikido wrestling fencing kendo capoeira gymnastics athletics marathon
        triathlon parkour skateboarding snowboarding skiing skating surfing swimming diving rowing kayaking cycling climbing
        bouldering archery javelin discus hurdle relay yoga pilates taichi qigong zumba aerobics crossfit calisthenics fitness
        gym workout exercise training cardio pushup pullup situp plank burpee deadlift kettlebell dumbbell barbell weightlifting
        bodybuilding stretching rehab physiotherapy drill tournament championship olympics
    """,
    "dance and stage": """
        ballet salsa tango samba rumba flamenco hiphop breakdance popping choreography choreographer cheerleading acrobatics
        circus mime juggling theatre theater drama performance rehearsal catwalk runway drumming conductor
    """,
    "daily life": """
        cook clean sweep mop wash wipe fold chop stir pour eat drink brush comb dress hug kiss handshake greet applaud
        paint draw dig rake shovel play wear hairdressing
    """,
}
"""Single words by topic."""
PHRASES = (
    "martial art", "tai chi", "hip hop", "pick up", "put down", "stand up", "sit down", "get up", "lie down", "push up",
    "pull up", "sit up", "warm up", "work out", "self defense", "self defence", "how to move", "physical therapy", "long jump",
    "high jump", "jumping jack", "jump rope", "weight lifting", "table tennis", "ice skating", "figure skating",
)  # fmt: skip
KEYWORDS: tuple[str, ...] = tuple(dict.fromkeys([*" ".join(GROUPS.values()).split(), *PHRASES]))
"""Default keywords; their plurals and -ing, -ed and -er forms match too."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SCRIPTS_WITHOUT_SPACES = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"})


class KeepHumanText(Stage[Video, Video]):
    """Reject videos whose text contains no keyword, or a blocked one.

    Keywords in the speech can keep a video whose title and description have none, but speech without keywords rejects no
    video by itself, since people talk about anything while they move.
    """

    class Config(StageConfig):
        keywords: tuple[str, ...] = KEYWORDS
        """Words or phrases of which at least one must occur, in any case and inflection; several words are a phrase."""
        extra_keywords: tuple[str, ...] = ()
        """Additional keywords."""
        blocklist: tuple[str, ...] = ()
        """Words or phrases that reject a video wherever they occur."""
        min_matches: int = 1
        """Minimum number of different keywords that must occur."""
        without_text: Literal["keep", "reject"] = "keep"
        """Decision on a video without a readable title or description and without a keyword in its speech."""
        fields: tuple[Literal["title", "description", "transcript"], ...] = ("title", "description", "transcript")
        """Fields that are searched."""

    def run(self, record: Video) -> Iterator[Video | Rejection]:
        """The video, or a rejection that measures the number of different matches."""
        text = self._text(record)
        blocked = matches(text, self.config.blocklist)
        if blocked:
            yield self.reject(record, "blocked_text", ", ".join(blocked), measured=float(len(blocked)), limit=0.0)
            return
        keywords = (*self.config.keywords, *self.config.extra_keywords)
        min_matches = float(self.config.min_matches)
        found = matches(text, keywords)
        if len(found) >= min_matches:
            yield record
        elif not readable_words(self._text(record, written_only=True), keywords):
            if self.config.without_text == "reject":
                yield self.reject(record, "no_text", "nothing to judge it by", measured=0.0, limit=min_matches)
            else:
                yield record
        else:
            detail = " ".join(text.split())[:200]
            yield self.reject(record, "no_human_keyword", detail, measured=float(len(found)), limit=min_matches)

    def _text(self, record: Video, *, written_only: bool = False) -> str:
        texts = {
            "title": record.source.title,
            "description": record.source.description,
            "transcript": " ".join(word.text.strip() for word in record.transcript.words),
        }
        # Separated by full stops, so that no phrase matches across two fields.
        fields = [name for name in self.config.fields if name != "transcript" or not written_only]
        return " . ".join(texts[name] for name in fields if texts[name])


def matches(text: str, keywords: Iterable[str]) -> list[str]:
    """Keywords that occur in a text as whole words, inflected or not, in the keywords' order."""
    keywords = tuple(keywords)
    sentences = _sentences(text)
    present = {word for sentence in sentences for word in sentence}
    folded = _fold(text)
    found = []
    for keyword in dict.fromkeys(keywords):
        words = _words(_fold(keyword))
        if not words:
            continue
        if _script(words[0][0]) in _SCRIPTS_WITHOUT_SPACES:
            matched = _fold(keyword).strip() in folded
        elif len(words) == 1:
            matched = not forms(words[0]).isdisjoint(present)
        else:
            matched = any(_phrase_in(words, sentence) for sentence in sentences)
        if matched:
            found.append(keyword)
    return found


def readable_words(text: str, keywords: Iterable[str]) -> list[str]:
    """Words of a text in a script that some keyword uses; numbers do not count."""
    scripts = _scripts(tuple(keywords))
    words = [word for sentence in _sentences(text) for word in sentence]
    return [word for word in words if any(_script(char) in scripts for char in word if char.isalpha())]


def _phrase_in(phrase: tuple[str, ...], sentence: tuple[str, ...]) -> bool:
    """Whether a phrase occurs, its first or last word possibly inflected: `getting up`, `martial arts`."""
    options = [forms(word) if i in (0, len(phrase) - 1) else {word} for i, word in enumerate(phrase)]
    starts = range(len(sentence) - len(phrase) + 1)
    return any(all(sentence[start + i] in option for i, option in enumerate(options)) for start in starts)


def _sentences(text: str) -> list[tuple[str, ...]]:
    return [_words(sentence) for sentence in re.split(r"[.!?;:\n]+", _fold(text))]


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.sub(r"['’]s?$", "", word) for word in _WORD.findall(text))


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


@functools.cache
def _script(char: str) -> str:
    return unicodedata.name(char, "UNKNOWN").split()[0].split("-")[0]


@functools.cache
def _scripts(keywords: tuple[str, ...]) -> frozenset[str]:
    return frozenset(_script(char) for keyword in keywords for char in _fold(keyword) if char.isalpha())

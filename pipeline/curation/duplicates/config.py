"""What counts as a near-duplicate."""

from pydantic import Field

from schemas.config import Config


class DedupeConfig(Config):
    """Limits, each with why it is where it is."""

    max_distance_mm: float = Field(25.0, gt=0)
    """Largest distance between two motions, millimetres: root mean square over 22 joints and the length of both, smoothed over
    0.1 s, heading and place taken away."""
    max_share: float = Field(0.08, gt=0)
    """Largest distance as a share of how far the joints move about their mean place. It is what tells a copy from another take:
    two people who stand still are near each other and have nothing in common, and an actor who repeats a short gesture comes
    within 5 mm of the take before. Of 1,437 takes of Bandai-Namco and CMU no two come within 0.08; the nearest are raised arms of
    one actor (0.084), and no two walks and no two styles of one action come within 0.11."""
    max_speed_ratio: float = Field(1.1, ge=1)
    """Largest ratio of the lengths of the same at two speeds: a copy that plays 5 % faster is a copy, a slow and a quick bow are
    two."""
    min_overlap: float = Field(0.5, gt=0, le=1)
    """Least share of the shorter one that both must have in common: a video that was trimmed is cut into other clips."""
    max_path_m: float = Field(0.3, gt=0)
    """Largest root mean square distance between the paths over the ground, metres, laid over one another."""
    picture_bits: float = Field(0.2, ge=0, le=1)
    """Largest share of differing bits between the pictures' hashes. The same person in a copy of three quarters of the size and
    low quality, cut elsewhere, differs in 0.04 to 0.14, other people in 0.4 and more."""
    embedding_cosine: float = Field(0.97, ge=-1, le=1)
    """Least cosine of the pictures' embeddings, where both samples have one, that counts as alike pictures."""
    text_likeness: float = Field(0.8, ge=0, le=1)
    """Least share of word pairs in common that counts as alike words: what was said, or written by somebody who saw it. What
    rules wrote is not compared, for it is the motion in other words."""
    loosened: float = Field(2.0, ge=1)
    """Where pictures or words are alike, distances may be this many times as long, and how much moves is not asked: motions
    that were estimated from such a copy lie 9 to 47 mm away, whether somebody plays tennis or sits and watches."""
    neighbours: int = Field(12, ge=1)
    """So many nearest stretches of each are looked at; more than anybody copies a clip."""
    dimensions: int = Field(16, ge=2)
    """Principal components that neighbours are looked for in; distances in them are never longer than the true ones."""
    score: str = "jitter"
    """Score of the samples by which the better of two is told, the lower one; a copy of a copy trembles more."""
    with_mirrored: bool = False
    """Whether mirror images count as duplicates; else they are only reported. Training may mirror motions on purpose."""

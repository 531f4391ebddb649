"""Thresholds for near-duplicates."""

from pydantic import Field

from schemas.config import Config


class DedupeConfig(Config):
    """Thresholds, with the reasons for their values."""

    max_distance_mm: float = Field(25.0, gt=0)
    """Maximum distance between two motions, millimetres: root mean square over 22 joints and the common length, smoothed over
    0.1 s, with heading and position removed."""
    max_share: float = Field(0.08, gt=0)
    """Maximum distance as a share of the joints' deviation from their mean positions. It separates a copy from another take: two
    people who stand still are close to each other without being copies, and an actor who repeats a short gesture comes within
    5 mm of the previous take. Of 1,437 takes of Bandai-Namco and CMU no two come within 0.08; the closest are raised arms of one
    actor (0.084), and no two walks and no two styles of one action come within 0.11."""
    max_speed_ratio: float = Field(1.1, ge=1)
    """Maximum ratio of the lengths of two copies at different speeds: a copy that plays 5 % faster is a duplicate, a slow and a
    quick bow are not."""
    min_overlap: float = Field(0.5, gt=0, le=1)
    """Minimum overlap as a share of the shorter motion: a trimmed video is cut into different clips."""
    max_path_m: float = Field(0.3, gt=0)
    """Maximum root mean square distance between the aligned paths on the ground, metres."""
    picture_bits: float = Field(0.2, ge=0, le=1)
    """Maximum share of differing bits between image hashes. The same person in a copy of three quarters of the size and low
    quality, cut elsewhere, differs in 0.04 to 0.14, other people in 0.4 and more."""
    embedding_cosine: float = Field(0.97, ge=-1, le=1)
    """Minimum cosine similarity of image embeddings, if both samples have one, for matching images."""
    text_likeness: float = Field(0.8, ge=0, le=1)
    """Minimum share of common word pairs for matching texts: the speech, and descriptions by describers that saw the video.
    Sentences of the rules are not compared, since they derive from the motion."""
    loosened: float = Field(2.0, ge=1)
    """Factor on the maximum distances if images or texts match; `max_share` is then ignored: motions estimated from such a copy
    are 9 to 47 mm away, whether the person plays tennis or sits and watches."""
    neighbours: int = Field(12, ge=1)
    """Number of nearest windows to examine for each window; more than the expected number of copies of a clip."""
    dimensions: int = Field(16, ge=2)
    """Number of principal components for the neighbour search; distances in them never exceed the true ones."""
    score: str = "jitter"
    """Score that selects the better of two samples, the lower one; a copy of a copy has more jitter."""
    with_mirrored: bool = False
    """Whether mirror images count as duplicates; otherwise they are only reported. Training may mirror motions on purpose."""

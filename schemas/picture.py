"""How the decoded frames of a video become the images that a player shows."""

from dataclasses import dataclass, replace
from typing import Literal

Clock = Literal["presentation", "decoding", "count"]
"""What gives a frame its time: its presentation time; the decoding time, where presentation times are missing or step back, as
in AVI with B-frames; or its number, where neither is even."""
Transfer = Literal["sdr", "pq", "hlg"]
"""Transfer function of the stored values: SDR, SMPTE ST 2084 or ARIB STD-B67 (both in ITU-R BT.2100)."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The picture track of a video and what is done to its frames, in this order: deinterlacing, square pixels, orientation, SDR
    colours, crop. `stages.media.inspection` finds it, `stages.media.decoding` applies it."""

    stream: int
    """Index of the stream in the container."""
    width: int
    height: int
    """Size of the images: upright, square pixels, without black borders."""
    origin: int = 0
    """Time of the first displayed frame on the clock, in ticks of the stream."""
    clock: Clock = "presentation"
    step_s: float = 0.0
    """Typical time between two frames, seconds; 0: unknown."""
    seekable: bool = True
    """Whether a time determines a position in the file; not where times start again in the middle."""
    aspect: float = 1.0
    """Width over height of a stored pixel."""
    transposed: bool = False
    """Whether rows become columns, before the flips."""
    flip_x: bool = False
    flip_y: bool = False
    interlaced: bool = False
    transfer: Transfer = "sdr"
    alpha: bool = False
    """Whether frames are transparent; they are shown on white."""
    borders: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Black borders that are cut off: left, top, right, bottom, pixels of the upright image."""
    track: int = 1
    tracks: int = 1
    """Number of `stream` among the picture tracks of the file, from 1, and how many there are."""
    size_changes: bool = False
    """Whether the file has frames of several sizes; all are fitted into the image."""

    @property
    def full_width(self) -> int:
        """Width with the borders."""
        return self.width + self.borders[0] + self.borders[2]

    @property
    def full_height(self) -> int:
        """Height with the borders."""
        return self.height + self.borders[1] + self.borders[3]

    @property
    def whole(self) -> "Picture":
        """The picture with its borders."""
        return replace(self, width=self.full_width, height=self.full_height, borders=(0, 0, 0, 0))

    @property
    def is_plain(self) -> bool:
        """Whether an image is the stored frame with square pixels, and nothing else."""
        turned = self.transposed or self.flip_x or self.flip_y
        return self.transfer == "sdr" and not (turned or self.alpha or self.size_changes or any(self.borders))

    @property
    def mirrored(self) -> bool:
        """Whether left and right are exchanged, as in a selfie."""
        return self.transposed ^ self.flip_x ^ self.flip_y

    @property
    def quarter_turns(self) -> int:
        """Clockwise quarter turns, after the exchange of left and right if the image is mirrored."""
        if self.transposed:
            return 1 if self.flip_x else 3
        return 2 if self.flip_y else 0

    @property
    def changes(self) -> dict[str, str]:
        """What is done beyond decoding: kind -> in words; empty for an ordinary video."""
        left, top, right, bottom = self.borders
        notes = (
            (self.tracks > 1, "several_tracks", f"picture track {self.track} of {self.tracks}"),
            (self.clock == "decoding", "decoding_times", "times from decoding times"),
            (self.clock == "count", "frame_numbers", "times from frame numbers"),
            (not self.seekable, "restarting_times", "times that start again made continuous"),
            (self.interlaced, "interlaced", "deinterlaced"),
            (self.aspect != 1.0, "anamorphic", f"square pixels from {self.aspect:.4g}:1"),
            (self.mirrored, "mirrored", "mirrored"),
            (self.quarter_turns > 0, "rotated", f"turned {90 * self.quarter_turns} degrees clockwise"),
            (self.transfer != "sdr", "hdr", f"tone-mapped from {self.transfer.upper()}"),
            (self.alpha, "alpha", "shown on white"),
            (
                any(self.borders),
                "borders",
                f"black borders cut: left {left}, top {top}, right {right}, bottom {bottom}",
            ),
            (self.size_changes, "several_sizes", "frames of several sizes fitted into one"),
        )
        return {kind: text for applies, kind, text in notes if applies}

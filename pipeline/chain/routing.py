"""Which stages a source passes, by its kind. Knowing this loads no stage."""

_ROADS = {
    "video": ("read_videos", "transcribe", "keep_human_text", "split_shots", "track_people", "cut_clips", "fit_smpl"),
    "mocap": ("read_mocap",),
    "studio": ("film_studio",),
    "join": ("join_clips", "tell_segments"),
}
"""Kind of source -> the stages that only such sources pass, on their way to a motion; all others are common to all."""


def applies_to(kind: str, name: str) -> bool:
    """Whether sources of a kind pass a stage."""
    return name in _ROADS[kind] or not any(name in road for road in _ROADS.values())

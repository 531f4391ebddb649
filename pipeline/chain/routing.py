"""Which stages a source passes, by its kind; imports no stage."""

_STAGES_OF_KIND = {
    "video": ("read_videos", "transcribe", "keep_human_text", "split_shots", "track_people", "cut_clips", "fit_smpl"),
    "mocap": ("read_mocap",),
    "studio": ("film_studio",),
    "join": ("join_clips", "caption_segments"),
}
"""Kind of source -> the stages that only such sources pass, up to the motion; all other stages apply to every kind."""


def applies_to(kind: str, name: str) -> bool:
    """Whether sources of this kind pass the stage."""
    return name in _STAGES_OF_KIND[kind] or not any(name in stages for stages in _STAGES_OF_KIND.values())

"""`python -m stages.recovery.external FILE...`: content of results, or why they cannot be imported."""

import sys

from schemas.errors import HumoError, UsageError, exit_status
from stages.recovery.external.files import read_result
from stages.recovery.external.parsers import Result
from stages.recovery.external.worlds import place_subjects, rest_of_mean


def describe(result: Result) -> str:
    """Layout, body model, rate and subjects, one line each."""
    rate = f"{result.fps:g} frames a second" if result.fps else "the video's frame rate"
    camera = "no camera"
    if result.layout != "amass":
        intrinsics = result.intrinsics
        camera = "focal length: the image's diagonal" if intrinsics is None else f"focal length {intrinsics[0]:.1f} px"
    lines = [f"{result.file}: {result.layout}, body {result.body} {result.gender}, {rate}, {camera}"]
    for subject in result.subjects:
        frames = subject.frames
        gaps = int((frames[1:] - frames[:-1] > 1).sum())
        gap_text = f" with {gaps} gaps" if gaps else ""
        lines.append(f"  {subject.name}: {len(frames)} frames from {frames[0]} to {frames[-1]}{gap_text}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Exit status: 0, 1 where a result cannot be imported, 2 without arguments."""
    if not arguments:
        return exit_status(UsageError("imported: no file; use `python -m stages.recovery.external FILE...`"))
    status = 0
    for name in arguments:
        try:
            result = read_result(name)
            place_subjects(result, rest_of_mean(result.body))
            print(describe(result))
        except HumoError as error:
            status = max(status, exit_status(error))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`humo skeleton`: what is recognised in a motion-capture file, and a joint map to edit."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import AsJson, print_result


def skeleton(
    file: Annotated[str, typer.Argument(help="A motion-capture file; any format that kind: mocap reads.")],
    out: Annotated[str, typer.Option(help="Write the joint map here (.yaml), to be edited and set as joint_map.")] = "",
    joint_map: Annotated[
        str, typer.Option(help="As read_mocap.joint_map: auto, a known map, or a YAML file.")
    ] = "auto",
    fps: Annotated[float, typer.Option(min=0, help="Frame rate over the file's; 0: the file's.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Show the joints that were recognised, by name or by shape, with unit, axes, rest pose and rate."""
    from schemas.errors import UsageError
    from stages.mocap.description import as_dict, as_text, as_yaml, describe

    if out and not out.endswith((".yaml", ".yml")):
        raise UsageError(f"--out is {out!r}; give a file that ends in .yaml")
    try:
        description, found = describe(file, joint_map, fps=fps or None)
        if out:
            Path(out).write_text(as_yaml(file, found), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{error.filename or file}: {error.strerror or error}; check the path") from None
    print_result(as_dict(description), as_json, as_text(description))

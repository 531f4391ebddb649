"""TensorBoard's event files beside metrics.jsonl."""

from collections.abc import Mapping
from pathlib import Path

from schemas.errors import UsageError

FOLDER = "events"


class EventLog:
    """Scalars and pictures of a run, for `tensorboard --logdir OUTPUT`."""

    def __init__(self, folder: Path, start: int) -> None:
        """`start` is the step that a run resumes from: later steps of an interrupted run are hidden.

        Raises UsageError if the tensorboard package is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                f"tensorboard: true needs the package tensorboard ({error}); pip install tensorboard, or set it to false: "
                "metrics.jsonl and curve.png hold the same figures"
            ) from None
        self.writer = SummaryWriter(str(folder / FOLDER), purge_step=start + 1 if start else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a step."""
        for name, value in values.items():
            group, _, rest = name.partition("_")
            self.writer.add_scalar(f"validation/{rest}" if group == "validation" else f"training/{name}", value, step)
        self.writer.flush()

    def draw(self, step: int, name: str, path: Path) -> None:
        """The picture in a file."""
        import matplotlib.image

        self.writer.add_image(name, matplotlib.image.imread(path)[..., :3], step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

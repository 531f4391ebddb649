"""Logs and pictures of a run, which lie beside its checkpoints."""

import atexit
import shutil
import tempfile
from pathlib import Path

from model.checkpoints import is_remote
from schemas.storage import Storage


class RunFiles:
    """A folder to write to; `publish` copies to a bucket what has changed, where the output is one."""

    def __init__(self, output: str, resumed: tuple[str, ...] = ()) -> None:
        """`resumed` names files of an earlier run that are continued."""
        self.storage = Storage(output) if is_remote(output) else None
        self._copied: dict[str, tuple[int, int]] = {}
        if self.storage is None:
            self.folder = Path(output)
            self.folder.mkdir(parents=True, exist_ok=True)
            return
        self.folder = Path(tempfile.mkdtemp(prefix="humo-run-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        for name in resumed:
            if self.storage.exists(name):
                (self.folder / name).write_bytes(self.storage.read_bytes(name))

    def publish(self) -> None:
        """Copy the files that have changed since the last call."""
        if self.storage is None:
            return
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            name, status = path.relative_to(self.folder).as_posix(), path.stat()
            state = status.st_size, status.st_mtime_ns
            if self._copied.get(name) != state:
                self.storage.write_bytes(name, path.read_bytes())
                self._copied[name] = state

"""Keeps libraries from accessing the network or installing packages on their own."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Folder for reproducible files (exported weights): $HUMO_CACHE, or `humo` in the user's cache folder."""
    configured = os.environ.get("HUMO_CACHE")
    return Path(configured) if configured else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "humo"


def enforce_offline(*, allow_hub: bool = False) -> None:
    """Set environment variables that keep this process and its children offline; call it before importing such libraries.

    ultralytics: no settings in the home folder, no usage sync, no update check, no pip installs. Ray and Hugging Face: no
    usage statistics. Hugging Face's hub is disabled unless `allow_hub`, for a config that names a hub model.
    """
    settings = {
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
        "YOLO_CONFIG_DIR": str(cache_folder() / "ultralytics"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
    }
    if not allow_hub:
        settings |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    os.environ.update(settings)
    Path(settings["YOLO_CONFIG_DIR"]).mkdir(parents=True, exist_ok=True)

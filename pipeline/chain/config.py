"""The YAML of an ingest job: sources and output, everything else has a default."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline import __version__
from pipeline.chain.presets import with_preset
from pipeline.chain.stage_order import STAGES, StageSettings
from schemas.config import Config
from schemas.dataset import LAYOUT_VERSION, SPLITS
from schemas.ids import config_digest
from stages.list_sources import SourceConfig


class WorkerConfig(Config):
    """What each worker of a stage gets under Ray; neighbouring stages with equal needs share their workers."""

    cpus: float = Field(1.0, gt=0)
    """CPU cores of one worker."""
    gpus: float = Field(0.0, ge=0)
    """GPUs of one worker; fractions share a GPU between workers."""
    workers: int = Field(0, ge=0)
    """Most workers at a time; 0: as many as the cluster has room for."""


class EngineConfig(Config):
    """Where the stages run."""

    kind: Literal["inline", "ray"] = "inline"
    """inline: this process, one source after another; ray: Ray Data, on this machine or a cluster."""
    address: str = ""
    """Ray cluster to join (`auto`, or `ray://host:port`); empty: a Ray of its own on this machine."""
    cpus: int = Field(0, ge=0)
    """CPU cores that a Ray of its own may use; 0: all of this machine."""
    grows: bool = False
    """The Ray cluster adds nodes when more is asked of it than it has: ask for all that `resources` allows."""
    isolate: bool = True
    """Run stages in processes of their own, so that an input which kills or blocks one costs only itself."""


class FaultConfig(Config):
    """What is done about sources that fail, apart from those that are turned down."""

    time_limit_s: float = Field(7200.0, ge=0)
    """Longest time of one source in one stage, seconds; 0: no limit. On a CPU core tracking takes about as long as the video
    lasts. Enforced where stages are isolated."""
    retries: int = Field(2, ge=0)
    """How often a source is tried again at once that killed its process; one that took too long is tried once more at most."""
    max_failures: int = Field(0, ge=0)
    """The job stops when more sources than this have failed; 0: never."""


class PricesConfig(Config):
    """What `humo plan` reckons cost with; 0: not priced. What a describer asks is in its own settings."""

    cpu_hour_usd: float = Field(0.0, ge=0)
    """One busy CPU core for an hour, US dollars."""
    gpu_hour_usd: float = Field(0.0, ge=0)
    """One GPU for an hour, US dollars."""
    gib_month_usd: float = Field(0.0, ge=0)
    """One GiB stored for a month, US dollars."""


class IngestConfig(Config):
    """A job: videos in, a dataset out."""

    sources: list[SourceConfig] = Field(min_length=1)
    """Files, folders, globs or manifests."""
    output: str
    """Folder of the dataset; any fsspec path."""
    chain: list[str] = list(STAGES)
    """Stages in their order, if not the usual ones."""
    preset: str = ""
    """Settings of a published dataset to lie under `stages`: a name from configs/presets; empty: the stages' own."""
    stages: StageSettings = StageSettings()  # type: ignore[valid-type]
    """Settings of each stage."""
    engine: EngineConfig = EngineConfig()
    """Where the stages run."""
    faults: FaultConfig = FaultConfig()
    """Time limits, retries, and when to give up."""
    resources: dict[str, WorkerConfig] = {}
    """Stage -> what its workers get under Ray; stages that are not named share the rest, at most one CPU core a worker."""
    splits: dict[str, float] = {"train": 0.9, "val": 0.05, "test": 0.05}
    """Shares of the splits, by source: no source is in two."""
    shard_bytes: int = Field(1_000_000_000, ge=1_000_000)
    """Size at which a new shard begins, bytes."""
    sources_per_commit: int = Field(1, ge=1)
    """Sources that are committed together; more means fewer, larger files."""
    prices: PricesConfig = PricesConfig()
    """What the plan reckons cost with."""

    @model_validator(mode="before")
    @classmethod
    def _lay_the_preset_under(cls, value: Any) -> Any:
        return with_preset(value) if isinstance(value, Mapping) else value

    @field_validator("resources")
    @classmethod
    def _stages_exist(cls, value: dict[str, WorkerConfig]) -> dict[str, WorkerConfig]:
        for name in value:
            if name not in STAGES:
                raise ValueError(f"{name!r} is no stage; known stages: {', '.join(STAGES)}")
        return value

    @model_validator(mode="after")
    def _splits_add_up(self) -> "IngestConfig":
        unknown = set(self.splits) - set(SPLITS)
        if unknown or any(share < 0 for share in self.splits.values()) or abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ValueError(f"splits: {self.splits} must be shares of {', '.join(SPLITS)} that add up to 1")
        return self

    @property
    def digest(self) -> str:
        """Digest of all that decides what a sample holds; not of where it runs or how it is packed."""
        stages: Any = self.stages
        return config_digest(
            {
                "layout": LAYOUT_VERSION,
                "humo": __version__,
                "chain": self.chain,
                "stages": {name: getattr(stages, name).first_names() for name in self.chain},
            }
        )

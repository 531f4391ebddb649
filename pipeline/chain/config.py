"""The settings of an ingest job, read from YAML; only sources and output are required."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline import __version__
from pipeline.chain.presets import with_preset
from pipeline.chain.stage_order import STAGES, StageSettings
from schemas.config import Config
from schemas.dataset import LAYOUT_VERSION, SPLITS
from schemas.ids import config_digest
from schemas.network import RequestsConfig
from schemas.secrets import public_settings
from schemas.staging import Access
from stages.list_sources import SourceConfig


class WorkerConfig(Config):
    """Resources of each worker of a stage under Ray; adjacent stages with equal resources share their workers."""

    cpus: float = Field(1.0, gt=0)
    """CPU cores per worker."""
    gpus: float = Field(0.0, ge=0)
    """GPUs per worker; with a fraction several workers share a GPU."""
    workers: int = Field(0, ge=0)
    """Maximum number of workers; 0: as many as fit on the cluster."""


class EngineConfig(Config):
    """Where the stages run."""

    kind: Literal["inline", "ray"] = "inline"
    """inline: this process, one source after another; ray: Ray Data, on this machine or a cluster."""
    address: str = ""
    """Ray cluster to join (`auto`, or `ray://host:port`); empty: start a local Ray."""
    cpus: int = Field(0, ge=0)
    """CPU cores of a local Ray; 0: all of this machine."""
    grows: bool = False
    """The Ray cluster autoscales: request all workers that `resources` allows, even beyond its current size."""
    require_token: bool = False
    """Refuse a Ray that accepts requests without a token, where anybody who reaches it can run code; false: only warn."""
    isolate: bool = True
    """Run stages in worker processes, so that an input which crashes or blocks one costs only that source."""


class FaultConfig(Config):
    """Handling of sources that fail, as opposed to those that are rejected."""

    time_limit_s: float = Field(7200.0, ge=0)
    """Maximum time of one source in one stage, seconds; 0: no limit. On a CPU core tracking takes about as long as the video lasts.
    Enforced where stages are isolated."""
    retries: int = Field(2, ge=0)
    """Immediate retries of a source that killed its process; a source that timed out is retried once at most."""
    memory_limit_gib: float = Field(16.0, ge=0)
    """Memory that a worker process may take beyond what its stages need when they are set up, GiB; 0: no limit. Enforced where
    stages are isolated."""
    cpu_limit_s: float = Field(360_000.0, ge=0)
    """Maximum CPU time of one source in one stage, seconds, summed over cores; 0: no limit. Enforced where stages are isolated."""
    max_failures: int = Field(0, ge=0)
    """The job stops when more sources than this have failed; 0: never."""


class PricesConfig(Config):
    """Prices for the cost estimate of `humo plan`; 0: not priced. A describer's prices are in its own settings."""

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
    """Stages in order, if not the default ones."""
    preset: str = ""
    """Filter settings as defaults for `stages`, such as a published dataset's: a name from configs/presets; empty: the stages' own
    defaults."""
    stages: StageSettings = StageSettings()  # type: ignore[valid-type]
    """Settings of each stage."""
    engine: EngineConfig = EngineConfig()
    """Where the stages run."""
    faults: FaultConfig = FaultConfig()
    """Time limits, retries, and when to stop."""
    requests: RequestsConfig = RequestsConfig()
    """Addresses that sources may have, and limits of fetching them."""
    resources: dict[str, WorkerConfig] = {}
    """Stage -> resources of its workers under Ray; stages that are not listed share the rest, at most one CPU core per worker."""
    splits: dict[str, float] = {"train": 0.9, "val": 0.05, "test": 0.05}
    """Shares of the splits, by source: no source is in two splits."""
    shard_bytes: int = Field(1_000_000_000, ge=1_000_000)
    """Size at which a new shard begins, bytes."""
    sources_per_commit: int = Field(1, ge=1)
    """Sources per commit; more means fewer, larger files."""
    prices: PricesConfig = PricesConfig()
    """Prices for the plan's cost estimate."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, value: Any) -> Any:
        return with_preset(value) if isinstance(value, Mapping) else value

    @field_validator("chain", "resources")
    @classmethod
    def _check_stage_names(cls, value: Any) -> Any:
        for name in value:
            if name not in STAGES:
                raise ValueError(f"{name!r} is no stage; known stages: {', '.join(STAGES)}")
        return value

    @model_validator(mode="after")
    def _check_splits(self) -> "IngestConfig":
        unknown = set(self.splits) - set(SPLITS)
        if unknown or any(share < 0 for share in self.splits.values()) or abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ValueError(f"splits: {self.splits} must be shares of {', '.join(SPLITS)} that add up to 1")
        return self

    @property
    def access(self) -> Access:
        """What a run of this job may read; each has copies of its own."""
        film_folder = self.stages.film_studio.folder  # type: ignore[attr-defined]
        stores = [self.output, film_folder, *(source.store for source in self.sources if not source.generated)]
        return Access(requests=self.requests, stores=tuple(stores))

    @property
    def digest(self) -> str:
        """Digest of the settings that determine the content of samples; not of where the job runs or how it packs, and not of
        credentials in addresses."""
        stages: Any = self.stages
        return config_digest(
            {
                "layout": LAYOUT_VERSION,
                "humo": __version__,
                "chain": self.chain,
                "stages": {name: public_settings(getattr(stages, name).original_names())[0] for name in self.chain},
            }
        )

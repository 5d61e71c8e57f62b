"""What a training job can be told: one dataclass per config group, so that Hydra refuses unknown keys and wrong types.

The YAML files in `configs/` choose values; `checks.py` looks at what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, OmegaConf

from rushlight_train import folder


@dataclass
class ModelConfig:
    """A network; `name` is the class in `rushlight_models`."""

    name: str = MISSING


@dataclass
class MlpConfig(ModelConfig):
    name: str = "MLP"
    hidden: list[int] = field(default_factory=lambda: [128])
    dropout: float = 0.0


@dataclass
class CnnConfig(ModelConfig):
    name: str = "CNN"
    channels: int = 32
    hidden: int = 128
    dropout: float = 0.25


@dataclass
class ResNet18Config(ModelConfig):
    name: str = "ResNet18"
    width: int = 64


@dataclass
class GptConfig(ModelConfig):
    name: str = "GPT"
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    bias: bool = False


@dataclass
class LstmConfig(ModelConfig):
    name: str = "LSTMLanguageModel"
    embedding_dim: int = 128
    hidden_size: int = 256
    num_layers: int = 1
    dropout: float = 0.0


@dataclass
class DataConfig:
    """A data set and the budget that suits it.

    Args:
        batch_size: Samples in a step, over all ranks together.
        epochs: Passes over the training part.
        workers: Loader processes per rank.
    """

    name: str = MISSING
    batch_size: int = MISSING
    epochs: int = MISSING
    workers: int = 0


@dataclass
class DigitsConfig(DataConfig):
    name: str = "digits"


@dataclass
class StdlibTextConfig(DataConfig):
    """`stride`: characters from one sample's start to the next; by default `block_size`, every character once."""

    name: str = "stdlib_text"
    block_size: int = 64
    stride: int | None = None


@dataclass
class OptimConfig:
    """An optimizer; the fields beside `name` are its arguments."""

    name: str = MISSING
    lr: float = MISSING
    weight_decay: float = 0.0


@dataclass
class SgdConfig(OptimConfig):
    name: str = "SGD"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False


@dataclass
class AdamConfig(OptimConfig):
    name: str = "Adam"
    lr: float = 1e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8


@dataclass
class AdamWConfig(AdamConfig):
    name: str = "AdamW"
    weight_decay: float = 0.01


@dataclass
class RmspropConfig(OptimConfig):
    name: str = "RMSprop"
    lr: float = 1e-3
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0


@dataclass
class AdagradConfig(OptimConfig):
    name: str = "Adagrad"
    lr: float = 1e-2
    eps: float = 1e-10


@dataclass
class SchedulerConfig:
    """How the learning rate moves over the steps of the job.

    Args:
        name: "constant" or "cosine" (to `final` times the rate at the end).
        warmup: Share of the steps in which the rate rises to its value.
    """

    name: str = "constant"
    warmup: float = 0.0
    final: float = 0.0


@dataclass
class LaunchConfig:
    """Where the ranks run.  `timeout_s`: limit for the whole job in seconds, none by default."""

    ranks: int = 2
    hostfile: str | None = None
    timeout_s: float | None = None


@dataclass
class CheckpointConfig:
    """What is kept.  `every`: epochs between checkpoints; `keep`: how many of them stay."""

    every: int = 1
    keep: int = 2


@dataclass
class JobConfig:
    """The whole job.

    Args:
        seed: Decides initial weights, order of samples and dropout.
        clip_norm: Largest norm of the gradients, none by default.
        resume: Go on from the newest checkpoint of a job with this model and these data under `outputs/`, or of
        `resume_from`. resume_from: A job folder, or a checkpoint folder in one.
    """

    model: Any = MISSING
    data: Any = MISSING
    optim: Any = MISSING
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    seed: int = 0
    clip_norm: float | None = None
    resume: bool = False
    resume_from: str | None = None


GROUPS: dict[str, dict[str, type]] = {
    "model": {"mlp": MlpConfig, "cnn": CnnConfig, "resnet18": ResNet18Config, "gpt": GptConfig, "lstm": LstmConfig},
    "data": {"digits": DigitsConfig, "stdlib_text": StdlibTextConfig},
    "optim": {
        "sgd": SgdConfig,
        "adam": AdamConfig,
        "adamw": AdamWConfig,
        "rmsprop": RmspropConfig,
        "adagrad": AdagradConfig,
    },
    "scheduler": {"scheduler": SchedulerConfig},
    "launch": {"launch": LaunchConfig},
}
IMAGE_MODELS = ("MLP", "CNN", "ResNet18")
TEXT_MODELS = ("GPT", "LSTMLanguageModel")


def register() -> None:
    """Put the schemas into Hydra's store; `configs/<group>/<name>.yaml` builds on `<name>_schema`."""
    OmegaConf.register_new_resolver("rushlight.groups", _choices, replace=True)
    OmegaConf.register_new_resolver("rushlight.new_folder", folder.claim, replace=True, use_cache=True)
    store = ConfigStore.instance()
    store.store(name="job_schema", node=JobConfig)
    for group, schemas in GROUPS.items():
        for name, schema in schemas.items():
            store.store(group=group, name=f"{name}_schema", node=schema)


def _choices() -> str:
    """For `--help`: the groups and what each has to choose from; schemas are no choice."""
    loader = GlobalHydra.instance().config_loader()
    options = {group: loader.get_group_options(group) for group in (*GROUPS, "experiment")}
    rows = [f"{g}: {', '.join(o for o in sorted(all_) if not o.endswith('_schema'))}" for g, all_ in options.items()]
    return "\n".join(rows)

"""The networks that examples, configs and benchmarks share.

Each is written as for PyTorch: with its imports changed to `torch` and `torch.nn`, the same text runs there.
"""

from rushlight_models.cnn import CNN as CNN
from rushlight_models.gpt import GPT as GPT
from rushlight_models.gpt import GPTConfig as GPTConfig
from rushlight_models.lstm import LSTMLanguageModel as LSTMLanguageModel
from rushlight_models.mlp import MLP as MLP
from rushlight_models.resnet import ResNet18 as ResNet18

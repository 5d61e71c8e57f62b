"""Random numbers as PyTorch's CPU generator draws them (`torch.random`)."""

from __future__ import annotations

from rushlight_tensor.random.generator import Generator as Generator
from rushlight_tensor.random.generator import default_generator as default_generator
from rushlight_tensor.random.generator import fork_rng as fork_rng
from rushlight_tensor.random.generator import get_rng_state as get_rng_state
from rushlight_tensor.random.generator import initial_seed as initial_seed
from rushlight_tensor.random.generator import manual_seed as manual_seed
from rushlight_tensor.random.generator import seed as seed
from rushlight_tensor.random.generator import set_rng_state as set_rng_state

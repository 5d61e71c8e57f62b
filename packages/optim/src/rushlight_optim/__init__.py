"""Optimizers, learning-rate schedulers and averaged models."""

from rushlight_optim import lr_scheduler as lr_scheduler
from rushlight_optim.adam import Adam as Adam
from rushlight_optim.adam import Adamax as Adamax
from rushlight_optim.adam import AdamW as AdamW
from rushlight_optim.adam import NAdam as NAdam
from rushlight_optim.adam import RAdam as RAdam
from rushlight_optim.adaptive import Adadelta as Adadelta
from rushlight_optim.adaptive import Adagrad as Adagrad
from rushlight_optim.adaptive import RMSprop as RMSprop
from rushlight_optim.optimizer import Optimizer as Optimizer
from rushlight_optim.sgd import SGD as SGD

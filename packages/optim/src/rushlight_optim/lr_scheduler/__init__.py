"""Learning-rate schedulers, under PyTorch's names and with its rates."""

from rushlight_optim.lr_scheduler.base import LRScheduler as LRScheduler
from rushlight_optim.lr_scheduler.composed import ChainedScheduler as ChainedScheduler
from rushlight_optim.lr_scheduler.composed import SequentialLR as SequentialLR
from rushlight_optim.lr_scheduler.cycles import CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts
from rushlight_optim.lr_scheduler.cycles import CyclicLR as CyclicLR
from rushlight_optim.lr_scheduler.cycles import OneCycleLR as OneCycleLR
from rushlight_optim.lr_scheduler.plateau import ReduceLROnPlateau as ReduceLROnPlateau
from rushlight_optim.lr_scheduler.schedules import ConstantLR as ConstantLR
from rushlight_optim.lr_scheduler.schedules import CosineAnnealingLR as CosineAnnealingLR
from rushlight_optim.lr_scheduler.schedules import ExponentialLR as ExponentialLR
from rushlight_optim.lr_scheduler.schedules import LambdaLR as LambdaLR
from rushlight_optim.lr_scheduler.schedules import LinearLR as LinearLR
from rushlight_optim.lr_scheduler.schedules import MultiplicativeLR as MultiplicativeLR
from rushlight_optim.lr_scheduler.schedules import MultiStepLR as MultiStepLR
from rushlight_optim.lr_scheduler.schedules import PolynomialLR as PolynomialLR
from rushlight_optim.lr_scheduler.schedules import StepLR as StepLR

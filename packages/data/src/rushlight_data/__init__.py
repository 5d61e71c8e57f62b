"""Datasets, samplers and a DataLoader with worker processes."""

from rushlight_data.collate import default_collate as default_collate
from rushlight_data.collate import default_convert as default_convert
from rushlight_data.dataloader import DataLoader as DataLoader
from rushlight_data.dataset import ChainDataset as ChainDataset
from rushlight_data.dataset import ConcatDataset as ConcatDataset
from rushlight_data.dataset import Dataset as Dataset
from rushlight_data.dataset import IterableDataset as IterableDataset
from rushlight_data.dataset import StackDataset as StackDataset
from rushlight_data.dataset import Subset as Subset
from rushlight_data.dataset import TensorDataset as TensorDataset
from rushlight_data.dataset import random_split as random_split
from rushlight_data.digits import Digits as Digits
from rushlight_data.distributed import DistributedSampler as DistributedSampler
from rushlight_data.distributed import set_world as set_world
from rushlight_data.packed import PackedList as PackedList
from rushlight_data.sampler import BatchSampler as BatchSampler
from rushlight_data.sampler import RandomSampler as RandomSampler
from rushlight_data.sampler import Sampler as Sampler
from rushlight_data.sampler import SequentialSampler as SequentialSampler
from rushlight_data.sampler import SubsetRandomSampler as SubsetRandomSampler
from rushlight_data.sampler import WeightedRandomSampler as WeightedRandomSampler
from rushlight_data.text import StdlibText as StdlibText
from rushlight_data.worker import WorkerInfo as WorkerInfo
from rushlight_data.worker import get_worker_info as get_worker_info

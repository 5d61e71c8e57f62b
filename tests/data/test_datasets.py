"""Datasets by index and in order, and how they are combined and split."""

import numpy as np
import pytest

from rushlight_data import (
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from rushlight_data.dataset import batch_method
from rushlight_tensor import tensor
from rushlight_tensor.random import Generator


class Squares(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index * index


class Count(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self):
        return self.n


def pairs(n=6):
    return TensorDataset(tensor(np.arange(2 * n, dtype=np.float32).reshape(n, 2)), tensor(np.arange(n)))


def test_tensor_dataset_gives_rows():
    x, y = pairs()[3]
    assert x.tolist() == [6.0, 7.0]
    assert y.item() == 3
    assert len(pairs()) == 6


def test_tensor_dataset_refuses_unequal_lengths():
    with pytest.raises(AssertionError, match=r"Size mismatch between tensors.*\[6, 2\]"):
        TensorDataset(tensor([0] * 6), tensor([0] * 2))


def test_concatenation_is_by_index():
    both = Squares() + Squares()
    assert isinstance(both, ConcatDataset)
    assert [both[i] for i in (0, 9, 10, 19, -1, -20)] == [0, 81, 0, 81, 81, 0]
    assert both.cumulative_sizes == [10, 20]
    with pytest.raises(IndexError, match="20 samples"):
        both[20]
    with pytest.raises(ValueError, match="should not exceed dataset length"):
        both[-21]


def test_concatenation_refuses_nothing_and_iterables():
    with pytest.raises(AssertionError, match="should not be an empty iterable"):
        ConcatDataset([])
    with pytest.raises(AssertionError, match="does not support IterableDataset"):
        ConcatDataset([Count(2)])


def test_chain_is_in_order():
    chained = Count(2) + Count(3)
    assert isinstance(chained, ChainDataset)
    assert list(chained) == [0, 1, 0, 1, 2]
    assert len(chained) == 5
    with pytest.raises(AssertionError, match="only supports IterableDataset"):
        list(ChainDataset([Squares()]))


def test_stack_gives_tuples_or_dicts():
    assert StackDataset(Squares(), Squares())[2] == (4, 4)
    assert StackDataset(a=Squares(), b=Squares())[3] == {"a": 9, "b": 9}
    assert len(StackDataset(Squares())) == 10


def test_stack_refuses_bad_arguments():
    with pytest.raises(ValueError, match="At least one"):
        StackDataset()
    with pytest.raises(ValueError, match="Size mismatch"):
        StackDataset(Squares(), [1])
    with pytest.raises(ValueError, match="both types are given"):
        StackDataset(Squares(), b=Squares())


def test_subset_maps_indices():
    subset = Subset(Squares(), [5, 1, 7])
    assert [subset[i] for i in range(3)] == [25, 1, 49]
    assert subset.__getitems__([2, 0]) == [49, 25]


def test_random_split_shares_no_sample():
    parts = random_split(Squares(), [7, 3], generator=Generator().manual_seed(1))
    assert [len(part) for part in parts] == [7, 3]
    assert sorted(i for part in parts for i in part.indices) == list(range(10))


@pytest.mark.parametrize(
    ("n", "fractions", "sizes"),
    [(10, [0.5, 0.5], [5, 5]), (13, [0.33, 0.33, 0.34], [5, 4, 4]), (10, [0.1] * 10, [1] * 10), (7, [1], [7])],
)
def test_random_split_by_fractions(n, fractions, sizes):
    assert [len(part) for part in random_split(range(n), fractions)] == sizes


def test_random_split_warns_of_an_empty_part():
    with pytest.warns(UserWarning, match="Length of split at index 1 is 0"):
        random_split(range(3), [0.1, 0.1, 0.8])


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 3], "Sum of input lengths"),
        ([0.3, 0.3], "Sum of input lengths"),
        ([1.5, -0.5], "index 0 is not between 0 and 1"),
    ],
)
def test_random_split_refuses_what_does_not_add_up(lengths, message):
    with pytest.raises(ValueError, match=message):
        random_split(Squares(), lengths)


def test_a_dataset_without_getitem_says_so():
    with pytest.raises(NotImplementedError, match="__getitem__"):
        Dataset()[0]
    with pytest.raises(TypeError, match="abstract"):
        IterableDataset()


def test_batches_by_row_are_what_collating_samples_gives():
    nested = Subset(Subset(pairs(), [5, 4, 3, 2]), [0, 2, 3])
    assert batch_method(nested) is not None
    whole = list(DataLoader(nested, 2))
    samples = list(DataLoader([nested[i] for i in range(3)], 2))
    assert [[part.tolist() for part in batch] for batch in whole] == [[part.tolist() for part in b] for b in samples]
    assert type(whole[0]) is type(samples[0]) is list


def test_a_changed_getitem_is_never_bypassed():
    class Doubled(TensorDataset):
        def __getitem__(self, index):
            return tuple(2 * part for part in super().__getitem__(index))

    dataset = Doubled(tensor([1.0, 2.0]))
    assert batch_method(dataset) is None
    assert batch_method(Subset(dataset, [0])) is None
    assert next(iter(DataLoader(dataset, 2)))[0].tolist() == [2.0, 4.0]


def test_a_subset_of_a_list_of_samples_is_collated():
    assert next(iter(DataLoader(Subset([1, 2, 3], [2, 0]), 2))).tolist() == [3, 1]

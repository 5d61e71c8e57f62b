"""The two datasets that every machine has: handwritten digits, and the standard library's own text."""

import hashlib
import sys
import zipfile
from importlib.resources import files

import numpy as np
import pytest

from rushlight_data import DataLoader, Digits, StdlibText
from rushlight_data import text as text_module
from rushlight_data.digits import split

DIGITS_SHA256 = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
FIRST_TEST_ROWS = [0, 2, 4, 17, 21]


def test_digits_are_the_uci_digits():
    everything = Digits(train=None)
    assert everything.data.shape == (1797, 1, 8, 8)
    assert np.bincount(everything.targets.numpy()).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    pixels = (everything.data.numpy() * 16).astype(np.uint8).tobytes()
    assert hashlib.sha256(pixels).hexdigest() == DIGITS_SHA256


def test_a_digit_is_an_image_and_an_int():
    image, label = Digits()[0]
    assert (tuple(image.shape), str(image.dtype), type(label)) == ((1, 8, 8), "torch.float32", int)
    assert float(image.min()) >= 0
    assert float(image.max()) <= 1
    assert Digits.classes == list("0123456789")


def test_the_split_is_fixed_disjoint_and_stratified():
    train, test = split()
    assert (len(train), len(test)) == (len(Digits()), len(Digits(train=False))) == (1437, 360)
    assert not set(train) & set(test)
    assert test[:5].tolist() == FIRST_TEST_ROWS
    counts = np.bincount(Digits(train=False).targets.numpy())
    assert counts.tolist() == [36, 36, 36, 36, 37, 36, 36, 36, 35, 36]
    rows = Digits(train=None).data.numpy()
    assert (rows[test] == Digits(train=False).data.numpy()).all()


def test_digits_batches_are_what_collating_samples_gives():
    dataset = Digits(train=False)
    for whole, one_by_one in zip(DataLoader(dataset, 100), DataLoader(list(dataset), 100), strict=True):
        assert [part.tolist() for part in whole] == [part.tolist() for part in one_by_one]
        assert [str(part.dtype) for part in whole] == ["torch.float32", "torch.int64"]


def test_digits_transforms_apply_with_batches_too():
    dataset = Digits(transform=lambda image: image * 0 + 2, target_transform=lambda label: -label)
    images, labels = next(iter(DataLoader(dataset, 3)))
    assert set(images.numpy().ravel().tolist()) == {2.0}
    assert (labels.numpy() <= 0).all()
    assert dataset[0][1] == -Digits()[0][1]


def test_digits_come_with_attribution_and_licence():
    licence = (files("rushlight_data") / "files" / "digits.LICENSE.txt").read_text()
    for words in ("Alpaydin", "Kaynak", "10.24432/C50P49", "Attribution 4.0 International Public License"):
        assert words in licence


def test_text_windows_are_consecutive():
    text = StdlibText(train=False, block_size=32)
    x, y = text[3]
    assert x.shape == y.shape == (32,)
    assert x.tolist()[1:] == y.tolist()[:-1]
    assert text.decode(x) == text.text[96:128]
    assert text.decode(y) == text.text[97:129]
    assert text[-1][0].tolist() == text[len(text) - 1][0].tolist()


@pytest.mark.parametrize("stride", [None, 1, 50])
def test_text_has_as_many_windows_as_fit(stride):
    text = StdlibText(train=False, block_size=100, stride=stride)
    step = stride or 100
    assert (len(text) - 1) * step + 101 <= len(text.text) < len(text) * step + 101
    assert text[len(text) - 1][1].shape == (100,)
    with pytest.raises(IndexError, match="out of range"):
        text[len(text)]


def test_text_batches_are_what_collating_samples_gives():
    text = StdlibText(train=False, block_size=16)
    indices = [5, 0, len(text) - 1, -1]
    whole = text.__getbatch__(indices)
    assert [part.tolist() for part in whole] == [[text[i][k].tolist() for i in indices] for k in (0, 1)]
    with pytest.raises(IndexError, match="out of range"):
        text.__getbatch__([len(text)])


def test_text_is_encoded_and_decoded():
    text = StdlibText(train=False)
    assert text.vocab_size == len(text.vocabulary) == 96
    line = "def f(x):\n    return x ** 2  # squared~\n"
    assert text.decode(text.encode(line)) == line
    assert text.decode(text.encode("\té\x00😀")) == "    ???"
    assert text.decode(text.encode(text.vocabulary).tolist()) == text.vocabulary


def test_held_out_modules_are_not_in_the_training_text():
    train, held_out = StdlibText(), StdlibText(train=False)
    assert 0.05 < len(held_out.text) / len(train.text) < 0.2
    assert "class ArgumentParser" in train.text
    assert "class ArgumentParser" not in held_out.text
    assert "class TextCalendar" in held_out.text
    assert "class TextCalendar" not in train.text


def test_text_refuses_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        StdlibText(block_size=0)
    with pytest.raises(ValueError, match="longer than the text"):
        StdlibText(train=False, block_size=10**9)


def test_text_is_read_from_a_zipped_library(tmp_path, monkeypatch):
    expected = StdlibText(train=False).text
    archive = tmp_path / f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    stdlib = text_module.sysconfig.get_path("stdlib")
    with zipfile.ZipFile(archive, "w") as file:
        for name in text_module.HELD_OUT:
            file.write(f"{stdlib}/{name}.py", f"{name}.py")
    monkeypatch.setattr(text_module.sysconfig, "get_path", lambda name: str(tmp_path / "none"))
    monkeypatch.setattr(sys, "path", [str(archive)])
    assert StdlibText(train=False).text == expected


def test_a_library_without_source_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(RuntimeError, match=r"needs the source .* modules have none in .*install the full library"):
        StdlibText()


def test_text_does_not_take_the_users_own_modules(tmp_path, monkeypatch):
    (tmp_path / "calendar.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    assert "raise SystemExit" not in StdlibText(train=False).text

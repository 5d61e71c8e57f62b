"""What pytest has collected is out of the garbage collector's sight, but for the tensors of the test modules."""

import gc

import rushlight

HERE = rushlight.ones(3)


def test_only_what_is_ours_is_walked():
    assert gc.get_freeze_count() > 10_000
    assert any(o is HERE for o in gc.get_objects())
    assert not any(o is globals() for o in gc.get_objects())

"""Where a rank is, seen from another thread of it."""

import sys
import threading
import types

import rushlight_distributed.guard as guard


def test_what_is_no_frame_ends_the_walk(monkeypatch):
    """CPython 3.11 once gave a function for an outer frame, and the thread that watches died."""
    here = sys._getframe()
    assert guard._main_frames()[1:3] == [here, here.f_back]
    monkeypatch.setattr(sys, "_current_frames", lambda: {threading.main_thread().ident: lambda: 0})
    assert guard._main_frames() == []
    assert guard._trace_to([]) is None


def test_a_trace_ends_where_the_main_thread_is():
    found = []
    watcher = threading.Thread(target=lambda: found.append(guard._trace_to(guard._main_frames())))
    watcher.start()
    watcher.join()
    (trace,) = found
    assert isinstance(trace, types.TracebackType)
    while trace.tb_next is not None:
        trace = trace.tb_next
    assert trace.tb_frame.f_code.co_filename == threading.__file__

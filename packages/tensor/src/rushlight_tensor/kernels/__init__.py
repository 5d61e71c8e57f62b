"""Fast paths on arrays: C and CUDA text, and the NumPy code that is their reference and their fallback.

Nothing here knows tensors.  Each family is one module of functions on NumPy arrays (`norm.py`, `softmax.py`, ...), one
readable C file under `c/`, and where it applies one CUDA file under `cuda/`.  A function decides by what it is given: a
C kernel for contiguous float32 arrays, NumPy for everything else and wherever there is no compiler.

Importing these modules compiles nothing, loads nothing and starts no thread; the first call that wants a kernel does.
"""

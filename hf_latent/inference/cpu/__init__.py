"""What kernels for the CPU are made with (Numba, without the interpreter's lock), eight rows of a batch at a time (see `simd`).

Compiled code is cached on disk, so that only the first process after an installation compiles.
"""

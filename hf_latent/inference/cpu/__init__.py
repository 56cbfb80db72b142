"""The algorithms compiled for the CPU (Numba, without the interpreter's lock), one sentence at a time.

They compute what `hf_latent.inference.reference` specifies, on float64 scores `(n, n + 1)` of one sentence. Compiled code
is cached on disk, so that only the first process after an installation compiles.
"""

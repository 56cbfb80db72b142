"""The algorithms compiled for the CPU (Numba, without the interpreter's lock), eight sentences at a time (see `lanes`).

They compute what `hf_latent.inference.reference` specifies, in float64, on batches of scores `(batch, n, n + 1)` in float32 or
float64 (see `batch`). Compiled code is cached on disk, so that only the first process after an installation compiles.
"""

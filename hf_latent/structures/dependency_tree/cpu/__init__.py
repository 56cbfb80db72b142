"""The algorithms on trees compiled for the CPU, eight sentences at a time.

They compute what the `reference` specifies, in float64, on batches of scores `(batch, n, n + 1)` in float32 or float64 (see
`operations`).
"""

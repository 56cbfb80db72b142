"""The algorithms, on plain tensors. `operators` is the one door; nothing outside this folder goes past it."""

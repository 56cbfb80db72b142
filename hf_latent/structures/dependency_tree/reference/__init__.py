"""The readable specification of every algorithm: vectorized PyTorch, float64, any device.

Faster implementations are tested against this one. Every function here takes checked input (see
`hf_latent.structures.dependency_tree.operators`, the door through which all callers come) and computes on plain tensors.
"""

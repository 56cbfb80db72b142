"""The readable specification of every algorithm on trees: vectorized PyTorch, float64, any device.

Faster implementations are tested against this one. Every function here takes checked input, as `hf_latent.inference.dispatch`
hands it on.
"""

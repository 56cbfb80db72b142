"""The algorithms, on plain tensors.

`operators` is the door to those on trees. Structures of all kinds use `active_set` (projections with nothing but an argmax) and
`checks` besides.
"""

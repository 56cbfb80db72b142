"""The words of a text, by any encoder: what all models of this package stand on."""

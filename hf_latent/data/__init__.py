"""Readers that make a `datasets.Dataset` of files: treebanks in CoNLL-U, the Stanford Sentiment Treebank, ListOps."""

from hf_latent.data.conllu import load_conllu
from hf_latent.data.listops import load_listops
from hf_latent.data.sentiment_trees import load_sentiment_trees

__all__ = ["load_conllu", "load_listops", "load_sentiment_trees"]

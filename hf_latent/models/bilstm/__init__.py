from hf_latent.models.bilstm.configuration_bilstm import BiLstmConfig
from hf_latent.models.bilstm.modeling_bilstm import BiLstmModel
from hf_latent.models.bilstm.word_vectors import read_word_vectors, word_tokenizer

__all__ = ["BiLstmConfig", "BiLstmModel", "read_word_vectors", "word_tokenizer"]

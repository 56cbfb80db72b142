"""transformers' own tests of a model, on ours, with encoders of four kinds (two of them in `make test-slow`)."""

import re
import unittest
import unittest.mock
from typing import Any

import pytest
import torch
import transformers_tests
from transformers import BertConfig, DebertaV2Config, DistilBertConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from hf_latent import (
    BiLstmConfig,
    CRFConfig,
    LatentSelectionConfig,
    LatentTreeConfig,
    LatentTreeForDependencyParsing,
    LatentTreeForPairClassification,
    LatentTreeForSequenceClassification,
    SegmentConfig,
)
from hf_latent.models import registered_models
from hf_latent.models.registry import RegisteredModel
from hf_latent.models.words.modeling_words import WordsModel

common = transformers_tests.test_modeling_common()

SELECTORS = [one for one in registered_models().values() if one.config_class is LatentSelectionConfig]
SEGMENT_TAGGERS = [one for one in registered_models().values() if one.config_class is SegmentConfig]
TAGGERS = [one for one in registered_models().values() if one.config_class is CRFConfig]
MODELS = [one for one in registered_models().values() if one.config_class is LatentTreeConfig]


def families(models: list[RegisteredModel]) -> dict[str, type[PreTrainedModel]]:
    """Of transformers' lists of models, such as MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES, the names and what is ours."""
    return {
        re.sub("(?<!^)([A-Z])", r"_\1", one.auto_class.__name__.removeprefix("Auto")).upper()
        + "_MAPPING_NAMES": one.model_class
        for one in models
        if one.is_default
    }


class ModelTester:
    """Small models and inputs, as transformers' tests ask for them."""

    batch_size, seq_length, num_hidden_layers = 7, 9, 2
    is_training = True

    def __init__(self, encoder: PreTrainedConfig, config_class: type[PreTrainedConfig]) -> None:
        self.encoder, self.config_class = encoder, config_class
        self.hidden_size, self.num_attention_heads = 32, 4

    def get_config(self) -> PreTrainedConfig:
        own: dict[str, Any] = {"num_labels": 3}
        if self.config_class is LatentTreeConfig:
            own |= {"arc_size": 16, "decoder_size": 16}
        if self.config_class is SegmentConfig:
            own = {"id2label": {0: "O", 1: "B-x", 2: "I-x"}, "longest_span": 3, "span_size": 16}
        return self.config_class(text_config=self.encoder.to_dict(), **own)

    def prepare_config_and_inputs_for_common(self):
        shape = (self.batch_size, self.seq_length)
        # Words of one token and of two, special tokens, and two sentences for those who need them.
        word_ids = torch.tensor([-1, 0, 1, 1, 2, -1, 3, 4, -1]).expand(shape).clone()
        inputs = {"input_ids": torch.randint(3, 90, shape), "attention_mask": torch.ones(shape).long(), "word_ids": word_ids}
        return self.get_config(), inputs


class ModelTests(common.ModelTesterMixin):
    all_model_classes = tuple(one.model_class for one in MODELS)
    families = families(MODELS)
    additional_model_inputs = ["word_ids"]
    test_can_init_all_missing_weights_before_2023 = True
    _is_composite = True
    encoder: PreTrainedConfig
    config_class: type[PreTrainedConfig] = LatentTreeConfig

    def setUp(self) -> None:
        self.model_tester = ModelTester(self.encoder, self.config_class)
        # Among transformers' own, classes are told apart by these lists.
        for names, model_class in self.families.items():
            known = unittest.mock.patch.dict(
                getattr(modeling_auto, names), {model_class.config_class.model_type: model_class.__name__}
            )
            known.start()
            self.addCleanup(known.stop)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        if model_class is LatentTreeForDependencyParsing and return_labels:
            heads = torch.arange(5).expand(len(inputs_dict["input_ids"]), 5)  # of the five words, each from the one before
            return {**inputs_dict, "heads": heads, "relations": torch.zeros_like(heads)}
        family = LatentTreeForSequenceClassification if model_class is LatentTreeForPairClassification else model_class
        return super()._prepare_for_class(inputs_dict, family, return_labels)

    def test_load_with_mismatched_shapes(self):
        """With another vocabulary than its own, a model does not know where words begin; here, each token is one."""

        def find_words(model, input_ids, attention_mask=None):
            return torch.arange(input_ids.shape[1]).expand_as(input_ids)

        with unittest.mock.patch.object(WordsModel, "find_words", find_words):
            super().test_load_with_mismatched_shapes()


class TestOverBert(ModelTests, unittest.TestCase):
    encoder = BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=50,
    )


class TestTaggersOverBert(ModelTests, unittest.TestCase):
    encoder, config_class = TestOverBert.encoder, CRFConfig
    all_model_classes = tuple(one.model_class for one in TAGGERS)
    families = families(TAGGERS)


class TestSegmentsOverBert(ModelTests, unittest.TestCase):
    encoder, config_class = TestOverBert.encoder, SegmentConfig
    all_model_classes = tuple(one.model_class for one in SEGMENT_TAGGERS)
    families = families(SEGMENT_TAGGERS)

    @unittest.skip("It allows no -inf in outputs; test_segment_tagging.py does this.")
    def test_batching_equivalence(self):
        pass


class TestSelectorsOverBert(ModelTests, unittest.TestCase):
    encoder, config_class = TestOverBert.encoder, LatentSelectionConfig
    all_model_classes = tuple(one.model_class for one in SELECTORS)
    families = families(SELECTORS)

    @unittest.skip("It is loaded there by `AutoModel` as well, and has no model without a task.")
    def test_load_with_mismatched_shapes(self):
        pass


@pytest.mark.slow
class TestOverDistilBert(ModelTests, unittest.TestCase):
    encoder = DistilBertConfig(vocab_size=99, dim=32, n_layers=2, n_heads=4, hidden_dim=37, max_position_embeddings=50)
    test_resize_position_embeddings = True


@pytest.mark.slow
class TestOverDebertaV2(ModelTests, unittest.TestCase):
    encoder = DebertaV2Config(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=50,
    )


class TestOverBiLstm(ModelTests, unittest.TestCase):
    encoder = BiLstmConfig(vocab_size=99, embedding_size=32, hidden_size=32, num_hidden_layers=2)
    has_attentions = False

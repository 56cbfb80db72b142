"""A model that is registered where it is defined is known everywhere."""

import inspect

import pytest
import transformers

import hf_latent
from hf_latent import modeling_hf_latent, models
from hf_latent.model_cards.card import task_of
from hf_latent.models import registered_models

MODELS = registered_models()


def test_all_models_are_registered():
    assert set(MODELS) == {name for name in hf_latent.__all__ if "Model" in name or ("For" in name and "Collator" not in name)}


@pytest.mark.parametrize("name", MODELS)
def test_a_registered_model_is_exported_carried_and_known(name):
    known = MODELS[name]
    for own_class in (known.model_class, known.config_class):
        for place in (hf_latent, models, modeling_hf_latent):
            assert getattr(place, own_class.__name__) is own_class
            assert own_class.__name__ in place.__all__
        assert own_class.__module__ == modeling_hf_latent.__name__
        assert inspect.getsourcefile(inspect.getmodule(own_class)) == modeling_hf_latent.__file__
    assert known.model_class._auto_class == known.auto_class.__name__
    assert transformers.AutoConfig.for_model(known.config_class.model_type).__class__ is known.config_class
    found = known.auto_class._model_mapping[known.config_class]
    assert known.model_class in (found if isinstance(found, tuple) else (found,))


def test_the_default_of_an_auto_class_comes_first():
    for known in MODELS.values():
        same = [one for one in MODELS.values() if (one.auto_class, one.config_class) == (known.auto_class, known.config_class)]
        assert sum(one.is_default for one in same) == 1
        if known.is_default:
            found = known.auto_class._model_mapping[known.config_class]
            assert (found[0] if isinstance(found, tuple) else found) is known.model_class


@pytest.mark.parametrize("name", [name for name, known in MODELS.items() if known.task is not None])
def test_its_task_is_one_of_the_hub(name, bilstm):
    encoder, tokenizer = bilstm
    labels = {"id2label": {0: "O", 1: "B-x", 2: "I-x"}} if MODELS[name].config_class is hf_latent.SegmentConfig else {}
    model = MODELS[name].model_class.from_encoder(encoder, tokenizer, **labels)
    assert task_of(model).pipeline in {"feature-extraction", *transformers.pipelines.SUPPORTED_TASKS}


@pytest.fixture
def bilstm():
    tokenizer = hf_latent.models.bilstm.word_tokenizer(["a", "film"])
    return hf_latent.BiLstmModel(hf_latent.BiLstmConfig(vocab_size=len(tokenizer), embedding_size=4, hidden_size=4)), tokenizer

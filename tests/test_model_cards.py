"""Model cards say what a model is."""

import pytest
from huggingface_hub import ModelCard
from transformers import BertModel, TrainingArguments

from hf_latent import (
    LatentTreeForPairClassification,
    LatentTreeForSequenceClassification,
    LatentTreeForTokenClassification,
)
from hf_latent.model_cards import write_model_card


@pytest.mark.parametrize(
    "model_class", [LatentTreeForSequenceClassification, LatentTreeForPairClassification, LatentTreeForTokenClassification]
)
def test_a_card_and_its_picture(tiny_bert: BertModel, wordpiece, tmp_path, model_class):
    model = model_class.from_encoder(
        tiny_bert, wordpiece, num_labels=2, estimator="spigot", estimator_options={"step_size": 0.5}
    )
    path = write_model_card(
        tmp_path,
        model,
        wordpiece,
        "someone/trees",
        "a good film",
        dataset="stanfordnlp/sst2",
        metrics={"accuracy": 0.83216},
        training=TrainingArguments(tmp_path, learning_rate=3e-4),
        base_model="google-bert/bert-base-uncased",
    )
    text = path.read_text(encoding="utf-8")
    card = ModelCard.load(path)
    assert card.data.pipeline_tag in ("text-classification", "token-classification")
    assert card.data.base_model == "google-bert/bert-base-uncased"
    assert card.data.eval_results[0].metric_value == 0.8322
    assert card.data.eval_results[0].dataset_type == "stanfordnlp/sst2"
    for part in ("| its `step_size` | `0.5` |", "| learning_rate | 0.0003 |", "| accuracy | 0.8322 |", "more than 40 tokens"):
        assert part in text, part
    assert "$" not in text
    assert (tmp_path / "tree.svg").read_text(encoding="utf-8").startswith("<svg")
    blocks = text.split("```python\n")[1].split("```")[0]
    compile(blocks, "card", "exec")


def test_a_card_with_little_to_say(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=None)
    text = write_model_card(tmp_path, model, wordpiece, "baseline", "a good film").read_text(encoding="utf-8")
    assert "tree.svg" not in text
    assert "baseline without a latent tree" in text
    assert "none were given" in text
    assert ModelCard(text).data.eval_results is None


def test_no_card_for_others(tiny_bert, wordpiece, tmp_path):
    with pytest.raises(ValueError, match=r"must be a latent-tree model, one of .* got a BertModel"):
        write_model_card(tmp_path, tiny_bert, wordpiece, "bert", "a film")

"""Model cards say what a model is."""

import ast
import os
import re
from pathlib import Path

import pytest
from hub_stub import problems
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_training import trainer_of
from transformers import BertModel, TrainingArguments

from hf_latent import (
    BiLstmModel,
    LatentTreeForDependencyParsing,
    LatentTreeForPairClassification,
    LatentTreeForSequenceClassification,
)
from hf_latent.diagnostics import Reliance
from hf_latent.model_cards import ModelCardCallback, write_model_card
from hf_latent.model_cards.markdown import LONGEST_EXAMPLE, LONGEST_NAME
from hf_latent.models import registered_models
from hf_latent.trees.drawing import shown

MODELS = registered_models()


@pytest.mark.parametrize("name", [name for name, known in MODELS.items() if known.task and known.task.kind == "latent tree"])
def test_a_card_and_its_picture(tiny_bert: BertModel, wordpiece, tmp_path, name):
    known = MODELS[name]
    model = known.model_class.from_encoder(
        tiny_bert, wordpiece, num_labels=2, estimator="spigot", estimator_options={"step_size": 0.5}
    )
    path = write_model_card(
        tmp_path,
        model,
        wordpiece,
        "someone/trees",
        ["a good film", "a film"] if known.task.num_texts == 2 else "a good film",
        dataset="stanfordnlp/sst2",
        metrics={"accuracy": 0.83216},
        training=TrainingArguments(tmp_path, learning_rate=3e-4),
        base_model="google-bert/bert-base-uncased",
    )
    text = path.read_text(encoding="utf-8")
    card = ModelCard.load(path)
    assert card.data.pipeline_tag == known.task.pipeline
    assert card.data.base_model == "google-bert/bert-base-uncased"
    assert card.data.eval_results[0].metric_value == 0.8322
    assert card.data.eval_results[0].dataset_type == "stanfordnlp/sst2"
    for part in ("| its `step_size` | `0.5` |", "| learning_rate | 0.0003 |", "| accuracy | 0.8322 |", "at most 40 tokens"):
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
    assert "No figures were given" in text
    assert ModelCard(text).data.eval_results is None


@pytest.mark.parametrize("metrics", [None, {"accuracy": 0.75}])
def test_whether_the_tree_matters(bilstm_model, tmp_path, metrics):
    """A sentence and a table among the results, where it was measured; all else is as without."""
    others = {"random": 0.5, "flat": 0.625, "left_branching": 0.25, "right_branching": 0.125, "shuffled": 0.375}
    worse, not_worse = "accuracy is worse by 0.2500.", "is no worse: it does without its own."
    sections = [
        (Reliance(0.75, others, "accuracy"), worse),
        (Reliance(0.75, others, "my `loss`", greater_is_better=False), rf"my \`loss\` {not_worse}"),
        (Reliance(0.5, {"random": 0.49999}, "f1"), not_worse),
    ]
    for found, sentence in sections:
        text = write_model_card(tmp_path, *bilstm_model, "trees", "the film", metrics=metrics, reliance=found).read_text()
        plain = write_model_card(tmp_path, *bilstm_model, "trees", "the film", metrics=metrics).read_text()
        assert problems(text) == []
        (start,) = [place for place in range(len(text)) if text.startswith("With random trees in place", place)]
        section = text[start : text.index("## Limits")]
        assert sentence in section
        assert text.replace(section, "").replace("\n\n\n", "\n\n") == plain.replace("\n\n\n", "\n\n")
        assert text[:start].rstrip().endswith("| accuracy | 0.7500 |" if metrics else "No figures were given.")
        assert len(re.findall(r"^\| .* with .* \| 0\.\d{4} \|$", section, re.MULTILINE)) == len(found.scores)
    assert ModelCard(text).data.eval_results == ModelCard(plain).data.eval_results


def test_no_card_for_others(tiny_bert, wordpiece, tmp_path):
    with pytest.raises(ValueError, match=r"must be one of .* got a BertModel"):
        write_model_card(tmp_path, tiny_bert, wordpiece, "bert", "a film")


def test_cards_by_the_trainer(tiny_bert, wordpiece, tmp_path):
    """With the figures of the model that it ends with, which is the best and not the last."""
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="marginals")
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "learning_rate": 0.1}
    trainer = trainer_of(model, wordpiece, tmp_path, metric_for_best_model="loss", greater_is_better=False, **options)
    trainer.add_callback(ModelCardCallback(trainer, "a very good film .", license="mit"))
    trainer.train()
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "mit"
    assert card.data.eval_results[0].dataset_split == "validation"
    assert card.data.eval_results[0].metric_value == pytest.approx(trainer.state.best_metric, abs=1e-4)
    assert "| learning_rate | 0.1 |" in card.text
    assert "runtime" not in card.text
    trainer.evaluate()
    trainer.create_model_card(tasks="text-classification")  # as `trainer.push_to_hub` does
    assert ModelCard.load(tmp_path / "README.md").data.eval_results == card.data.eval_results


def test_the_base_model_is_known_from_where_it_was_loaded(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2)
    for name, found in (("google-bert/bert-base-uncased", "google-bert/bert-base-uncased"), (str(tmp_path), None), ("", None)):
        model.config.text_config.name_or_path = name
        card = ModelCard.load(write_model_card(tmp_path, model, wordpiece, "trees", "a good film"))
        assert card.data.base_model == found


def test_a_trainer_without_a_tokenizer(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2)
    trainer = trainer_of(model, wordpiece, tmp_path)
    trainer.processing_class = None
    with pytest.raises(ValueError, match="pass it `processing_class=tokenizer`"):
        ModelCardCallback(trainer, "a film")


def test_metrics_of_all_kinds_and_of_several_evaluation_sets(tiny_bert, wordpiece, tmp_path):
    """Dictionaries (as seqeval has them), NaN, and two sets, of which the best model is chosen by one."""
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="marginals")
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "num_train_epochs": 2}
    trainer = trainer_of(model, wordpiece, tmp_path, metric_for_best_model="one_loss", **options)
    trainer.eval_dataset = {"one": trainer.eval_dataset, "two": trainer.eval_dataset}
    trainer.compute_metrics = lambda _: {"LOC": {"f1": 0.5, "number": 2}, "nothing": float("nan"), "text": "long"}
    trainer.add_callback(ModelCardCallback(trainer, "a very good film ."))
    trainer.train()
    card = ModelCard.load(tmp_path / "README.md")
    names = {result.metric_type for result in card.data.eval_results}
    assert names == {f"{split}_{name}" for split in ("one", "two") for name in ("loss", "LOC_f1", "LOC_number")}
    assert problems(str(card)) == []


def test_what_a_card_says_is_what_was_said(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2)
    trainer = trainer_of(model, wordpiece, tmp_path)
    callback = ModelCardCallback(trainer, "a film")
    trainer.add_callback(callback)
    trainer.evaluate()
    trainer.predict(trainer.eval_dataset)
    trainer.evaluate(metric_key_prefix="test")
    assert set(callback.metrics) == {"loss"}
    trainer.create_model_card()
    assert ModelCard.load(tmp_path / "README.md").data.license is None
    trainer.create_model_card(license="mit", language="de", tags="films", dataset="imdb", finetuned_from="bert-base-uncased")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.language, data.datasets, data.base_model) == ("mit", "de", ["imdb"], "bert-base-uncased")
    assert "films" in data.tags
    trainer.hub_model_id = "someone/out"  # as `trainer.push_to_hub` finds it out
    trainer.create_model_card()
    assert 'model="someone/out"' in (tmp_path / "README.md").read_text()
    known = write_model_card(tmp_path, model, wordpiece, "trees", "a film", supervised=True).read_text()
    assert "Gold trees were learned from" in known
    assert "No tree was shown" not in known


def test_an_example_that_the_model_does_not_take(tiny_bert, wordpiece, tmp_path):
    pairs = LatentTreeForPairClassification.from_encoder(tiny_bert, wordpiece, num_labels=2)
    with pytest.raises(ValueError, match="`example` must be one sentence, or two for a model of pairs"):
        write_model_card(tmp_path, pairs, wordpiece, "pairs", "a film")


def test_a_card_that_fails_does_not_lose_the_run(tiny_bert, wordpiece, tmp_path, caplog):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2)
    trainer = trainer_of(model, wordpiece, tmp_path, max_steps=1)
    trainer.add_callback(ModelCardCallback(trainer, ["two", "sentences"]))
    trainer.train()
    assert "The model card could not be written" in caplog.text


NASTY = [
    'my "best" model',
    "a](x) <script>alert(1)</script> [b",
    "`code` ``more`` $name ${name}",
    "a\n---\nlicense: mit\n# forged\n```\n<b>",
    "\\",
    "a | b |\n|:--|\n",
    "*a* _b_ __c__ ~~d~~ &lt; &#60; snake_case #",
    "- {yaml: [1, 2]} : # & * ! % @ ' \u2028 \x85 \x00 \x1b[2J",
    "\u202eevil\u202c می\u200cخواهم 漢字",
    "yes",
    "1.0",
    "x" * 10**5,
]


def inline(token) -> str:
    """What a reader sees of a piece of Markdown."""
    return "".join(child.content if child.type in ("text", "code_inline", "text_special") else "\n" for child in token.children)


@pytest.fixture
def bilstm_model(tmp_path):
    (tmp_path / "v.txt").write_text("the 1 2\nfilm 3 4\n")
    encoder, tokenizer = BiLstmModel.from_word_vectors(tmp_path / "v.txt", hidden_size=4)
    options = {"num_labels": 2, "estimator": "marginals", "arc_size": 4, "decoder_size": 4}
    return LatentTreeForSequenceClassification.from_encoder(encoder, tokenizer, **options), tokenizer


def check_card(folder, model, tokenizer, name: str, example: str) -> None:
    """Each name stands in the card as text, the picture is shown, the code is valid, and nothing is HTML."""
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True}).enable("table")
    path = write_model_card(
        folder,
        model,
        tokenizer,
        name,
        example,
        dataset=name,
        metrics={name: 0.5, "accuracy": 0.25},
        split=name,
        training={"learning_rate": name},
        base_model=name,
        tags=[name],
    )
    card = ModelCard.load(path)
    assert problems(path.read_text(encoding="utf-8")) == []
    assert card.data.license is None
    assert {result.metric_value for result in card.data.eval_results} == {0.5, 0.25}
    assert len(path.read_text(encoding="utf-8")) < 20_000
    tokens = markdown.parse(card.text)
    inlines = [token for token in tokens if token.type == "inline"]
    kinds = [token.type for token in tokens] + [child.type for token in inlines for child in token.children]
    assert not {"html_block", "html_inline", "hr", "link_open", "em_open", "strong_open"} & set(kinds)
    line = shown(" ".join(name.split()), LONGEST_NAME).strip()
    headings = [inline(tokens[place + 1]).strip() for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings == [line, "How to use it", "The latent tree", "Training", "Results", "Limits", "Citation"]
    (image,) = [child for token in inlines for child in token.children if child.type == "image"]
    assert image.attrs["src"] == "tree.svg"
    assert inline(image).strip() == shown(" ".join(example.split()), LONGEST_EXAMPLE).strip()
    cells = [inline(tokens[place + 1]).strip() for place, token in enumerate(tokens) if token.type == "td_open"]
    assert cells.count(line) == 3  # the data, a training argument, a metric
    code = next(token.content for token in tokens if token.type == "fence" and token.info == "python")
    strings = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert code.replace("\n", "").isprintable()
    if len(name) <= LONGEST_NAME:
        assert strings.count(name) == 2
    if len(example) <= LONGEST_EXAMPLE:
        assert strings.count(example) >= 2


@pytest.mark.parametrize("text", NASTY)
def test_names_and_sentences_are_shown_as_they_are(bilstm_model, tmp_path, text):
    check_card(tmp_path, *bilstm_model, f"x{text}", f"the {text}")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text("ab_1 `*[]()<>\\|#!&;~-=+:\n\"'$\t\x00\x85\u2028", max_size=12), st.text(st.characters(exclude_categories=["Cs"]))
)
def test_any_name_is_shown_as_it_is(bilstm_model, tmp_path, name, example):
    check_card(tmp_path, *bilstm_model, f"x{name}x", f"the {example}")


def test_a_card_that_cannot_be_written_leaves_the_old_one(bilstm_model, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("precious")
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_model_card(tmp_path / "out", *bilstm_model, "a", "the film")
    assert (tmp_path / "out" / "README.md").read_text() == "precious"
    assert os.listdir(tmp_path / "out") == ["README.md"]


CARDS = sorted((Path(__file__).parents[2] / "model_cards").glob("*/README.md"))


@pytest.mark.parametrize("path", CARDS, ids=[path.parent.name for path in CARDS])
def test_the_cards_of_the_models_of_our_experiments(path):
    text = path.read_text(encoding="utf-8")
    assert problems(text) == []
    assert (path.with_name("tree.svg").is_file()) == ("(tree.svg)" in text) == (not path.parent.name.endswith("-none"))


def test_the_card_of_a_parser(tiny_bert, wordpiece, tmp_path):
    """Says that its trees were learned from trees, and how it is used."""
    model = LatentTreeForDependencyParsing.from_encoder(tiny_bert, wordpiece, relations=["root", "det", "amod"])
    path = write_model_card(tmp_path, model, wordpiece, "someone/parser", "a good film", metrics={"las": 0.87654})
    text, card = path.read_text(encoding="utf-8"), ModelCard.load(path)
    assert card.data.pipeline_tag == "token-classification"
    assert card.data.eval_results[0].task_name == "Dependency Parsing"
    assert card.data.eval_results[0].metric_value == 0.8765
    for part in (
        'pipeline("dependency-parsing", model="someone/parser")("a good film")',
        "Gold trees were learned from",
        "| 3, by a",
        "dozat-manning",
    ):
        assert part in text, part
    for part in ("estimator |", "do not read them as syntax", "latent-tree-parsing", "the decoder sees", "SPIGOT"):
        assert part not in text, part
    assert ">root</text>" in (tmp_path / "tree.svg").read_text(encoding="utf-8")

"""The parser in the Trainer, in its pipeline, and by `parse`: always the same trees."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments, pipeline

from hf_latent import (
    DataCollatorForLatentTrees,
    LatentTreeForDependencyParsing,
    LatentTreeForTokenClassification,
    encode_words,
    parse,
)
from hf_latent.training import encoder_parameter_groups, parsing_metrics
from hf_latent.trees import Tree, parsing_scores_of_trees, read_conllu, read_conllu_sentences, to_conllu, write_conllu

RELATIONS = ["amod", "root", "det", "punct"]
GOLD = [
    Tree(("a", "good", "film", "."), (3, 3, 0, 3), relations=("det", "amod", "root", "punct")),
    Tree(("not", "very", "bad"), (3, 3, 0), relations=("amod", "amod", "root")),
    Tree(("unwatchable",), (0,), relations=("root",)),
    Tree(("a", "film", ",", "a", "bad", "film"), (2, 0, 6, 6, 6, 2), relations=("det", "root", "punct", "det", "amod", "amod")),
]
WORDS = [list(tree.words) for tree in GOLD]


@pytest.fixture
def model(tiny_bert, wordpiece):
    torch.manual_seed(2)
    model = LatentTreeForDependencyParsing.from_encoder(
        tiny_bert, wordpiece, relations=RELATIONS, arc_size=20, relation_size=20
    )
    torch.nn.init.normal_(model.relation_scorer.bilinear)
    return model


def columns(model, tokenizer) -> Dataset:
    numbers = [[model.config.label2id[relation] for relation in tree.relations] for tree in GOLD]
    heads = [tree.heads for tree in GOLD]
    return Dataset.from_dict(encode_words(tokenizer, WORDS, heads=heads, relations=numbers))


def trainer_of(model, tokenizer, folder, **options) -> Trainer:
    groups = encoder_parameter_groups(model, learning_rate=2e-2, encoder_learning_rate=1e-3)
    data = columns(model, tokenizer)
    given = {"report_to": "none", "use_cpu": True, "per_device_eval_batch_size": 2, "disable_tqdm": True, "save_strategy": "no"}
    return Trainer(
        model,
        TrainingArguments(folder, **given | options),
        DataCollatorForLatentTrees(tokenizer),
        data,
        data,
        processing_class=tokenizer,
        compute_metrics=parsing_metrics(model.config.id2label),
        optimizer_cls_and_kwargs=(torch.optim.AdamW, {"params": groups}),
    )


def test_trained_and_evaluated_by_the_stock_trainer(model, wordpiece, tmp_path):
    """With nothing said of label names; and the best model by its scores."""
    epochs = {"num_train_epochs": 40, "eval_strategy": "epoch", "save_strategy": "best", "warmup_steps": 4}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "las"}
    trainer = trainer_of(model, wordpiece, tmp_path, **epochs, **best)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_las"] > max(0.8, before["eval_las"])
    assert after["eval_loss"] < before["eval_loss"]
    trees = parse(model, wordpiece, WORDS)
    expected = parsing_scores_of_trees(trees, GOLD)
    assert {name: after[f"eval_{name}"] for name in expected} == pytest.approx(expected)
    assert after["eval_las"] == max(entry["eval_las"] for entry in trainer.state.log_history if "eval_las" in entry)


def test_two_learning_rates(model, wordpiece, tmp_path):
    groups = encoder_parameter_groups(model, learning_rate=1e-3, encoder_learning_rate=5e-5, weight_decay=0.01)
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert rate_of[id(parameter)] == (5e-5 if name.startswith("latent_tree.encoder.") else 1e-3), name
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    trainer = trainer_of(model, wordpiece, tmp_path, max_steps=4, warmup_steps=2)
    trainer.train()
    assert {group["initial_lr"] for group in trainer.optimizer.param_groups} == {2e-2, 1e-3}
    with pytest.raises(ValueError, match="`model` must be a latent-tree model, which has an encoder, got a Linear"):
        encoder_parameter_groups(torch.nn.Linear(1, 1), 1e-3, 1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_same_tree_however_it_is_asked_for(model, wordpiece, tmp_path, side, batch_size):
    wordpiece.padding_side = side
    model.save_pretrained(tmp_path / "model")
    wordpiece.save_pretrained(tmp_path / "model")
    expected = [parse(model, wordpiece, [words])[0] for words in WORDS]
    assert [(tree.heads, tree.relations) for tree in parse(model, wordpiece, WORDS, batch_size=batch_size)] == [
        (tree.heads, tree.relations) for tree in expected
    ]
    found = pipeline("dependency-parsing", model=str(tmp_path / "model"), device="cpu")(WORDS, batch_size=batch_size)
    for one, tree in zip(found, expected, strict=True):
        assert (one["words"], one["heads"], one["relations"]) == (list(tree.words), list(tree.heads), list(tree.relations))
        assert one["probabilities"] == pytest.approx(tree.weights, abs=1e-5)
    trainer = trainer_of(model, wordpiece, tmp_path)
    heads, relations = trainer.predict(trainer.eval_dataset).predictions
    for row, tree in enumerate(expected):
        n = len(tree.words)
        assert tuple(heads[row, :n]) == tree.heads
        assert tuple(RELATIONS[number] for number in relations[row, :n]) == tree.relations
        assert (heads[row, n:] == -100).all()


def test_what_the_pipeline_says(model, wordpiece, tmp_path):
    parser = pipeline("dependency-parsing", model=model, tokenizer=wordpiece, device="cpu")
    found = parser("a very unwatchable film.")
    assert json.loads(json.dumps(found)) == found
    assert sorted(found) == ["heads", "offsets", "other_arcs", "probabilities", "relations", "words"]
    assert [("a very unwatchable film.")[begin:end] for begin, end in found["offsets"]] == found["words"]
    tree = found["tree"]
    assert found["conllu"] == to_conllu(tree)
    assert [arc["label"] for arc in found["displacy"]["arcs"]] == [
        relation for head, relation in zip(tree.heads, tree.relations, strict=True) if head
    ]
    assert all(f">{relation}</text>" in tree.to_svg() for relation in found["relations"])
    assert parser("")["relations"] == []
    arcs = model.eval()(**wordpiece("a very unwatchable film.", return_tensors="pt")).arcs[0].detach()
    assert found["probabilities"] == pytest.approx(
        [float(arcs[word, head]) for word, head in enumerate(found["heads"])], abs=1e-5
    )
    plain = pipeline("latent-tree-parsing", model=model, tokenizer=wordpiece, device="cpu")("a very unwatchable film.")
    assert (plain["heads"], plain["weights"]) == (found["heads"], found["probabilities"])
    tagger = LatentTreeForTokenClassification.from_encoder(model.latent_tree.encoder, wordpiece)
    with pytest.raises(ValueError, match="needs a LatentTreeForDependencyParsing, got a LatentTreeForTokenClassification"):
        pipeline("dependency-parsing", model=tagger, tokenizer=wordpiece)
    with pytest.raises(TypeError, match="The pipeline 'dependency-parsing' has no option 'top_k'"):
        parser("a film", top_k=2)


def test_predictions_keep_the_rules_of_the_format(model, wordpiece, tmp_path):
    """Of the official validator: numbers in order, one root, no cycle, `root` there and nowhere else, all else as it was."""
    content = "".join(
        "# sent_id = 1\n1-2\tafilm\t_\t_\t_\t_\t_\t_\t_\t_\n"
        + "".join(f"{place}\t{word}\tlemma\tX\tX\tA=B\t_\t_\t_\tC=D\n" for place, word in enumerate(words, start=1))
        + "3.1\tgone\t_\t_\t_\t_\t_\t_\t1:dep\t_\n\n"
        for words in WORDS
    )
    (tmp_path / "in.conllu").write_text(content)
    sentences = read_conllu_sentences(tmp_path / "in.conllu")
    trees = parse(model, wordpiece, [sentence.words for sentence in sentences])
    write_conllu([one.with_tree(tree) for one, tree in zip(sentences, trees, strict=True)], tmp_path / "out.conllu")
    found = read_conllu(tmp_path / "out.conllu", single_root=True, relations=RELATIONS)
    assert [(tree.heads, tree.relations) for tree in found] == [(tree.heads, tree.relations) for tree in trees]
    for tree in found:
        assert [head == 0 for head in tree.heads] == [relation == "root" for relation in tree.relations]
    emptied = []
    for line in (tmp_path / "out.conllu").read_text().splitlines(keepends=True):
        fields = line.split("\t")
        emptied.append("\t".join([*fields[:6], "_", "_", *fields[8:]]) if len(fields) == 10 else line)
    assert "".join(emptied) == content


def test_relations_of_words_that_are_cut_off(wordpiece):
    found = encode_words(wordpiece, WORDS[0], heads=[3, 3, 0, 3], relations=[2, 0, 1, 3], max_length=4)
    assert (found["heads"], found["relations"]) == ([-100, -100], [2, 0])
    batch = DataCollatorForLatentTrees(wordpiece)([found, encode_words(wordpiece, ["bad"], heads=[0], relations=np.array([1]))])
    assert batch["relations"].tolist() == [[2, 0], [1, -100]]
    assert encode_words(wordpiece, WORDS[:2], relations=[None, [0, 0, 1]])["relations"] == [[-100] * 4, [0, 0, 1]]
    for wrong, message in ((["det"], "must be numbers from 0.*'det'"), ([-1], "is -1"), ([0, 1], "are 2, but it has 1 words")):
        with pytest.raises(ValueError, match=f"`relations` .*{message}"):
            encode_words(wordpiece, ["bad"], relations=wrong)
    of_pairs = encode_words(wordpiece, [[["a", "film"], ["bad"]]], relations=[[[2, 1], [1]]], max_length=5)
    assert of_pairs["relations"] == [[[2], [1]]]

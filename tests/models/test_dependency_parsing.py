"""The parser: heads and relations, learned from whole trees, parts of trees, and none."""

import json

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForTokenClassification, BertConfig, BertModel

from hf_latent import BiLstmConfig, BiLstmModel, DependencyTree, LatentTreeConfig, LatentTreeForDependencyParsing, parse
from hf_latent.layers import BiaffineRelationScorer, ScalarMix
from hf_latent.models.bilstm import word_tokenizer
from hf_latent.models.losses import tree_nll

RELATIONS = ["amod", "root", "det", "punct"]
SENTENCES = [["a", "good", "film", "."], ["not", "very", "bad"], ["unwatchable"], ["a", "film", ",", "a", "bad", "film"]]
HEADS = torch.tensor([[3, 3, 0, 3, -100, -100], [3, 3, 0, -100, -100, -100], [0, *[-100] * 5], [2, 0, 6, 6, 6, 2]])
LABELS = torch.tensor([[2, 0, 1, 3, -100, -100], [0, 0, 1, -100, -100, -100], [1, *[-100] * 5], [2, 1, 3, 2, 0, 0]])


@pytest.fixture
def encoder(tiny_bert) -> BertModel:
    torch.manual_seed(1)
    return BertModel(BertConfig(**{**tiny_bert.config.to_dict(), "num_hidden_layers": 3}))


@pytest.fixture
def model(encoder, wordpiece):
    torch.manual_seed(2)
    return awake(LatentTreeForDependencyParsing.from_encoder(encoder, wordpiece, relations=RELATIONS, arc_size=20))


def awake(model):
    """With scores that differ, as after training."""
    torch.nn.init.normal_(model.relation_scorer.bilinear)
    torch.nn.init.normal_(model.latent_tree.tree.scorer.bilinear)
    return model


def encoded(tokenizer, sentences=SENTENCES, side="right"):
    tokenizer.padding_side = side
    batch = tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
    word_ids = [[-1 if word is None else word for word in batch.word_ids(row)] for row in range(len(sentences))]
    return {**batch, "word_ids": torch.tensor(word_ids)}


# --- Layers


def test_relations_are_scored_as_written():
    torch.manual_seed(0)
    scorer = BiaffineRelationScorer(6, 13, relation_size=4)
    torch.nn.init.normal_(scorer.bilinear)
    words, heads = torch.randn(2, 3, 6), torch.tensor([[0, 3, 1], [2, 0, -100]])
    found = scorer(words, heads)
    assert found.shape == (2, 3, 13)
    for row, word in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):
        head = int(heads[row, word])
        dependent, governor = scorer.dependent(words[row, word]), scorer.head(words[row, head - 1] if head else scorer.root)
        expected = torch.einsum("k,krl,l->r", dependent, scorer.bilinear, governor)
        expected = expected + scorer.of_dependent(dependent) + scorer.of_head.weight @ governor
        torch.testing.assert_close(found[row, word], expected)


def test_layers_are_mixed_as_written():
    mix, layers = ScalarMix(3), [torch.randn(2, 4, 8) * 10**place for place in range(3)]
    normal = [(layer - layer.mean(-1, keepdim=True)) / layer.std(-1, keepdim=True, unbiased=False) for layer in layers]
    torch.testing.assert_close(mix(layers), sum(normal) / 3, rtol=0, atol=1e-4)
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([0.0, 1.0, 2.0]).log())
        mix.scale.fill_(2.0)
    torch.testing.assert_close(mix(layers), 2 * (normal[1] + 2 * normal[2]) / 3, rtol=0, atol=1e-4)


def test_all_layers_or_the_last_ones(encoder, wordpiece):
    inputs = encoded(wordpiece)
    model = LatentTreeForDependencyParsing.from_encoder(encoder, wordpiece).eval()
    assert (model.config.num_mixed_layers, len(model.latent_tree.layer_mix.weights)) == (3, 3)
    assert model(**inputs).hidden_states is None
    assert len(model(**inputs, output_hidden_states=True).hidden_states) == 4
    model = LatentTreeForDependencyParsing.from_encoder(encoder, wordpiece, num_mixed_layers=2).eval()
    output = model(**inputs, output_hidden_states=True)
    torch.testing.assert_close(
        output.last_hidden_state[2, 0], model.latent_tree.layer_mix(output.hidden_states[-2:])[2, 1], rtol=0, atol=1e-6
    )
    assert LatentTreeForDependencyParsing.from_encoder(encoder, wordpiece, num_mixed_layers=1).latent_tree.layer_mix is None
    with pytest.raises(ValueError, match="`num_mixed_layers` is 4, but the encoder has 3"):
        LatentTreeForDependencyParsing.from_encoder(encoder, wordpiece, num_mixed_layers=4)
    with pytest.raises(ValueError, match="`num_mixed_layers` must be at least 1, or None for all, got 0"):
        LatentTreeConfig(num_mixed_layers=0)


# --- Losses


def test_the_loss_is_that_of_trees_and_relations(model, wordpiece):
    model.eval().config.heads_loss_weight = 0.5
    inputs = encoded(wordpiece)
    output = model(**inputs, heads=HEADS, relations=LABELS)
    trees = tree_nll(DependencyTree(projective=False, single_root=True), output.arc_scores, output.num_words, HEADS)
    scores = model.relation_scorer(output.last_hidden_state, HEADS)
    relations = cross_entropy(scores[HEADS >= 0], LABELS[HEADS >= 0])
    torch.testing.assert_close(output.loss, 0.5 * trees.sum() / 14 + relations)
    torch.testing.assert_close(output.heads_loss, trees / torch.tensor([4.0, 3.0, 1.0, 6.0]))
    torch.testing.assert_close(model(**inputs, heads=HEADS).loss, 0.5 * trees.sum() / 14)
    assert model(**inputs).loss is None


def test_partial_trees(model, wordpiece):
    """Against the sum over all trees that have the known heads."""
    model.eval()
    inputs = encoded(wordpiece, [SENTENCES[0]])
    heads, relations = torch.tensor([[3, -100, -100, 3]]), torch.tensor([[2, 0, 1, -100]])
    output = model(**inputs, heads=heads, relations=relations)
    trees = DependencyTree(projective=False, single_root=True).enumerate(4)
    scores = (trees * output.arc_scores).sum((1, 2))
    has_them = (trees[:, 0, 3] == 1) & (trees[:, 3, 3] == 1)
    expected = scores.logsumexp(0) - scores[has_them].logsumexp(0)
    torch.testing.assert_close(output.heads_loss, expected[None] / 2, rtol=1e-4, atol=1e-5)
    # Of the relations, the first alone is known together with its head.
    own = model.relation_scorer(output.last_hidden_state, heads)[0, 0]
    torch.testing.assert_close(output.relations_loss, cross_entropy(own[None], torch.tensor([2]))[None])
    torch.testing.assert_close(output.loss, output.heads_loss[0] + output.relations_loss[0])


@pytest.mark.parametrize("given", ["heads and relations", "heads", "nothing"])
def test_every_parameter_gets_a_gradient(model, wordpiece, given):
    heads = HEADS if given != "nothing" else torch.full_like(HEADS, -100)
    relations = {"relations": LABELS} if "relations" in given else {}
    model.train()(**encoded(wordpiece), heads=heads, **relations).loss.backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    zero = model.latent_tree.tree.scorer.bilinear.grad.count_nonzero() == 0
    assert zero == (given == "nothing")


@pytest.mark.parametrize(
    ("heads", "relations", "message"),
    [
        (HEADS, LABELS + 1, r"`relations` must lie between 0 and 3, or be -100.*relations\[0, 3\] is 4"),
        (HEADS, LABELS.masked_fill(LABELS == 0, -1), r"relations\[0, 1\] is -1"),
        (HEADS, LABELS[:, :3].float(), r"`relations` must be integers of shape \(4, 6\)"),
        (HEADS, LABELS[:2], r"`relations` must be integers of shape \(4, 6\)"),
        (None, LABELS, "`relations` were given without `heads`"),
        (
            HEADS + 9 * (HEADS == 6),
            LABELS,
            r"`heads` must lie between 0 \(ROOT\) and the number of words.* but heads\[3, 2\] is 15",
        ),
        (
            HEADS * (HEADS < 0),
            LABELS,
            r"heads\[0\] are those of no tree that DependencyTree\(projective=False, single_root=True",
        ),
        (torch.where(HEADS == 0, 1, HEADS), LABELS, "are those of no tree"),
    ],
)
def test_labels_that_do_not_fit(model, wordpiece, heads, relations, message):
    with pytest.raises(ValueError, match=message):
        model(**encoded(wordpiece), heads=heads, relations=relations)


def test_labels_mean_nothing_to_a_parser(model, wordpiece):
    with pytest.raises(ValueError, match="learns from `heads` and `relations`, and got `labels`"):
        model(**encoded(wordpiece), heads=HEADS, labels=LABELS)


def test_models_that_make_no_sense(encoder, wordpiece):
    with pytest.raises(ValueError, match="`estimator=None` makes a model without a tree, which cannot parse"):
        LatentTreeForDependencyParsing.from_encoder(encoder, wordpiece, estimator=None)
    for relations in (["root", "root"], []):
        with pytest.raises(ValueError, match="`relations` must be names, each once"):
            LatentTreeForDependencyParsing.from_encoder(encoder, wordpiece, relations=relations)


# --- Decoding


@pytest.mark.parametrize("projective", [True, False])
@pytest.mark.parametrize("single_root", [True, False])
def test_decoding_is_the_best_tree_and_probabilities_are_marginals(encoder, wordpiece, projective, single_root):
    """Against enumeration."""
    structure = DependencyTree(projective, single_root)
    options = {"projective": projective, "single_root": single_root, "relations": RELATIONS}
    model = awake(LatentTreeForDependencyParsing.from_encoder(encoder, wordpiece, **options)).eval()
    output = model(**encoded(wordpiece))
    for row, sentence in enumerate(SENTENCES[:3]):
        n = len(sentence)
        trees = structure.enumerate(n)
        scores = (trees * output.arc_scores[row, :n, : n + 1]).sum((1, 2))
        assert output.heads[row, :n].tolist() == trees[scores.argmax()].argmax(-1).tolist()
        assert (output.heads[row, n:] == -100).all()
        expected = (scores.softmax(0)[:, None, None] * trees).sum(0)
        torch.testing.assert_close(output.arcs[row, :n, : n + 1], expected, rtol=0, atol=1e-4)


def test_the_relation_of_the_root_is_for_words_below_root(model, wordpiece):
    output = model.eval()(**encoded(wordpiece))
    is_word = output.heads >= 0
    assert ((output.relations == RELATIONS.index("root")) == (output.heads == 0))[is_word].all()
    assert (output.relations[~is_word] == -100).all()
    others = output.relation_scores.clone()
    others[..., RELATIONS.index("root")] = -torch.inf
    assert torch.equal(output.relations[output.heads > 0], others.argmax(-1)[output.heads > 0])
    model.config.root_relation = None
    free = model(**encoded(wordpiece))
    assert torch.equal(free.relations[is_word], free.relation_scores.argmax(-1)[is_word])


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_same_alone_in_a_batch_and_padded(model, wordpiece, side):
    model.eval()
    batch = model(**encoded(wordpiece, side=side))
    for row, sentence in enumerate(SENTENCES):
        alone, n = model(**encoded(wordpiece, [sentence])), len(sentence)
        assert torch.equal(alone.heads[0], batch.heads[row, :n])
        assert torch.equal(alone.relations[0], batch.relations[row, :n])
        torch.testing.assert_close(alone.arcs[0], batch.arcs[row, :n, : n + 1], rtol=0, atol=1e-4)


def test_saved_and_loaded(model, wordpiece, tmp_path):
    model.eval().save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert type(loaded) is LatentTreeForDependencyParsing
    assert loaded.config.id2label == dict(enumerate(RELATIONS))
    assert json.loads((tmp_path / "config.json").read_text())["num_mixed_layers"] == 3
    ours, theirs = model(**encoded(wordpiece)), loaded(**encoded(wordpiece))
    for name in ("heads", "relations", "arcs", "relation_scores"):
        assert torch.equal(ours[name], theirs[name]), name
    assert parse(loaded, wordpiece, SENTENCES) == parse(model, wordpiece, SENTENCES)


def test_over_word_vectors():
    tokenizer = word_tokenizer(sorted({word for words in SENTENCES for word in words}))
    torch.manual_seed(0)
    encoder = BiLstmModel(BiLstmConfig(vocab_size=len(tokenizer), embedding_size=6, hidden_size=8, num_hidden_layers=2))
    model = LatentTreeForDependencyParsing.from_encoder(encoder, tokenizer, relations=RELATIONS)
    assert model.config.num_mixed_layers == 2
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        model(**encoded(tokenizer), heads=HEADS, relations=LABELS).loss.backward()
        optimizer.step()
    trees = parse(model, tokenizer, SENTENCES)
    for tree, heads, relations in zip(trees, HEADS.tolist(), LABELS.tolist(), strict=True):
        assert tree.heads == tuple(heads[: len(tree.words)])
        assert tree.relations == tuple(RELATIONS[number] for number in relations[: len(tree.words)])
        assert min(tree.weights) > 0.5

"""Each operation as an operator of torch, in models compiled in one graph."""

import shutil

import pytest
import torch
from conftest import TREE_ESTIMATORS
from transformers import BertModel

from hf_latent import Categorical, DependencyTree, LatentTreeForSequenceClassification, get_estimator
from hf_latent.inference.dispatch import reference_only
from hf_latent.models.bilstm.configuration_bilstm import BiLstmConfig
from hf_latent.models.bilstm.modeling_bilstm import BiLstmModel

KINDS = [(projective, single_root) for projective in (True, False) for single_root in (False, True)]


def _agrees_when_compiled(model, fullgraph=True, agrees=True, backend="aot_eager", **inputs):
    """By default with a backend that traces forward and backward, and needs no C++ compiler."""
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=fullgraph, backend=backend)
    plain, traced = model(**inputs), compiled(**inputs)
    if not agrees:  # a compiled graph draws random numbers of its own
        traced.loss.backward()
        assert traced.loss.isfinite()
        assert (traced.arcs.sum(2) - 1)[:, :2].abs().max() < 1e-5
        return
    torch.testing.assert_close(traced.logits, plain.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(traced.loss, plain.loss, rtol=1e-5, atol=1e-5)
    n = plain.arcs.shape[1]
    # A compiled graph has room for as many words as there are tokens.
    torch.testing.assert_close(traced.arcs[:, :n, : n + 1], plain.arcs, rtol=1e-4, atol=1e-5)
    assert traced.arcs[:, n:].count_nonzero() == 0
    if not model.training:
        return
    plain.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    traced.loss.backward()
    assert gradients.keys() == {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("estimator", TREE_ESTIMATORS)
def test_a_model_compiles_into_one_graph(tiny_bert: BertModel, estimator, training):
    tiny_bert.config.hidden_dropout_prob = tiny_bert.config.attention_probs_dropout_prob = 0.0
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, estimator=estimator, num_labels=2, dropout=0.0)
    model.train(training)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    word_ids = torch.tensor([[-1, 0, 0, 1, 2, 3, -1], [-1, 0, 1, 1, -1, -1, -1], [-1, 0, 1, 2, 3, 4, -1]])
    labels = torch.tensor([0, 1, 0])
    inputs = {"input_ids": torch.randint(5, 16, (3, 7)), "word_ids": word_ids, "labels": labels}
    is_random = estimator in ("imle", "perturb_and_map", "perturbed_marginals", "score_function")
    _agrees_when_compiled(model, agrees=not (is_random and training), **inputs)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's own compiler needs g++")
def test_a_model_compiles_with_torchs_own_compiler(tiny_bert: BertModel):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, estimator="marginals", num_labels=2).eval()
    inputs = {"input_ids": torch.randint(5, 16, (2, 4)), "word_ids": torch.tensor([[-1, 0, 1, 1], [-1, 0, 1, 2]])}
    _agrees_when_compiled(model, backend="inductor", labels=torch.tensor([0, 1]), **inputs)


def test_a_bilstm_model_compiles_around_its_lstm():
    """torch does not trace an LSTM over sentences of mixed lengths, so this one is in more than one graph."""
    encoder = BiLstmModel(BiLstmConfig(vocab_size=20, embedding_size=8, hidden_size=8))
    model = LatentTreeForSequenceClassification.from_encoder(encoder, num_labels=2).eval()
    word_ids = torch.arange(6).expand(2, 6).clone()
    inputs = {"input_ids": torch.randint(2, 20, (2, 6)), "word_ids": word_ids, "labels": torch.tensor([0, 1])}
    _agrees_when_compiled(model, fullgraph=False, **inputs)


class Choice(torch.nn.Module):
    """A latent choice between two linear layers: the loss of each example, estimator's included."""

    def __init__(self, structure, estimator, features, parts):
        super().__init__()
        self.structure, self.estimator = structure, get_estimator(estimator)
        self.scores, self.output = torch.nn.Linear(features, parts), torch.nn.Linear(parts, 3)

    def forward(self, inputs, lengths, labels):
        def loss(choice):
            logits = self.output(choice).flatten(1, -2).sum(1) if choice.dim() == 3 else self.output(choice)
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

        latent = self.estimator(self.structure, self.scores(inputs), lengths, loss)
        return loss(latent.value).mean() + latent.loss.mean()


def _trains_on_batches_of_many_sizes(model, inputs, backend="aot_eager", fullgraph=True, marked=False):
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=fullgraph)
    for some in inputs:
        lengths = torch.randint(1, some.shape[1] + 1, some.shape[:1]) if some.dim() == 3 else None
        labels = torch.zeros(len(some), dtype=torch.long)
        for tensor in (some, lengths, labels) if marked else ():
            torch._dynamo.mark_dynamic(tensor, 0)
        compiled(some, lengths, labels).backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("estimator", ["score_function", "perturb_and_map", "imle"])
def test_a_compiled_model_takes_batches_of_many_sizes(estimator):
    model = Choice(DependencyTree(), estimator, 6, 5)
    _trains_on_batches_of_many_sizes(model, [torch.randn(size, 4, 6) for size in (4, 3, 1, 7)])


@pytest.mark.parametrize("estimator", ["score_function", "reinmax"])
def test_a_compiled_choice_takes_batches_of_many_sizes(estimator):
    model = Choice(Categorical(), estimator, 6, 4)
    _trains_on_batches_of_many_sizes(model, [torch.randn(size, 6) for size in (4, 3, 1, 7)])


@pytest.mark.slow
def test_expected_loss_compiles_into_more_than_one_graph():
    model = Choice(Categorical(), "expected_loss", 6, 4)
    _trains_on_batches_of_many_sizes(model, [torch.randn(size, 6) for size in (4, 3)], fullgraph=False)


def test_sizes_may_be_marked_as_dynamic():
    model = Choice(DependencyTree(), "score_function", 6, 5)
    _trains_on_batches_of_many_sizes(model, [torch.randn(size, 4, 6) for size in (4, 3)], marked=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's own compiler needs g++")
def test_torchs_own_compiler_draws_for_batches_of_many_sizes():
    model = Choice(DependencyTree(), "score_function", 6, 5)
    _trains_on_batches_of_many_sizes(model, [torch.randn(size, 4, 6) for size in (4, 3, 7)], "inductor", fullgraph=False)


TRANSFORMS = {
    "grad": lambda function, scores: torch.func.grad(function)(scores),
    "vjp": lambda function, scores: torch.func.vjp(function, scores),
    "jacrev": lambda function, scores: torch.func.jacrev(function)(scores),
    "hessian": lambda function, scores: torch.func.hessian(function)(scores),
    "vmap": lambda function, scores: torch.func.vmap(function)(scores[None]),
    "jvp": lambda function, scores: torch.func.jvp(function, (scores,), (scores,)),
    "jacfwd": lambda function, scores: torch.func.jacfwd(function)(scores),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", ["log_partition", "marginals", "sparsemap", "entropy", "argmax", "sample"])
def test_transforms_of_torch_func_are_refused_by_name(transform, name):
    with pytest.raises(NotImplementedError, match=r"(?s)`torch\.func.*use `backward\(\)`.*`torch\.autograd\.grad`"):
        TRANSFORMS[transform](lambda scores: getattr(DependencyTree(), name)(scores).sum(), torch.randn(2, 3, 4))


def test_what_is_recommended_instead_of_torch_func():
    scores = torch.randn(2, 3, 4, dtype=torch.float64)
    expected = DependencyTree().marginals(scores)

    def log_partition(scores):
        return DependencyTree().log_partition(scores).sum()

    torch.testing.assert_close(torch.autograd.functional.jacobian(log_partition, scores), expected)
    torch.testing.assert_close(torch.autograd.functional.vjp(log_partition, scores)[1], expected)
    hessian = torch.autograd.functional.hessian(log_partition, scores)
    covariance = torch.autograd.functional.jacobian(DependencyTree().marginals, scores)
    torch.testing.assert_close(hessian, covariance)


def test_a_bad_value_is_named_within_a_compiled_graph():
    compiled = torch.compile(lambda scores: DependencyTree().marginals(scores) * 2, fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match="`scores` must be finite"):
        compiled(torch.full((1, 3, 4), torch.nan))


def test_a_second_derivative_of_the_log_partition():
    scores = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda s: DependencyTree().log_partition(s), (scores,))


def test_the_reference_answers_where_it_is_wanted():
    """Each operator, its gradient included."""
    scores, other = torch.randn(2, 6, 5, 6, dtype=torch.float64)
    lengths = torch.tensor([5, 4, 3, 2, 1, 0])
    tree = DependencyTree(*KINDS[0])

    def results(tree: DependencyTree) -> dict[str, torch.Tensor]:
        leaf = scores.clone().requires_grad_()
        found = {}
        for name in ("log_partition", "marginals", "entropy", "sparsemap"):
            value = getattr(tree, name)(leaf, lengths)
            weight = other if value.dim() == 3 else other[:, 0, 0]
            found[name] = value.detach()
            found[f"{name}, gradient"] = torch.autograd.grad((value * weight).sum(), leaf)[0]
        found["argmax"], found["5 best"] = tree.argmax(scores, lengths), tree.top_k(scores, lengths, 5).structures
        solution = tree.sparsemap_solution(scores, lengths, start=tree.argmax(other, lengths))
        found["sparsemap from elsewhere"], found["converged"] = solution.point, solution.converged
        found["its parts"] = torch.einsum("bk,bkij->bij", solution.weights, solution.structures)
        return found

    for kind in KINDS:
        tree = DependencyTree(*kind)
        expected = results(tree)
        with reference_only():
            for name, value in results(tree).items():
                torch.testing.assert_close(value, expected[name], msg=f"{name} of {tree} differs")
            assert tree.sample(scores, lengths).sum() == lengths.sum()
            with pytest.raises(ValueError, match=r"`start` must be structures that there are, but start\[0\] is none"):
                tree.sparsemap(scores, lengths, start=torch.zeros_like(scores).index_fill(2, torch.tensor(3), 1.0))
            with pytest.raises(ValueError, match="`scores` must be finite"):
                tree.marginals(scores * torch.nan, lengths)

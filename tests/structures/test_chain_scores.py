"""Chains with scores of tags beside those of pairs: against all sequences, `LinearChain`, the reference, and derivatives."""

import itertools

import pytest
import torch
from scipy.stats import chisquare

from hf_latent import ChainScores, LinearChain
from hf_latent.inference.operators import reference_only
from hf_latent.structures.linear_chain.tag_operators import operators

LENGTHS = torch.tensor([4, 1, 3, 0, 2, 4, 4, 2, 3, 1, 4])
LOW = {"all allowed": None, "-inf": -torch.inf, "finfo.min": torch.finfo(torch.float64).min, "-1e4": -1e4, "-1e18": -1e18}


def scores_of(shared: bool, low: float | None = None, tags: int = 3, scale: float = 1.5) -> list[torch.Tensor]:
    """Emissions (NaN beyond the sentence), transitions, starts and ends."""
    batch, n = len(LENGTHS), int(LENGTHS.max())
    shapes = (batch, n, tags), (tags, tags) if shared else (batch, n - 1, tags, tags), (tags,), (tags,)
    emissions, transitions, start, end = (scale * torch.randn(shape, dtype=torch.float64) for shape in shapes)
    if low is not None:
        emissions[::2, 0, 0] = transitions[..., 0, 1] = end[1] = low
    emissions[torch.arange(n) >= LENGTHS[:, None]] = torch.nan
    return [emissions, transitions, start, end]


def chain_of(emissions, transitions, start, end) -> ChainScores:
    return ChainScores(emissions, transitions, LENGTHS, start, end)


def every(chain: ChainScores, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All sequences of a row, `(count, length)`, and their scores, added up one by one."""
    length, tags = int(LENGTHS[row]), chain.emissions.shape[2]
    sequences = torch.tensor(list(itertools.product(range(tags), repeat=length)), dtype=torch.int64).view(tags**length, length)
    total = torch.zeros(len(sequences), dtype=torch.float64)
    for word in range(length):
        total = total + chain.emissions[row, word, sequences[:, word]]
        if word:
            step = chain.transitions if chain.transitions.dim() == 2 else chain.transitions[row, word - 1]
            total = total + step[sequences[:, word - 1], sequences[:, word]]
    return sequences, total


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_against_all_sequences(shared, low):
    chain = chain_of(*scores_of(shared, LOW[low]))
    best, log_partition, marginals, top = chain.argmax(), chain.log_partition(), chain.marginals(), chain.top_k(4)
    pairs, log_prob, bests = chain.pair_marginals(), chain.log_prob(best), chain.max_marginals()
    entropy = chain.entropy()
    for row, length in enumerate(LENGTHS.tolist()):
        sequences, scores = every(chain, row)
        order = scores.argsort(descending=True)
        assert best[row].tolist() == sequences[order[0]].tolist() + [-1] * (4 - length)
        torch.testing.assert_close(log_partition[row], scores.logsumexp(0))
        torch.testing.assert_close(log_prob[row], scores.log_softmax(0).max())
        chances = scores.softmax(0)
        torch.testing.assert_close(entropy[row], torch.special.entr(chances).sum(), rtol=0, atol=1e-9)
        for word in range(4):
            for tag in range(3):
                expected = chances[sequences[:, word] == tag].sum().item() if word < length else 0.0
                assert marginals[row, word, tag].item() == pytest.approx(expected, abs=1e-12)
                assert (marginals[row, word, tag] == 0) == (expected == 0)
                having = scores[sequences[:, word] == tag].max() if word < length else torch.zeros(())
                low_enough = having < -1e12  # a sum of forbidden scores, of whatever size
                assert bests[row, word, tag].item() == pytest.approx(-torch.inf if low_enough else having.item())
        for word in range(3):
            expected = torch.zeros(3, 3, dtype=torch.float64)
            if word < length - 1:
                expected.index_put_((sequences[:, word], sequences[:, word + 1]), chances, accumulate=True)
            torch.testing.assert_close(pairs[row, word], expected)
        allowed = min(4, int((chances > 0).sum()) if LOW[low] != -1e4 else len(sequences))
        assert top.tags[row, :allowed, :length].tolist() == sequences[order[:allowed]].tolist()
        torch.testing.assert_close(top.scores[row, :allowed], scores[order[:allowed]])
        assert top.scores[row, allowed:].isneginf().all()


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_the_distribution_is_that_of_linear_chain(shared):
    chain = chain_of(*scores_of(shared, -torch.inf))
    structure, long = LinearChain(3), LENGTHS > 1
    torch.testing.assert_close(structure.log_partition(chain.pairs(), LENGTHS)[long], chain.log_partition()[long])
    torch.testing.assert_close(structure.marginals(chain.pairs(), LENGTHS)[long], chain.pair_marginals()[long])


@pytest.mark.parametrize("tags", [1, 2, 5])
@pytest.mark.parametrize("scale", [1.5, 300.0, 1e20])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_the_reference_says_the_same(shared, scale, tags):
    """Also where sums do not fit into a number."""
    given = scores_of(shared, None, tags, scale)
    directions = torch.randn_like(given[0]), torch.randn_like(given[1])
    weights = torch.randn(len(LENGTHS), dtype=torch.float64)
    chain = chain_of(*given)
    seeds = torch.randint(2**62, (3, len(LENGTHS)))

    def everything():
        own = chain.emissions, chain.transitions, LENGTHS
        return [
            chain.argmax(),
            chain.log_partition(),
            *operators.expectations(*own, weights),
            *operators.expectations_derivative(*own, weights, *directions),
            operators.sample(*own, seeds),
        ]

    found = everything()
    with reference_only():
        for one, expected in zip(found[:-1], everything()[:-1], strict=True):
            torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-9)
    assert all(chain.log_prob(one).isfinite().all() for one in found[-1])


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_gradients(shared):
    given = [scores.nan_to_num().requires_grad_() for scores in scores_of(shared)]
    tags = torch.randint(3, (len(LENGTHS), 4))
    for name in ("log_partition", "marginals", "pair_marginals", "entropy"):
        assert torch.autograd.gradcheck(lambda *scores, name=name: getattr(chain_of(*scores), name)(), given, fast_mode=True)
    assert torch.autograd.gradcheck(lambda *scores: chain_of(*scores).log_prob(tags), given)
    assert torch.autograd.gradgradcheck(lambda *scores: chain_of(*scores).log_partition(), given, fast_mode=True)


@pytest.mark.parametrize("name", ["log_partition", "marginals"])
def test_what_is_forbidden_or_beyond_the_sentence_has_no_gradient(name):
    given = [scores.requires_grad_() for scores in scores_of(True, -torch.inf)]
    (getattr(chain_of(*given), name)() ** 2).sum().backward()
    for scores in given:
        assert scores.grad.isfinite().all()
        assert (scores.grad[~scores.detach().isfinite()] == 0).all()
        assert (scores.grad != 0).any()


@pytest.mark.parametrize("way", ["kernels", "reference"])
def test_samples(way):
    chain = chain_of(*scores_of(True, -torch.inf))
    count = 4000
    if way == "kernels":
        drawn = chain.sample(count, torch.Generator().manual_seed(1))
        assert torch.equal(drawn, chain.sample(count, torch.Generator().manual_seed(1)))
    else:
        with reference_only():
            drawn = chain.sample(count, torch.Generator().manual_seed(1))
    for row, length in enumerate(LENGTHS.tolist()):
        assert (drawn[:, row, length:] == -1).all()
        sequences, scores = every(chain, row)
        chances = scores.softmax(0)
        places = torch.zeros(count, dtype=torch.int64)
        for word in range(length):
            places = places * 3 + drawn[:, row, word]
        counts = torch.bincount(places, minlength=len(sequences))
        assert (counts[chances == 0] == 0).all()
        often = chances * count > 5
        rest = torch.tensor([counts[~often].sum(), chances[~often].sum() * count]).clamp(min=1e-9)
        parts = counts, chances * count
        observed, expected = (torch.cat([own[often].double(), one[None]]) for own, one in zip(parts, rest, strict=True))
        if often.sum() > 1:
            assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4


def test_long_sentences_in_every_dtype():
    """Hundreds of words, whose sums would not fit into a number without scaling."""
    torch.manual_seed(2)
    emissions, transitions = 3 * torch.randn(9, 700, 7), 3 * torch.randn(7, 7)
    exact = ChainScores(emissions.double(), transitions.double())
    with reference_only():
        expected = exact.log_partition(), exact.marginals()
    for dtype, close in ((torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.02)):
        chain = ChainScores(emissions.to(dtype), transitions.to(dtype))
        assert chain.log_partition().dtype == torch.promote_types(dtype, torch.float32)
        assert chain.marginals().dtype == dtype
        torch.testing.assert_close(chain.log_partition().double(), expected[0], rtol=close, atol=0)
        if dtype.itemsize > 2:
            torch.testing.assert_close(chain.marginals().double(), expected[1], rtol=0, atol=close)
        assert chain.marginals().double().sum(2).sub(1).abs().max() < max(close, 1e-6)


def test_paths_that_only_very_low_scores_allow():
    """All that is likely leads to a dead end: what is kept must be what survives."""
    emissions = torch.zeros(9, 200, 2, dtype=torch.float64)
    emissions[:, :, 0] = 20.0  # tag 0 is far better everywhere, and may not be last
    transitions = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]], dtype=torch.float64)
    chain = ChainScores(emissions, transitions, end=torch.tensor([-torch.inf, 0.0], dtype=torch.float64))
    assert torch.equal(chain.log_partition(), torch.zeros(9, dtype=torch.float64))
    assert torch.equal(chain.marginals()[:, :, 1], torch.ones(9, 200, dtype=torch.float64))
    assert (chain.argmax() == 1).all()
    assert (chain.sample(2) == 1).all()


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_opcheck(shared):
    emissions, transitions, *_ = scores_of(shared)
    leaves = emissions.requires_grad_(), transitions.requires_grad_(), LENGTHS
    given, ones = (emissions.detach(), transitions.detach(), LENGTHS), torch.ones(len(LENGTHS), dtype=torch.float64)
    arguments_of = {
        "argmax": given,
        "log_partition": leaves,
        "expectations": (*leaves, ones),
        "expectations_derivative": (*given, ones, torch.randn_like(given[0]), torch.randn_like(given[1])),
        "sample": (*given, torch.randint(9, (2, len(LENGTHS)))),
        "top_k": (*given, 2),
    }
    for name, arguments in arguments_of.items():
        results = torch.library.opcheck(getattr(operators, name), arguments)
        assert set(results.values()) == {"SUCCESS"}, (name, results)


def test_empty_batches_and_sentences():
    for shape in ((0, 3, 2), (2, 0, 2)):
        chain = ChainScores(torch.randn(shape), torch.randn(2, 2))
        assert chain.log_partition().tolist() == [0.0] * shape[0]
        assert chain.marginals().shape == shape
        assert chain.pair_marginals().shape == (shape[0], max(shape[1] - 1, 0), 2, 2)
        assert chain.argmax().shape == chain.sample()[0].shape == chain.top_k(1).tags[:, 0].shape == shape[:2]
        assert chain.log_prob(chain.argmax()).tolist() == [0.0] * shape[0]


def test_bad_input():
    emissions, transitions = torch.randn(2, 3, 4), torch.randn(4, 4)
    with pytest.raises(ValueError, match=r"`emissions` must have shape \(batch, n, tags\)"):
        ChainScores(emissions[0], transitions)
    with pytest.raises(ValueError, match=r"`transitions` must .* here \(4, 4\), .* here \(2, 2, 4, 4\)"):
        ChainScores(emissions, transitions[:3])
    with pytest.raises(ValueError, match=r"`start` must have shape \(4,\)"):
        ChainScores(emissions, transitions, start=torch.randn(3))
    with pytest.raises(ValueError, match="`lengths` must lie between 0 and 3"):
        ChainScores(emissions, transitions, torch.tensor([4, 1])).argmax()
    with pytest.raises(ValueError, match=r"emissions\[1, 0, 2\] is nan"):
        ChainScores(
            emissions.index_put((torch.tensor(1), torch.tensor(0), torch.tensor(2)), torch.tensor(torch.nan)), transitions
        ).marginals()
    with pytest.raises(ValueError, match=r"transitions\[3, 0\] is inf"):
        ChainScores(
            emissions, transitions.index_put((torch.tensor(3), torch.tensor(0)), torch.tensor(torch.inf))
        ).log_partition()
    none = torch.stack([emissions[0], emissions[1].index_fill(0, torch.tensor(1), -torch.inf)])
    for name in ("argmax", "log_partition", "marginals", "sample"):
        with pytest.raises(
            ValueError, match=r"`emissions` must leave a structure to choose in every row, but in emissions\[1\]"
        ):
            getattr(ChainScores(none, transitions), name)()
    with pytest.raises(ValueError, match=r"emissions\[1\]"):
        ChainScores(none, transitions).top_k(2)
    with pytest.raises(ValueError, match=r"`tags` must lie between 0 and 3, but tags\[1, 2\] \(sentence, word\) is 4"):
        ChainScores(emissions, transitions).score(torch.tensor([[0, 1, 2], [3, 0, 4]]))
    assert ChainScores(emissions, transitions, [3, 2]).score(torch.tensor([[0, 1, 2], [3, 0, -100]])).isfinite().all()

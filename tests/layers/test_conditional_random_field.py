"""The layer: as pytorch-crf where that is installed, as a small reference of our own everywhere, and what is more."""

import itertools

import pytest
import torch

from hf_latent.layers import ConditionalRandomField, TagConstraints

TAGS = 4
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]]).bool()
HOLES = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()


def example(batch_first: bool = True, constraints: TagConstraints | None = None):
    crf = ConditionalRandomField(TAGS, batch_first, constraints)
    with torch.no_grad():
        for scores in crf.parameters():
            scores.normal_()
    emissions, tags = torch.randn(4, 5, TAGS), torch.randint(TAGS, (4, 5))
    return crf, *(part if batch_first else part.transpose(0, 1) for part in (emissions, tags))


def score(crf: ConditionalRandomField, emissions: torch.Tensor, tags: list[int]) -> torch.Tensor:
    """Of one sentence without a mask, term by term."""
    if not tags:
        return torch.tensor(0.0)
    total = crf.start_transitions[tags[0]] + crf.end_transitions[tags[-1]]
    for word, tag in enumerate(tags):
        total = total + emissions[word, tag] + (crf.transitions[tags[word - 1], tag] if word else 0.0)
    return total


def all_scores(crf: ConditionalRandomField, emissions: torch.Tensor) -> dict[tuple[int, ...], torch.Tensor]:
    return {tags: score(crf, emissions, tags) for tags in itertools.product(range(TAGS), repeat=len(emissions))}


@pytest.mark.parametrize("mask", [None, MASK, HOLES], ids=["whole", "mask", "holes"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_every_operation(batch_first, mask):
    crf, emissions, tags = example(batch_first)
    given = mask if mask is None or batch_first else mask.T
    likelihood = crf(emissions, tags, given, reduction="none")
    decoded, best = crf.decode(emissions, given), crf.k_best(emissions, 3, given)
    placed, marginals = crf.argmax(emissions, given), crf.marginals(emissions, given)
    assert marginals.shape == emissions.shape
    assert placed.shape == tags.shape
    drawn = crf.sample(emissions, given, 2)
    assert drawn.shape == (2, *tags.shape)
    partition = crf.log_partition(emissions, given)
    if not batch_first:
        emissions, tags, placed, marginals = (part.transpose(0, 1) for part in (emissions, tags, placed, marginals))
        drawn = drawn.transpose(1, 2)
    for row in range(4):
        inside = torch.ones(5, dtype=torch.bool) if mask is None else mask[row]
        scores = all_scores(crf, emissions[row, inside])
        values, sequences = torch.stack(list(scores.values())), list(scores)
        total = values.logsumexp(0)
        torch.testing.assert_close(partition[row], total)
        torch.testing.assert_close(likelihood[row], scores[tuple(tags[row, inside].tolist())] - total)
        order = values.argsort(descending=True)[:3].tolist()
        assert decoded[row] == list(sequences[order[0]])
        assert placed[row, inside].tolist() == decoded[row]
        assert (placed[row, ~inside] == -1).all()
        assert [own for own, _ in best[row]] == [list(sequences[place]) for place in order]
        torch.testing.assert_close(torch.tensor([own for _, own in best[row]]), values[order])
        assert (marginals[row, ~inside] == 0).all()
        assert (drawn[:, row, ~inside] == -1).all()
        assert (drawn[:, row, inside] >= 0).all()
        for word, place in enumerate(inside.nonzero()[:, 0].tolist()):
            for tag in range(TAGS):
                chosen = torch.tensor([own[word] == tag for own in sequences])
                torch.testing.assert_close(marginals[row, place, tag], (values[chosen].logsumexp(0) - total).exp())


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "mask"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_an_import_is_all_that_changes(batch_first, mask):
    crf = pytest.importorskip("torchcrf").CRF(TAGS, batch_first)
    ours, emissions, tags = example(batch_first)
    ours.load_state_dict(crf.state_dict())
    assert ours.state_dict().keys() == crf.state_dict().keys()
    given = mask if mask is None or batch_first else mask.T
    for reduction in ("none", "sum", "mean", "token_mean"):
        gradients = []
        for layer in (ours, crf):
            leaf = emissions.clone().requires_grad_()
            value = layer(leaf, tags, mask=given, reduction=reduction)
            gradients.append(torch.autograd.grad(value.sum(), [leaf, *layer.parameters()]))
        torch.testing.assert_close(ours(emissions, tags, given, reduction), crf(emissions, tags, given, reduction))
        torch.testing.assert_close(*gradients)
    if given is not None:
        torch.testing.assert_close(ours(emissions, tags, given.to(torch.uint8)), crf(emissions, tags, given.to(torch.uint8)))
    assert ours.decode(emissions, given) == crf.decode(emissions, given)


def test_gradients():
    crf, emissions, tags = example()
    crf.double()
    leaf = emissions.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: crf(scores, tags, HOLES, "none"), leaf)
    assert torch.autograd.gradcheck(lambda scores: crf.marginals(scores, HOLES), leaf, fast_mode=True)
    for scores in crf.parameters():
        value, step = scores.detach().clone(), 1e-6
        (gradient,) = torch.autograd.grad(crf(leaf, tags, HOLES), scores)
        direction = torch.randn_like(value)
        sides = []
        for sign in (1, -1):
            scores.data = value + sign * step * direction
            sides.append(crf(leaf, tags, HOLES).item())
        scores.data = value
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx((gradient * direction).sum().item(), abs=1e-5)


def forbidding() -> TagConstraints:
    """Tag 1 only after 0 or itself, and neither first nor last."""
    transitions = torch.ones(TAGS, TAGS, dtype=torch.bool)
    transitions[2:, 1] = False
    starts, ends = torch.ones(2, TAGS, dtype=torch.bool)
    starts[1] = ends[1] = False
    return TagConstraints(transitions, starts, ends)


def allowed(tags: list[int]) -> bool:
    pairs = itertools.pairwise(tags)
    return not tags or (tags[0] != 1 and tags[-1] != 1 and all(u != 1 or t in (0, 1) for t, u in pairs))


@pytest.mark.parametrize("mask", [None, HOLES], ids=["whole", "holes"])
def test_constraints_hold_in_every_operation(mask):
    crf, emissions, _ = example(constraints=forbidding())
    emissions[..., 1] += 4
    assert "allowed_starts" not in crf.state_dict()
    for row, own in enumerate(crf.k_best(emissions, 300, mask)):
        inside = emissions[row] if mask is None else emissions[row, mask[row]]
        scores = {tags: value for tags, value in all_scores(crf, inside).items() if allowed(tags)}
        assert {tuple(tags) for tags, _ in own} == set(sorted(scores, key=scores.get, reverse=True)[:300])
        torch.testing.assert_close(crf.log_partition(emissions, mask)[row], torch.stack(list(scores.values())).logsumexp(0))
    drawn = crf.sample(emissions, mask, 50).flatten(0, 1).tolist()
    assert all(allowed([tag for tag in tags if tag >= 0]) for tags in [*crf.decode(emissions, mask), *drawn])
    tags = crf.argmax(emissions, mask).clamp(min=0)
    crf(emissions, tags, mask).backward()
    assert all(scores.grad.isfinite().all() for scores in crf.parameters())
    assert (crf.transitions.grad[2:, 1] == 0).all()
    assert crf.start_transitions.grad[1] == 0


def test_labels_that_are_not_allowed_are_named():
    crf, emissions, _ = example(constraints=forbidding())
    good = torch.tensor([[0, 1, 1, 2, 3]] * 4)
    assert crf(emissions, good).isfinite()
    for changes, where, why in (
        ({0: 1}, 0, "which may not be at the start"),
        ({0: 3}, 1, "which may not be after 3"),
        ({4: 1, 3: 0}, 4, "which may not be at the end"),
    ):
        tags = good.clone()
        for word, tag in changes.items():
            tags[2, word] = tag
        with pytest.raises(ValueError, match=rf"tags\[2, {where}\] \(sentence, word\) is 1, {why}"):
            crf(emissions, tags)
    tags = good.clone()
    tags[1, 1:] = torch.tensor([2, 3, 0, 1])  # the place in the sentence, not among the words that the mask leaves
    with pytest.raises(ValueError, match=r"tags\[1, 4\] \(sentence, word\) is 1, which may not be after 3"):
        crf(emissions, tags, HOLES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    crf, emissions, tags = example()
    expected = crf(emissions.to(dtype).float(), tags, MASK, "none")
    torch.testing.assert_close(crf(emissions.to(dtype), tags, MASK, "none"), expected)
    leaf = emissions.to(dtype).requires_grad_()
    crf(leaf, tags, MASK).backward()
    assert leaf.grad.dtype == dtype
    assert crf.marginals(leaf, MASK).dtype == dtype
    whole = crf.to(dtype)
    assert whole.decode(emissions.to(dtype), MASK) == crf.float().decode(emissions.to(dtype).float(), MASK)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert crf(emissions.bfloat16(), tags, MASK).isfinite()


def test_compiled_in_one_graph():
    crf, emissions, tags = example(constraints=forbidding())
    tags = crf.argmax(emissions).clamp(min=0)

    def both(emissions, tags, mask):
        return crf(emissions, tags, mask, "none"), crf.argmax(emissions, mask), crf.marginals(emissions, mask)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (4, 3):
        leaves = [emissions[:rows].clone().requires_grad_() for _ in range(2)]
        results = [function(leaf, tags[:rows], MASK[:rows]) for function, leaf in zip((both, compiled), leaves, strict=True)]
        torch.testing.assert_close(*results)
        for likelihood, _, marginals in results:
            (likelihood.sum() + (marginals**2).sum()).backward()
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


def test_learns_transitions():
    """Tags that emissions do not tell, but their order does."""
    crf = ConditionalRandomField(3, batch_first=True)
    tags = (torch.arange(12) % 3).expand(8, 12)
    emissions = torch.zeros(8, 12, 3)
    emissions[:, 0, 0] = 5.0
    optimizer = torch.optim.Adam(crf.parameters(), lr=0.3)
    for _ in range(30):
        optimizer.zero_grad()
        (-crf(emissions, tags, reduction="token_mean")).backward()
        optimizer.step()
    assert crf.decode(emissions) == tags.tolist()


def test_bad_input():
    crf, emissions, tags = example()
    with pytest.raises(ValueError, match=r"`emissions` must have shape \(batch, n, num_tags\) with num_tags = 4"):
        crf.decode(emissions[..., :3])
    with pytest.raises(ValueError, match=r"`tags` must have the first dimensions of `emissions`, \(4, 5\)"):
        crf(emissions, tags[:, :4])
    with pytest.raises(ValueError, match=r"`mask` must be bool"):
        crf.decode(emissions, MASK[:, :4])
    with pytest.raises(ValueError, match="`reduction` must be one of"):
        crf(emissions, tags, reduction="average")
    with pytest.raises(ValueError, match=r"tags\[1, 1\] \(sentence, word\) is 7"):
        crf(emissions, tags.index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(7)))
    with pytest.raises(ValueError, match="`num_tags` must be an integer of at least 1"):
        ConditionalRandomField(0)
    with pytest.raises(ValueError, match=r"`constraints.starts` must be a bool tensor of shape \(4,\)"):
        ConditionalRandomField(4, constraints=forbidding()._replace(starts=torch.ones(4)))
    assert crf(emissions, tags.masked_fill(~MASK, -100), MASK).isfinite()

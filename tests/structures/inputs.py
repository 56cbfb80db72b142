"""What may come in, and what is an error that says so; dtypes, devices."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from structures.problems import OPERATIONS, POINTS, Problem, Suite

CLOSE = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float32: 1e-3, torch.float64: 1e-9}
DIFFERENTIABLE = ("marginals", "sparsemap", "log_partition", "entropy")


class Inputs(Suite):
    @pytest.mark.parametrize("name", OPERATIONS)
    @pytest.mark.parametrize("low", [-torch.inf, torch.finfo(torch.float32).min])
    def test_a_row_without_a_structure_is_named(self, plain: Problem, name, low):
        """A part of each structure is forbidden, and others are not."""
        rows = [row for row, own in enumerate(plain.vertices) if row and own.flatten(1).any(1).all()]
        if not rows:
            pytest.skip("all may be forbidden: there is an empty structure")
        row, scores = rows[0], plain.scores.clone()
        remaining = plain.vertices[row]
        while len(remaining):
            place = np.unravel_index(int(remaining.sum(0).argmax()), remaining.shape[1:])
            scores[(row, *place)] = low
            remaining = remaining[remaining[(slice(None), *place)] == 0]
        if (self.structure.positions(scores, plain.lengths) & self.structure.mask(scores, plain.lengths))[scores == low].any():
            pytest.skip("there is nothing beside which it would be low")
        named = self.row(row, place)
        with pytest.raises(ValueError, match=rf"must leave a structure to choose in every row, but in scores{named}"):
            plain.run(name, scores)
        if name in ("cross_entropy", "kl_divergence"):
            with pytest.raises(ValueError, match=rf"`other` must leave a structure to choose in .*, but in other{named}"):
                plain.run(name, plain.scores, other=scores)

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_scores_that_are_not_finite_are_named(self, plain: Problem, name):
        place = plain.left.nonzero()[-1].tolist()
        pattern = ", ".join(map(str, place))
        for value in (torch.nan, torch.inf, 1e200):
            scores = plain.scores.clone()
            scores[tuple(place)] = value
            with pytest.raises(ValueError, match=rf"`scores` must be finite .* but scores\[{pattern}\] is"):
                plain.run(name, scores)
            if name in ("cross_entropy", "kl_divergence"):
                with pytest.raises(ValueError, match=rf"`other` must be finite .* but other\[{pattern}\] is"):
                    plain.run(name, plain.scores, other=scores)

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_scores_and_lengths_that_make_no_sense(self, plain: Problem, name):
        wrong = plain.lengths.clone()
        wrong[(1, *[0] * (wrong.dim() - 1))] = plain.lengths.max() + 1
        negative = torch.zeros_like(wrong).where(wrong <= plain.lengths.max(), -1)
        for lengths in (wrong, negative):
            with pytest.raises(ValueError, match=rf"`lengths` must lie between 0 and .* but lengths{self.row(1, [0])} is"):
                plain.run(name, plain.scores, lengths)
        with pytest.raises(ValueError, match="`lengths` must have shape"):
            plain.run(name, plain.scores, plain.lengths[1:])
        with pytest.raises(ValueError, match="`scores` must"):
            plain.run(name, plain.scores[0])
        with pytest.raises(TypeError, match="`scores` must be floating point"):
            plain.run(name, plain.clean.long())

    def test_counts_that_make_no_sense(self, plain: Problem):
        for count in (0, -1, 1.5):
            with pytest.raises(ValueError, match="`num_samples` must be an integer of at least 1, got"):
                self.structure.sample(plain.scores, plain.lengths, count)
            with pytest.raises(ValueError, match="`k` must be an integer of at least 1, got"):
                self.structure.top_k(plain.scores, plain.lengths, count)
            with pytest.raises(ValueError, match="`tol` must be a positive number"):
                self.structure.sparsemap(plain.scores, plain.lengths, tol=min(count, 0))

    def test_starts_that_make_no_sense(self, masked: Problem):
        start = torch.stack([own[0] for own in masked.vertices])
        with pytest.raises(ValueError, match="`start` must be structures, a tensor of shape"):
            self.structure.sparsemap(masked.scores, masked.lengths, start=start[:2])
        named = self.row(0, [0])
        with pytest.raises(ValueError, match=rf"`start` must be structures that there are, but start{named} is none"):
            self.structure.sparsemap(masked.scores, masked.lengths, start=start + 0.5)
        row = int(masked.forbidden.flatten(1).any(1).nonzero()[0])
        every = [own.double() for _, own, _ in self.structure.enumerate_rows(masked.other, masked.lengths)]
        start[row] = next(own for own in every[row] if (own.bool() & masked.forbidden[row]).any())
        named = self.row(row, (start[row].bool() & masked.forbidden[row]).nonzero()[0].tolist())
        for operation in (self.structure.sparsemap, self.structure.sparsemap_solution):
            with pytest.raises(ValueError, match=rf"`start` must be structures that there are, but start{named} is none"):
                operation(masked.scores, masked.lengths, start=start)
        with pytest.raises(ValueError, match=rf"`start` must be structures that there are, but start{named} is none"):
            self.structure.project_from(masked.scores, start, masked.lengths)

    def test_shapes_that_do_not_fit(self, plain: Problem):
        with pytest.raises(ValueError, match="`other` must have the shape of `scores`"):
            self.structure.kl_divergence(plain.scores, plain.scores[1:], plain.lengths)
        with pytest.raises(ValueError, match="`z` must have the shape of `scores`"):
            self.structure.log_prob(plain.clean[1:], plain.scores, plain.lengths)

    @pytest.mark.parametrize("dtype", CLOSE, ids=str)
    def test_dtypes(self, problem: Problem, dtype):
        """The dtype of the scores, or float32 where one number says more; as exact as the dtype allows."""
        low = torch.finfo(torch.float64).min if dtype == torch.float64 else -torch.inf
        scores = problem.clean.to(dtype).masked_fill(problem.forbidden, low)
        other = problem.other.to(dtype)
        exact = problem.clean.to(dtype).double().masked_fill(problem.forbidden, -torch.inf)
        precise = torch.promote_types(dtype, torch.float32)
        for name in OPERATIONS:
            found = problem.run(name, scores, other=other)
            assert found.dtype == (dtype if name in (*POINTS, "sample", "top_k") else precise)
            tolerance = CLOSE[dtype] if name in POINTS else min(CLOSE[dtype], 1e-4)
            if name == "sparsemap":
                tolerance = max(tolerance, 1e-4)
            if name != "sample":
                expected = problem.run(name, exact, other=other.double())
                torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
        assert self.structure.top_k(scores, problem.lengths, 2).scores.dtype == precise

    @pytest.mark.parametrize("dtype", CLOSE, ids=str)
    @pytest.mark.parametrize("scale", [1e-8, 1.0, 1e4, 1e20])
    def test_scores_of_any_size(self, plain: Problem, scale, dtype):
        scores = (plain.clean * scale).clamp(-6e4, 6e4) if dtype == torch.float16 else plain.clean * scale
        scores = scores.to(dtype).requires_grad_()
        for name in DIFFERENTIABLE:
            value = plain.run(name, scores)
            assert value.isfinite().all()
            (gradient,) = torch.autograd.grad((value.float() * torch.rand(value.shape)).sum(), scores)
            assert gradient.dtype == dtype
            assert gradient.isfinite().all()
            if name in POINTS:
                expected = plain.run(name, scores.detach().double())
                tolerance = max(CLOSE[dtype], 1e-3)
                torch.testing.assert_close(value.double(), expected, rtol=0, atol=tolerance)
        best = self.structure.argmax(scores, plain.lengths)
        log_prob = self.structure.log_prob(best, scores, plain.lengths)
        assert log_prob.isfinite().all()
        assert (log_prob <= 0).all()
        assert (self.structure.entropy(scores, plain.lengths) >= 0).all()

    def test_layouts_in_memory(self, plain: Problem):
        """Strides, views and broadcasts are no matter."""
        apart = torch.stack([plain.scores, plain.scores], -1)[..., 0]
        turned = plain.scores.transpose(0, -1).contiguous().transpose(0, -1)
        for name in OPERATIONS:
            expected = plain.run(name, plain.scores)
            assert torch.equal(plain.run(name, apart), expected)
            assert torch.equal(plain.run(name, turned), expected)
        longest = int(torch.tensor([torch.tensor(length).min() for length in self.lengths]).argmax())
        rows = plain.scores[longest : longest + 1].expand_as(plain.scores)
        for name in POINTS:
            operation, lengths = getattr(self.structure, name), plain.lengths[longest].expand_as(plain.lengths)
            assert torch.equal(operation(rows, lengths), operation(rows.clone(), lengths))

    def test_no_rows(self, plain: Problem):
        scores, lengths = plain.scores[:0].clone().requires_grad_(), plain.lengths[:0]
        for name in POINTS:
            assert getattr(self.structure, name)(scores, lengths).shape == scores.shape
        assert self.structure.log_partition(scores, lengths).shape == (0,)
        assert self.structure.sample(scores, lengths, 2).shape == (2, *scores.shape)
        assert self.structure.top_k(scores, lengths, 2).structures.shape == (0, 2, *scores.shape[1:])

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
    def test_on_a_gpu(self, problem: Problem):
        scores, lengths, other = (part.cuda() for part in (problem.scores, problem.lengths, problem.other))
        for name in OPERATIONS:
            found = problem.run(name, scores, lengths, other)
            assert found.device == scores.device
            if name != "sample":
                torch.testing.assert_close(found.cpu(), problem.run(name, problem.scores), rtol=1e-6, atol=1e-5)
        for name in DIFFERENTIABLE:
            gradients = []
            for given, sizes in ((scores, lengths), (problem.scores, problem.lengths)):
                leaf = given.clone().requires_grad_()
                value = problem.run(name, leaf, sizes)
                gradients.append(torch.autograd.grad(value.cos().sum(), leaf)[0].cpu())
            torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)

    def test_without_values(self, plain: Problem):
        """Shapes and dtypes on the device `meta`, and under fake tensors."""
        if not self.without_values:
            pytest.skip("the operations of this structure look at values")
        for name in self.without_values:
            expected = plain.run(name, plain.clean)
            with FakeTensorMode() as mode:
                fake = plain.run(name, mode.from_tensor(plain.clean), mode.from_tensor(plain.lengths))
            meta = plain.run(name, plain.clean.to("meta"), plain.lengths.to("meta"))
            for found in (fake, meta):
                assert found.shape == expected.shape
                assert found.dtype == expected.dtype

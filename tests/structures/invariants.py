"""What holds whatever the scores: shifts, projections, temperatures, batches, padding."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from structures.problems import POINTS, VALUES, Problem, Suite, group_counts, is_among, project

close = torch.testing.assert_close
RESULTS = (*POINTS, *VALUES, "sample", "top_k")
DIFFERENTIABLE = ("log_partition", "marginals", "sparsemap", "entropy", "cross_entropy", "kl_divergence", "log_prob")


class Invariants(Suite):
    @pytest.mark.parametrize("size", [1.0, 1e6])
    def test_a_constant_added_to_a_group_changes_nothing(self, plain: Problem, size):
        counts = group_counts(plain)
        if counts is None:
            pytest.skip("structures differ in their number of parts")
        constants = size * torch.randn(counts.shape, dtype=torch.float64)
        dims = self.structure.group_dims or self.structure.event_dims
        moved = plain.scores + constants.view(*counts.shape, *[1] * dims)
        tolerance = 1e-9 * size
        for name in (*POINTS, "entropy", "log_prob", "top_k"):
            atol = max(tolerance, 1e-4) if name == "sparsemap" else tolerance
            close(plain.run(name, moved), plain.run(name, plain.scores), rtol=tolerance, atol=atol)
        expected = self.structure.log_partition(plain.scores, plain.lengths) + (constants * counts).view(len(counts), -1).sum(1)
        close(self.structure.log_partition(moved, plain.lengths), expected)

    def test_small_differences_of_large_scores(self, plain: Problem):
        """Entropy and log-probability of float32 scores far from 0 equal those of the scores moved to 0."""
        if group_counts(plain) is None:
            pytest.skip("structures differ in their number of parts")
        scores = plain.scores.round().float()
        for name in ("entropy", "log_prob"):
            close(plain.run(name, scores + self.far), plain.run(name, scores))

    def test_points_sum_like_structures(self, problem: Problem):
        counts = group_counts(problem)
        if counts is None:
            pytest.skip("structures differ in their number of parts")
        dims = self.structure.group_dims or self.structure.event_dims
        for name in POINTS:
            point = problem.run(name, problem.scores)
            assert ((point >= 0) & (point <= 1)).all()
            close(point.flatten(-dims).sum(-1), counts)

    def test_projection_is_idempotent_and_non_expansive(self, plain: Problem):
        def projected(scores: torch.Tensor) -> torch.Tensor:
            return self.structure.sparsemap(scores, plain.lengths, tol=1e-12)

        one, other = projected(plain.clean), projected(plain.other)
        close(projected(one), one, rtol=0, atol=1e-5)
        between = (plain.clean - plain.other).masked_fill(~plain.left, 0.0).flatten(1).norm(dim=1)
        assert ((one - other).flatten(1).norm(dim=1) <= between + 1e-6).all()

    def test_temperatures(self, problem: Problem):
        """Cold, marginals and projection are the best structure; hot, marginals are the mean of all."""
        best = self.structure.argmax(problem.scores, problem.lengths)
        for name in ("marginals", "sparsemap"):
            cold = problem.run(name, (1e5 * problem.clean).masked_fill(problem.forbidden, -torch.inf))
            close(cold, best, rtol=0, atol=1e-6)
        hot = problem.run("marginals", (1e-9 * problem.clean).masked_fill(problem.forbidden, -torch.inf))
        close(hot, torch.stack([own.mean(0) for own in problem.vertices]), rtol=0, atol=1e-7)

    @pytest.mark.parametrize("name", [name for name in RESULTS if name != "sample"])
    def test_rows_alone_are_as_in_the_batch(self, masked: Problem, name):
        """Without the padding, too."""
        problem = masked
        together = problem.run(name, problem.scores)
        for row, length in enumerate(self.lengths):
            corner = self.corner(length)
            own, other = (scores[row : row + 1][(slice(None), *corner)] for scores in (problem.scores, problem.other))
            if name == "log_prob":
                z = problem.vertices[row][:1][(slice(None), *corner)]
                alone = self.structure.log_prob(z, own, problem.lengths[row : row + 1])
            else:
                alone = problem.run(name, own, problem.lengths[row : row + 1], other)
            part = together[row : row + 1]
            if part.dim() > 1:
                part = part[(..., *corner)]
            close(part, alone, rtol=1e-8, atol=1e-5 if name == "sparsemap" else 1e-8)

    def test_without_lengths_all_of_each_row_counts(self, plain: Problem):
        row = max(range(len(self.lengths)), key=lambda row: torch.tensor(self.lengths[row]).double().mean().item())
        whole = torch.full_like(plain.lengths[row : row + 1], int(plain.lengths.max()))
        scores = torch.randn_like(plain.scores[row : row + 1])
        for name in POINTS:
            operation = getattr(self.structure, name)
            assert torch.equal(operation(scores), operation(scores, whole))

    @pytest.mark.parametrize("name", RESULTS)
    def test_what_does_not_count_changes_nothing(self, plain: Problem, name):
        outside, expected = ~self.structure.positions(plain.scores, plain.lengths), plain.run(name, plain.scores)
        for garbage in (0.0, 1e300, -1e300, torch.inf, -torch.inf):
            other = plain.other.masked_fill(outside, garbage)
            found = plain.run(name, plain.scores.masked_fill(outside, garbage), other=other)
            assert torch.equal(found, expected)
            if name in POINTS:
                assert found[~plain.left].count_nonzero() == 0

    @pytest.mark.parametrize("name", DIFFERENTIABLE)
    def test_what_cannot_be_has_no_gradient(self, problem: Problem, name):
        scores = problem.scores.clone().requires_grad_()
        value = problem.run(name, scores)
        finite = value.masked_fill(~value.isfinite(), 0.0)
        (gradient,) = torch.autograd.grad((finite * torch.randn_like(finite)).sum(), scores)
        assert gradient.isfinite().all()
        assert gradient[~problem.left].count_nonzero() == 0

    def test_what_is_given_stays_as_it_is(self, problem: Problem):
        scores, lengths = problem.scores.clone(), problem.lengths.clone()
        for name in RESULTS:
            problem.run(name, scores, lengths)
        assert torch.equal(scores.nan_to_num(), problem.scores.nan_to_num())
        assert torch.equal(lengths, problem.lengths)

    def test_modes_without_gradients(self, plain: Problem):
        expected = {name: plain.run(name, plain.scores) for name in RESULTS}
        scores = plain.scores.clone().requires_grad_()
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                for name, value in expected.items():
                    found = plain.run(name, scores)
                    assert not found.requires_grad
                    close(found, value)

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(st.data())
    def test_any_scores(self, data):
        """Ties, every scale and dtype, mixed lengths: argmax, marginals, log-partition, projection and samples are right."""
        lengths = data.draw(st.lists(st.sampled_from(list(self.lengths)), min_size=1, max_size=4))
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
        scale = data.draw(st.sampled_from([0.0, 0.1, 1.0, 10.0, 300.0, 1e4]))
        dtype = data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
        sizes = torch.tensor(lengths)
        scores = scale * torch.randn(self.shape(len(lengths), int(sizes.max())), generator=generator, dtype=torch.float64)
        scores = (scores.round() if data.draw(st.booleans()) else scores).to(dtype)
        exact = scores.double()
        rows = [own.double() for _, own, _ in self.structure.enumerate_rows(torch.zeros_like(exact), sizes)]
        best, marginals = self.structure.argmax(exact, sizes), self.structure.marginals(exact, sizes)
        partition = self.structure.log_partition(exact, sizes)
        coarse = {name: getattr(self.structure, name)(scores, sizes) for name in ("argmax", "marginals", "sparsemap")}
        sample, entropy = self.structure.sample(scores, sizes)[0], self.structure.entropy(scores, sizes)
        log_prob = self.structure.log_prob(coarse["argmax"], scores, sizes)
        assert (entropy >= 0).all()
        assert (log_prob <= 0).all()
        for point in coarse.values():
            assert point.dtype == dtype
            assert ((point >= 0) & (point <= 1)).all()
        for row, own in enumerate(rows):
            values = (own * exact[row]).flatten(1).sum(1)
            assert is_among(best[row], own)
            assert is_among(sample[row], own)
            assert is_among(coarse["argmax"][row], own)
            close((best[row] * exact[row]).sum(), values.max())
            close((coarse["argmax"][row].double() * exact[row]).sum(), values.max())
            close(partition[row], values.logsumexp(0))
            close(marginals[row], torch.einsum("k,k...->...", values.softmax(0), own), rtol=1e-9, atol=1e-9)
            point = coarse["sparsemap"][row].double()
            close(point, project(point, own), rtol=0, atol=1e-2)  # it lies in the polytope

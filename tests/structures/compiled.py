"""`torch.compile` takes the operations in one graph, for batches of many sizes."""

import pytest
import torch

from structures.problems import Problem, Suite

DIFFERENTIABLE = ("log_partition", "marginals", "sparsemap", "entropy", "cross_entropy", "kl_divergence", "log_prob")


class Compiled(Suite):
    @pytest.mark.parametrize("projections", [False, True], ids=["all but projections", "projections"])
    def test_one_graph_for_batches_of_many_sizes(self, plain: Problem, projections):
        """All operations at once, forward and backward (`aot_eager`: as torch's own compiler does it, less the C++)."""
        compiles = [name for name in self.compiles if (name == "sparsemap") == projections]
        if not compiles:
            pytest.skip("the operations of this structure look at values")
        names = [name for name in compiles if name not in ("sample", "top_k")]
        z = torch.stack([own[0] for own in plain.vertices])
        graphs = 0

        def backend(*arguments):
            nonlocal graphs
            graphs += 1
            return torch._dynamo.lookup_backend("aot_eager")(*arguments)

        def everything(scores, other, lengths, z):
            results = {}
            for name in names:
                if name in ("cross_entropy", "kl_divergence"):
                    results[name] = getattr(self.structure, name)(scores, other, lengths)
                elif name == "log_prob":
                    results[name] = self.structure.log_prob(z, scores, lengths)
                else:
                    results[name] = getattr(self.structure, name)(scores, lengths)
            if "top_k" in compiles:
                results["top_k"], results["scores"] = self.structure.top_k(scores, lengths, 2)
            if "sample" in compiles:
                results["sample"] = self.structure.sample(scores, lengths, 2)
            return results

        torch._dynamo.reset()
        compiled = torch.compile(everything, fullgraph=True, backend=backend, dynamic=True)
        short = (plain.lengths < plain.lengths.max()).view(len(z), -1).all(1).nonzero().flatten()
        # Numbers of rows that no other dimension has: a graph that took them for one could not go on with others.
        for rows in (torch.arange(11) % len(z), short[torch.arange(17) % len(short)], torch.arange(13) % len(z)):
            corner = (slice(None), *self.corner(plain.lengths[rows]))
            parts = (part[rows][corner].contiguous().clone() for part in (plain.clean, plain.other.nan_to_num(), z))
            (scores, other, own), lengths = parts, plain.lengths[rows]
            found, expected, gradients = [], [], []
            for function, results in ((everything, expected), (compiled, found)):
                leaf = scores.clone().requires_grad_()
                values = function(leaf, other, lengths, own)
                results.append(values)
                total = sum((values[name] * 0.7).cos().sum() for name in names if name in DIFFERENTIABLE)
                gradients.append(torch.autograd.grad(total, leaf)[0])
            for name, value in expected[0].items():
                if name == "sample":
                    assert found[0][name].shape == value.shape
                    assert self.structure.log_prob(found[0][name], scores, lengths).isfinite().all()
                else:
                    torch.testing.assert_close(found[0][name], value, rtol=1e-9, atol=1e-5 if name == "sparsemap" else 1e-9)
            torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
        assert graphs <= 2  # `Categorical.top_k` knows two cases apart

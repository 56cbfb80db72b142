"""Structures whose operations are operators of torch, with kernels where there are some: a reference is all that they need."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from hf_latent.inference.active_set import MAX_ITER, SparseMAPSolution
from hf_latent.inference.algorithms import Algorithms
from hf_latent.inference.dispatch import Operations
from hf_latent.structures.structure import Structure, TopK

Class = TypeVar("Class", bound="type[DeclaredStructure]")


class DeclaredStructure(Structure, guarded=False):
    """A structure with one part in each group, such as the head of a word; `declare` gives it all operations.

    It says itself what shape its scores have (`check_shape`) and where they count (`positions`), and what `Structure` asks for:
    `enumerate`, `num_parts`, `event_dims` and `group_dims`; where a length is not the size of dimension 1 of the scores, also
    `longest`. Its fields are numbers, truth values or strings: they become arguments of the operators.
    """

    operations: ClassVar[Operations]
    group_dims: ClassVar[int] = 1  # type: ignore[assignment]

    @abstractmethod
    def check_shape(self, scores: object, name: str = "scores") -> Tensor:
        """`scores`, or an error that names what is wrong with their type or shape."""

    def check_shapes(self, scores: object, lengths: object = None) -> tuple[Tensor, Tensor | None]:
        """`scores` and int64 `lengths` (or None) of right types and shapes; their values are not looked at."""
        return self.operations.check_shapes(self, scores, lengths)

    def argmax(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """A highest-scoring structure, of the shape of `scores`; no gradient."""
        return self.operations.argmax(self, scores, lengths)

    def log_partition(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log Σ_z exp(s·z), `(batch,)`, in float32 or better; differentiable twice."""
        return self.operations.log_partition(self, scores, lengths)

    def marginals(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The probability of each part; differentiable once."""
        return self.operations.marginals(self, scores, lengths)

    def sparsemap(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        tol: float | None = None,
        max_iter: int = MAX_ITER,
        start: Tensor | None = None,
    ) -> Tensor:
        """The Euclidean projection onto the convex hull of all structures; see `Structure.sparsemap`."""
        return self.operations.sparsemap(self, scores, lengths, tol, max_iter, start)[0]

    def sparsemap_solution(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        tol: float | None = None,
        max_iter: int = MAX_ITER,
        start: Tensor | None = None,
    ) -> SparseMAPSolution:
        """The projection, the structures that it is made of, and whether it converged; see `Structure.sparsemap_solution`."""
        return self.operations.sparsemap_solution(self, scores, lengths, tol, max_iter, start)

    def project_from(self, targets: Tensor, start: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The projection of `targets`, begun at the structures `start`; no gradient. The inner step of SPIGOT."""
        return self.operations.project_from(self, targets, start, lengths)

    def project_from_marginals(self, targets: Tensor, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The projection of `targets`, which lie near Marg(scores); no gradient. The inner step of SPIGOT-CE."""
        return self.operations.project_from_marginals(self, targets, scores, lengths)

    def sample(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Structures drawn from p(z) ∝ exp(s·z), `(num_samples, batch, *event)`; no gradient.

        With a seeded `generator`, draws repeat exactly, whatever the number of threads.
        """
        return self.operations.sample(self, scores, lengths, num_samples, generator)

    def top_k(self, scores: Tensor, lengths: Tensor | None = None, k: int = 1) -> TopK:
        """The k best structures of each row, best first (Lawler 1972), with up to k · groups argmaxes; no gradient."""
        return TopK(*self.operations.top_k(self, scores, lengths, k))


def declare(name: str, reference: Algorithms, cpu: Algorithms | None = None) -> Callable[[Class], Class]:
    """Decorator of a frozen dataclass, a `DeclaredStructure`: makes its operations, `torch.ops.hf_latent.<name>_…`.

    Args:
        name: what the names of its operators begin with.
        reference: its algorithms in PyTorch: `argmax` and `log_partition` at least.
        cpu: its kernels for the CPU, if there are some.
    """

    def declared(structure_class: Class) -> Class:
        structure_class.operations = Operations(name, structure_class, reference, cpu)
        return structure_class

    return declared

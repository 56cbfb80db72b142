"""Compiled code and threads: processes and threads do not get into each other's way."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from hf_latent import DependencyTree

TREE = DependencyTree(single_root=True)


def large_batch() -> torch.Tensor:
    return torch.randn(64, 30, 31, generator=torch.Generator().manual_seed(3))


def test_the_number_of_threads_changes_nothing():
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append((TREE.argmax(large_batch()), TREE.sparsemap(large_batch())))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(result, results[0], strict=True))


def test_many_threads_at_once():
    expected = TREE.argmax(large_batch())
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: TREE.argmax(large_batch()), range(32)))
    assert all(torch.equal(result, expected) for result in results)


def medium_batch() -> torch.Tensor:
    """Enough for our pool, and too little for torch's own, which does not survive a fork."""
    return torch.randn(32, 25, 26, generator=torch.Generator().manual_seed(3))


def _child(queue) -> None:
    queue.put(TREE.argmax(medium_batch()).sum().item())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_works_after_its_parent_has_used_the_pool(method):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    expected = TREE.argmax(medium_batch()).sum().item()
    torch.set_num_threads(before)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(timeout=60)
    assert child.exitcode == 0


def everything(scores: torch.Tensor) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tree = DependencyTree(single_root=True)
    return [
        tree.argmax(scores),
        tree.marginals(scores),
        tree.log_partition(scores),
        tree.sparsemap(scores),
        tree.sample(scores, None, 2, generator),
        *tree.top_k(scores[:4], None, 2),
    ]


def test_16_threads_at_once_with_a_changing_number_of_torchs():
    before, scores = torch.get_num_threads(), medium_batch()
    expected = everything(scores)

    def call(turn: int) -> list[torch.Tensor]:
        torch.set_num_threads(1 + turn % 3)
        return everything(scores)

    try:
        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(call, range(48)))
    finally:
        torch.set_num_threads(before)
    for result in results:
        assert all(torch.equal(one, other) for one, other in zip(result, expected, strict=True))


class Sentences(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return TREE.argmax(medium_batch()[index : index + 1])[0]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader_workers(method):
    expected = TREE.argmax(medium_batch()[:8])
    loader = torch.utils.data.DataLoader(Sentences(), batch_size=4, num_workers=2, multiprocessing_context=method)
    assert torch.equal(torch.cat(list(loader)), expected)


def _best_heads(example):
    scores = torch.randn(32, 25, 26, generator=torch.Generator().manual_seed(example["seed"]))
    return {"heads": TREE.argmax(scores).argmax(2).tolist()}


def test_datasets_map_in_two_processes():
    datasets = pytest.importorskip("datasets")
    mapped = datasets.Dataset.from_dict({"seed": list(range(6))}).map(_best_heads, num_proc=2)
    for example in mapped:
        assert example["heads"] == _best_heads(example)["heads"]

"""The k best of what comes one by one."""

from hf_latent.inference.cpu.compiling import part


@part
def insert(scores, sources, score, source):  # type: ignore[no-untyped-def]
    """Puts a score, larger than the last, behind all that are as large, and drops the last."""
    place = len(scores) - 1
    while place > 0 and scores[place - 1] < score:
        scores[place], sources[place] = scores[place - 1], sources[place - 1]
        place -= 1
    scores[place], sources[place] = score, source

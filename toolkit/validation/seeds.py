"""Seeds from names: the same piece of work draws the same numbers wherever it runs."""

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive the seed of one piece of work from the study's seed and the work's own name.

    Parameters
    ----------
    seed : int
        The study's seed.
    *names : str or int
        What is seeded, from the general to the particular: ``"text", 3, "trial", 12``.

    Returns
    -------
    int
        In ``[0, 2**31)``, the range every library here accepts. It depends on nothing but
        the arguments: not on the order in which work is done, nor on ``PYTHONHASHSEED``.

    Examples
    --------
    >>> derive_seed(0, "text", 3) == derive_seed(0, "text", 3)
    True
    >>> derive_seed(0, "text", 3) == derive_seed(0, "text", "3")
    False
    """
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1

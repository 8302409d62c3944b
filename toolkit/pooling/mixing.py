"""A fast mixture of the words of a file, for its fingerprint."""

import numpy as np

from toolkit.jit import Array, jit_cached


@jit_cached
def mix_words(words: Array, secret: Array, sums: Array, products: Array) -> None:
    """Gather words of 64 bits in two accumulators, at the speed of memory.

    The scheme is that of XXH3's long inputs: each word is added to one accumulator, and the
    product of its halves, once changed by a secret, to the other; every 16 rows they are
    scrambled. `words` is a whole number of such blocks of 16 rows, `secret` one block.
    """
    n_lanes = sums.size
    low = np.uint64(0xFFFFFFFF)
    half, shift, prime = np.uint64(32), np.uint64(47), np.uint64(0x9E3779B1)
    for first in range(0, words.size, secret.size):
        for begin in range(0, secret.size, n_lanes):
            row = words[first + begin : first + begin + n_lanes]
            key = secret[begin : begin + n_lanes]
            for j in range(n_lanes):
                mixed = row[j] ^ key[j]
                sums[j] += row[j]
                products[j] += (mixed & low) * (mixed >> half)
        for j in range(n_lanes):
            sums[j] = (sums[j] ^ (sums[j] >> shift) ^ secret[j]) * prime
            products[j] = (products[j] ^ (products[j] >> shift) ^ secret[j]) * prime

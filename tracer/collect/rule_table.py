"""The kernel side's table of unwind rules by return address, as memory; this side is its only writer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tracer.records import ADDRESS_BITS, IMAGE_MASK

#: 2^64 / golden ratio, as in bpf/sites.c.
SPREAD = 0x9E3779B97F4A7C15


def rule_key(address: int, image: int) -> int:
    """Return the key of an address (with INTERRUPTED where a signal stopped it) in a process image."""
    return address | (image & IMAGE_MASK) << ADDRESS_BITS


class RuleTable:
    """The kernel side's rules: buckets of one cache line, written by this object alone."""

    def __init__(self, buckets: np.ndarray) -> None:
        """buckets: the mapped array of RULE_BUCKET, shape (a power of two,)."""
        self._keys, self._rules = buckets["keys"], buckets["rules"]
        self._shift = 64 - (len(buckets).bit_length() - 1)
        #: Where each key is, by its image's bits.
        self._places: dict[int, dict[int, tuple[int, int]]] = {}
        self.evicted = 0

    def install(self, key: int, rule: int) -> None:
        """Make rule findable under key; in a full pair of buckets the oldest place is taken from another."""
        known = self._places.get(_image_bits(key), {}).get(key)
        if known:
            self._rules[known] = rule
            return
        home = (key * SPREAD & (1 << 64) - 1) >> self._shift
        for bucket in (home, home ^ 1):
            for place in range(self._keys.shape[1]):
                if not self._keys[bucket, place]:
                    self._put(bucket, place, key, rule)
                    return
        self.evicted += 1
        place = self.evicted % self._keys.shape[1]
        old = int(self._keys[home, place])
        self._keys[home, place] = 0
        self._places.get(_image_bits(old), {}).pop(old, None)
        self._put(home, place, key, rule)

    def install_many(self, keys: np.ndarray, rules: np.ndarray) -> None:
        """Make rules, u64 (n,), findable under keys, u64 (n,), none of which is there yet."""
        with np.errstate(over="ignore"):
            home = (keys * np.uint64(SPREAD) >> np.uint64(self._shift)).astype(np.int64)
        left = np.arange(len(keys))
        for bucket in (home, home ^ 1):
            for place in range(self._keys.shape[1]):
                free = left[self._keys[bucket[left], place] == 0]
                # Of those that would have the same place one gets it.
                at, first = np.unique(bucket[free], return_index=True)
                taken = free[first]
                self._rules[at, place] = rules[taken]
                self._keys[at, place] = keys[taken]
                if len(taken):
                    self._places.setdefault(_image_bits(int(keys[0])), {}).update(
                        zip(keys[taken].tolist(), zip(at.tolist(), [place] * len(at), strict=True), strict=True))
                left = np.setdiff1d(left, taken, assume_unique=True)
        for one in left.tolist():
            self.install(int(keys[one]), int(rules[one]))

    def _put(self, bucket: int, place: int, key: int, rule: int) -> None:
        # The rule first: whoever finds the key must find it too. Stores of 8 bytes are whole on x86-64.
        self._rules[bucket, place] = rule
        self._keys[bucket, place] = key
        self._places.setdefault(_image_bits(key), {})[key] = (bucket, place)

    def remove(self, keys: Iterable[int]) -> None:
        """Take away the rules of these keys."""
        for key in keys:
            place = self._places.get(_image_bits(key), {}).pop(key, None)
            if place:
                self._keys[place] = 0

    def drop(self, image: int) -> None:
        """Take away all rules of a version of a process's code."""
        for place in self._places.pop(image & IMAGE_MASK, {}).values():
            self._keys[place] = 0


def _image_bits(key: int) -> int:
    return key >> ADDRESS_BITS & IMAGE_MASK

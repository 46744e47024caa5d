"""Bounds that both sides must agree on; free of numpy, because settings are needed before anything else."""

from __future__ import annotations

#: Processes that are traced at the same time: each has a slot.
MAX_SLOTS = 256
#: Threads that may be inside an allocator at a time; at about 1 KB of kernel memory each.
MAX_THREADS = 8192
#: Live blocks in one bucket of the table (bpf/records.h).
BLOCKS_PER_BUCKET = 7
#: 32 KB hold the stack of all but deeply recursive programs; what is beyond is learnt by a second miss.
STACK_COPY = 32768
#: 32 MB: some 1,000 stack copies, what a hot path misses before its first answer.
RING_BYTES = 32 << 20
#: Ways to lose an event (bpf/losses.h).
LOSSES = 15
#: With --check-frees: 131,072 places for blocks that were freed last, 4 MB; and pairs of stacks that are told apart.
FREED_BITS = 17
MISUSES = 4096
#: Control groups in one selection, those below them not counted.
MAX_GROUPS = 8
#: 65,536 return addresses in 1 MB.
RULE_BUCKET_BITS = 14
#: At least this many probes fit where cookies do not exist.
MAX_PROBES = 4096
#: Of --max-outstanding: slots in the table, and what may overflow from full buckets. Both are full at about 1.05 of it.
TABLE_SHARE, OVERFLOW_SHARE = 0.75, 0.35

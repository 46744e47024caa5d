"""The benchmark: the same workloads under leaktrace and its peers, in one run.

preparation (peers, kernel headers, tracefs) → programs (compiled) → workloads and tools (measure) → figures → output.
"""

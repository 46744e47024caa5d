"""1. Into the target: find it, load the program, place the probes."""

"""leaktrace on other kernels: each boots in a virtual machine, and the tests run in it."""

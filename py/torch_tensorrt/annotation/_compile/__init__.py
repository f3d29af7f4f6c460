"""Compiling: jobs, the kernel cache, and the processes that compilers run in."""

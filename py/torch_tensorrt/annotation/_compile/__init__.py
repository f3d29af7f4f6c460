# SPDX-License-Identifier: BSD-3-Clause

"""Compiling: jobs, the kernel cache, and the processes that compilers run in."""

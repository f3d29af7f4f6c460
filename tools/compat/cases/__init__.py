# SPDX-License-Identifier: BSD-3-Clause

"""The ops, a module for each library.

They were chosen from the libraries' public forward functions before any was tried. An
op that is refused stays on the list.
"""

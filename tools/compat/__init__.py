# SPDX-License-Identifier: BSD-3-Clause

"""Which ops of public kernel libraries go into an engine with their own launchers.

``cases`` names the ops, ``packages`` installs the libraries into `.compat/`, ``run``
tries every op, ``verdict`` says what a refusal means, and ``render`` writes
docsrc/compatibility.md. `make compat` does all of it.
"""

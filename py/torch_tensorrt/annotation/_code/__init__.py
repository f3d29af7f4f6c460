# SPDX-License-Identifier: BSD-3-Clause

"""PTX text: its entry and parameters, and the assembler that checks it."""

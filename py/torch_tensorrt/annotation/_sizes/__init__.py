# SPDX-License-Identifier: BSD-3-Clause

"""Integer expressions over tensor extents: what a launch computes from sizes."""

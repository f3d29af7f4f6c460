"""Integer expressions over tensor extents: what a launch computes from sizes."""

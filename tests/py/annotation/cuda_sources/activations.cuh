// SPDX-License-Identifier: BSD-3-Clause

// A header of the tests' own, which includes another.

#pragma once

#include "details/exponential.cuh"

__device__ inline float silu(float x) { return x / (1.0f + exponential(-x)); }

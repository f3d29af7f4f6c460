// SPDX-License-Identifier: BSD-3-Clause

// out = a b^T with tensor cores: a is M x K, b is N x K, all float16 and row-major.
// Each warp computes WM x WN; a block has (BM / WM) * (BN / WN) warps. The tiles of a
// and b lie in dynamic shared memory, and the result goes through it as well.

#include <cuda_fp16.h>
#include <mma.h>

namespace wmma = nvcuda::wmma;

template <int BM, int BN, int BK, int WM, int WN>
__global__ void __launch_bounds__((BM / WM) * (BN / WN) * 32)
gemm(const __half* __restrict__ a, const __half* __restrict__ b, __half* out, int m,
     int n, int k) {
  constexpr int kThreads = (BM / WM) * (BN / WN) * 32;
  constexpr int kStride = BK + 8;  // fewer bank conflicts
  extern __shared__ __align__(128) unsigned char memory[];
  __half* tile_a = reinterpret_cast<__half*>(memory);
  __half* tile_b = tile_a + BM * kStride;

  const int warp = threadIdx.x / 32;
  const int warp_m = warp / (BN / WN) * WM, warp_n = warp % (BN / WN) * WN;
  const int row = blockIdx.y * BM, column = blockIdx.x * BN;

  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums[WM / 16][WN / 16];
  for (auto& line : sums)
    for (auto& sum : line) wmma::fill_fragment(sum, 0.0f);

  for (int start = 0; start < k; start += BK) {
    for (int i = threadIdx.x; i < BM * BK / 8; i += kThreads) {
      const int r = i / (BK / 8), c = i % (BK / 8) * 8;
      uint4 value = make_uint4(0, 0, 0, 0);
      if (row + r < m && start + c < k)
        value = *reinterpret_cast<const uint4*>(a + (size_t)(row + r) * k + start + c);
      *reinterpret_cast<uint4*>(tile_a + r * kStride + c) = value;
    }
    for (int i = threadIdx.x; i < BN * BK / 8; i += kThreads) {
      const int r = i / (BK / 8), c = i % (BK / 8) * 8;
      uint4 value = make_uint4(0, 0, 0, 0);
      if (column + r < n && start + c < k)
        value =
            *reinterpret_cast<const uint4*>(b + (size_t)(column + r) * k + start + c);
      *reinterpret_cast<uint4*>(tile_b + r * kStride + c) = value;
    }
    __syncthreads();
    for (int step = 0; step < BK; step += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> left[WM / 16];
      for (int i = 0; i < WM / 16; ++i)
        wmma::load_matrix_sync(left[i], tile_a + (warp_m + i * 16) * kStride + step,
                               kStride);
      for (int j = 0; j < WN / 16; ++j) {
        wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major> right;
        wmma::load_matrix_sync(right, tile_b + (warp_n + j * 16) * kStride + step,
                               kStride);
        for (int i = 0; i < WM / 16; ++i)
          wmma::mma_sync(sums[i][j], left[i], right, sums[i][j]);
      }
    }
    __syncthreads();
  }

  float* result = reinterpret_cast<float*>(memory);  // BM x BN
  for (int i = 0; i < WM / 16; ++i)
    for (int j = 0; j < WN / 16; ++j)
      wmma::store_matrix_sync(result + (warp_m + i * 16) * BN + warp_n + j * 16,
                              sums[i][j], BN, wmma::mem_row_major);
  __syncthreads();
  for (int i = threadIdx.x; i < BM * BN; i += kThreads) {
    const int r = row + i / BN, c = column + i % BN;
    if (r < m && c < n) out[(size_t)r * n + c] = __float2half(result[i]);
  }
}

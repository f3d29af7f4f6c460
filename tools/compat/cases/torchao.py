# SPDX-License-Identifier: BSD-3-Clause

"""torchao: its Triton quantisers and the products of what they quantise."""

from ..case import Library

op = Library("torchao", "triton")

ROWS = (128, 256, 1024)


@op("quantisation", x="rows 2048 bf16", out=("rows 2048 f8", "rows 16 f32"), rows=ROWS)
def fp8_blockwise_act_quant():
    from torchao.kernel.blockwise_quantization import fp8_blockwise_act_quant

    return lambda x: fp8_blockwise_act_quant(x)


@op(
    "quantisation",
    x="rows 2048 bf16",
    out=("rows 2048 f8", "rows//128 16 f32"),
    rows=(128, 256, 256),
)
def fp8_blockwise_weight_quant():
    from torchao.kernel.blockwise_quantization import fp8_blockwise_weight_quant

    return lambda x: fp8_blockwise_weight_quant(x)


@op("quantisation", x="2048 2048 f8", s="16 16 f32+", out="2048 2048 f32")
def fp8_blockwise_weight_dequant():
    from torchao.kernel.blockwise_quantization import fp8_blockwise_weight_dequant

    return lambda x, s: fp8_blockwise_weight_dequant(x, s)


@op(
    "GEMM",
    a="rows 2048 f8",
    a_s="rows 16 f32+",
    b="1024 2048 f8",
    b_s="8 16 f32+",
    out="rows 1024 bf16",
    rows=ROWS,
)
def blockwise_fp8_gemm():
    from torchao.kernel.blockwise_quantization import blockwise_fp8_gemm

    return lambda a, a_s, b, b_s: blockwise_fp8_gemm(a, a_s, b, b_s)


@op(
    "GEMM",
    a="rows 1024 i8",
    b="1024 2048 i8",
    row_scale="rows 1 bf16+",
    col_scale="1 2048 bf16+",
    out="rows 2048 bf16",
    rows=ROWS,
)
def scaled_int8_mm():
    from torchao.prototype.quantized_training.int8_mm import scaled_int8_mm_cuda

    return lambda a, b, row_scale, col_scale: scaled_int8_mm_cuda(
        a, b, row_scale, col_scale
    )


@op("GEMM", a="rows 1024 i8", b="1024 2048 i8", out="rows 2048 i32", rows=ROWS)
def int_matmul():
    from torchao.kernel.intmm_triton import int_matmul_cuda

    return lambda a, b: int_matmul_cuda(a, b)


@op("quantisation", x="rows 2048 bf16", out=("rows 2048 f8", "rows 16 f32"), rows=ROWS)
def act_quant_lhs():
    from torchao.prototype.blockwise_fp8_training.kernels import (
        triton_fp8_blockwise_act_quant_lhs,
    )

    return lambda x: triton_fp8_blockwise_act_quant_lhs(x)


@op("quantisation", x="256 2048 bf16", out=("256 2048 f8", "2 2048 f32"))
def act_quant_rhs():
    from torchao.prototype.blockwise_fp8_training.kernels import (
        triton_fp8_blockwise_act_quant_rhs,
    )

    return lambda x: triton_fp8_blockwise_act_quant_rhs(x)


@op(
    "quantisation",
    x="rows 2048 bf16",
    out=("rows 2048 f8", "rows 64 u8"),
    rows=ROWS,
)
def to_mxfp8_dim0():
    import torch
    from torchao.prototype.mx_formats.kernels import triton_to_mxfp8_dim0

    def body(x):
        quantised, scale = triton_to_mxfp8_dim0(x)
        return quantised, scale.view(torch.uint8)

    return body


@op("quantisation", x="rows 2048 f8", s="rows 64 u8", out="rows 2048 bf16", rows=ROWS)
def mxfp8_dequant_dim0():
    import torch
    from torchao.prototype.mx_formats.kernels import triton_mxfp8_dequant_dim0

    return lambda x, s: triton_mxfp8_dequant_dim0(x, s, torch.bfloat16)


@op("quantisation", scale="256 64 u8", out="256 64 u8")
def mx_block_rearrange():
    from torchao.prototype.mx_formats.kernels import triton_mx_block_rearrange

    return lambda scale: triton_mx_block_rearrange(scale)


@op(
    "quantisation",
    q="2 8 s 64 bf16",
    k="2 8 s 64 bf16",
    v="2 8 s 64 bf16",
    out=(
        "2 8 s 64 f8",
        "2 8 s 64 f8",
        "2 8 s 64 f8",
        "2 8 f32",
        "2 8 f32",
        "2 8 f32",
    ),
    s=(64, 256, 1024),
)
def fp8_sdpa_quantize():
    from torchao.prototype.attention.quantization.triton_qkv_quantization import (
        triton_fp8_sdpa_quantize,
    )

    return lambda q, k, v: triton_fp8_sdpa_quantize(q, k, v)

# SPDX-License-Identifier: BSD-3-Clause

"""torchao: its Triton quantisers and the products of what they quantise."""

from ..case import Library

op = Library("torchao", "triton")

ROWS = (128, 256, 1024)


@op(
    "quantisation",
    x="rows k bf16",
    out=("rows k f8", "rows k//128 f32"),
    rows=ROWS,
    k=2048,
)
def fp8_blockwise_act_quant():
    from torchao.kernel.blockwise_quantization import fp8_blockwise_act_quant

    return lambda x: fp8_blockwise_act_quant(x)


@op(
    "quantisation",
    x="rows k bf16",
    out=("rows k f8", "rows//128 k//128 f32"),
    rows=256,
    k=2048,
)
def fp8_blockwise_weight_quant():
    from torchao.kernel.blockwise_quantization import fp8_blockwise_weight_quant

    return lambda x: fp8_blockwise_weight_quant(x)


@op("quantisation", x="rows k f8", s="16 16 f32+", out="rows k f32", rows=2048, k=2048)
def fp8_blockwise_weight_dequant():
    from torchao.kernel.blockwise_quantization import fp8_blockwise_weight_dequant

    return lambda x, s: fp8_blockwise_weight_dequant(x, s)


@op(
    "GEMM",
    a="rows 2048 f8",
    a_s="rows 16 f32+",
    b="n 2048 f8",
    b_s="8 16 f32+",
    out="rows n bf16",
    rows=ROWS,
    n=1024,
)
def blockwise_fp8_gemm():
    import torch
    from torchao.kernel import blockwise_quantization

    blockwise_quantization._get_triton_impls()
    return torch.ops.ao.blockwise_fp8_gemm.default


@op(
    "GEMM",
    a="rows 1024 i8",
    b="1024 n i8",
    row_scale="rows 1 bf16+",
    col_scale="1 n bf16+",
    out="rows n row_scale",
    rows=ROWS,
    n=2048,
)
def scaled_int8_mm():
    from torchao.prototype.quantized_training.int8_mm import scaled_int8_mm_cuda

    return lambda a, b, row_scale, col_scale: scaled_int8_mm_cuda(
        a, b, row_scale, col_scale
    )


@op("GEMM", a="rows 1024 i8", b="1024 n i8", out="rows n i32", rows=ROWS, n=2048)
def int_matmul():
    from torchao.kernel.intmm_triton import int_matmul_cuda

    return lambda a, b: int_matmul_cuda(a, b)


@op(
    "quantisation",
    x="rows k bf16",
    out=("rows k f8", "rows k//128 f32"),
    rows=ROWS,
    k=2048,
)
def act_quant_lhs():
    from torchao.prototype.blockwise_fp8_training.kernels import (
        triton_fp8_blockwise_act_quant_lhs,
    )

    return lambda x: triton_fp8_blockwise_act_quant_lhs(x)


@op(
    "quantisation",
    x="rows k bf16",
    out=("rows k f8", "rows//128 k f32"),
    rows=256,
    k=2048,
)
def act_quant_rhs():
    from torchao.prototype.blockwise_fp8_training.kernels import (
        triton_fp8_blockwise_act_quant_rhs,
    )

    return lambda x: triton_fp8_blockwise_act_quant_rhs(x)


@op(
    "quantisation",
    x="rows k bf16",
    out=("rows k f8", "rows k//32 u8"),
    rows=ROWS,
    k=2048,
)
def to_mxfp8_dim0():
    import torch
    from torchao.prototype.mx_formats.kernels import triton_to_mxfp8_dim0

    def body(x):
        quantised, scale = triton_to_mxfp8_dim0(x)
        return quantised, scale.view(torch.uint8)

    return body


@op("quantisation", x="rows k f8", s="rows 64 u8", out="rows k bf16", rows=ROWS, k=2048)
def mxfp8_dequant_dim0():
    import torch
    from torchao.prototype.mx_formats.kernels import triton_mxfp8_dequant_dim0

    return lambda x, s: triton_mxfp8_dequant_dim0(x, s, torch.bfloat16)


@op("quantisation", scale="256 64 u8", out="scale")
def mx_block_rearrange():
    import torch
    import torchao.prototype.mx_formats.kernels  # noqa: F401

    return torch.ops.torchao.triton_mx_block_rearrange.default


@op(
    "quantisation",
    q="n h s d bf16",
    k="n h s d bf16",
    v="n h s d bf16",
    out=("n h s d f8", "n h s d f8", "n h s d f8", "n h f32", "n h f32", "n h f32"),
    s=(64, 256, 1024),
    n=2,
    h=8,
    d=64,
)
def fp8_sdpa_quantize():
    from torchao.prototype.attention.quantization.triton_qkv_quantization import (
        triton_fp8_sdpa_quantize,
    )

    return lambda q, k, v: triton_fp8_sdpa_quantize(q, k, v)

# SPDX-License-Identifier: BSD-3-Clause

"""Run an engine with TensorRT alone: ``python -S run_engine.py ENGINE INPUT OUTPUT``.

The test starts it without site packages' ``.pth`` files, and what is blocked below
cannot be imported even so. Arrays are numpy's, of the dtypes that the engine has.
"""

import sys

for name in ("torch_tensorrt", "triton", "cuda.tile", "cutlass"):
    sys.modules[name] = None

import numpy as np  # noqa: E402
import tensorrt as trt  # noqa: E402
import torch  # noqa: E402


def main(engine_path: str, input_path: str, output_path: str) -> None:
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    with open(engine_path, "rb") as file:  # noqa: PTH123
        engine = runtime.deserialize_cuda_engine(file.read())
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    modes = {engine.get_tensor_mode(name): name for name in names}
    x_name, out_name = modes[trt.TensorIOMode.INPUT], modes[trt.TensorIOMode.OUTPUT]
    x = torch.from_numpy(np.load(input_path)).cuda()
    assert context.set_input_shape(x_name, tuple(x.shape))
    out = torch.empty(tuple(context.get_tensor_shape(out_name)), dtype=x.dtype).cuda()
    context.set_tensor_address(x_name, x.data_ptr())
    context.set_tensor_address(out_name, out.data_ptr())
    stream = torch.cuda.Stream()
    assert context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    np.save(output_path, out.cpu().numpy())


main(*sys.argv[1:])

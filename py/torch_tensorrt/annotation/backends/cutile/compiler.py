# SPDX-License-Identifier: BSD-3-Clause

"""cuTile kernels: launches caught at ``ct.launch``, compiled for any GPU."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from ..._code.lowering import for_driver
from ..._code.ptx import parse
from ...errors import PTXError
from .. import (
    Backend,
    CompiledKernel,
    OnLaunch,
    Options,
    Program,
    Target,
    Toolchain,
)
from . import DEFAULT_FACTS, FACT_SETS, CuTileSpec, cutile, tileiras
from .host_maps import hidden_maps
from .launch import caught_launches
from .signature import Signature


class CuTileBackend(Backend):
    """Records ``ct.launch(...)`` and compiles it with ``tileiras``."""

    def toolchain(self) -> Toolchain:
        """cuTile's version and settings, and its compiler's."""
        return tileiras.toolchain()

    def intercept(
        self, on_launch: OnLaunch, overrides: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[None]:
        """Report ``ct.launch`` of this thread, and launch nothing."""
        return caught_launches(on_launch, overrides)

    def spec(self) -> CuTileSpec:
        """The spec of an op whose own body launches the kernel, all else by default."""
        return cutile()

    def compile(
        self, program: Program, target: Target, options: Options, aligned: bool
    ) -> CompiledKernel:
        """Compile the program's launch; the option ``facts`` names its fact set."""
        launch, hints = program.launch, dict(options)
        assert launch.grid is not None, "a cuTile launch has a grid"
        facts = hints.pop("facts", DEFAULT_FACTS)
        signature = Signature(program, aligned, FACT_SETS[facts])
        cubin = tileiras.compile_cubin(
            launch, hints, signature.constraints, target, FACT_SETS[facts].tma
        )
        ptxas = tileiras.tool("ptxas")
        code = tileiras.as_plain_kernel(tileiras.embedded_ptx(cubin))
        code = signature.with_maps(code, hidden_maps(cubin, code, signature))
        entry = parse(code)
        if entry.block is None:
            raise PTXError(f"kernel {launch.name}: cuTile's code names no block size.")
        code, emitted = for_driver(
            code, target.ptx_isa, launch.name, ptxas, "cuTile emits"
        )
        cluster = entry.cluster or (1, 1, 1)
        x, y, z = map(operator.mul, launch.grid, cluster)  # it is in clusters
        return CompiledKernel(
            code=code,
            slots=tuple(signature.slots),
            extras=tuple(signature.extras),
            grid=(x, y, z),
            block=entry.block,
            shared_memory=0,  # static, all of it
            ptxas=ptxas,
            facts=" ".join([f"{facts}:", *signature.told]),
            retargeted=emitted,
            scratch=tuple(signature.scratch),
            cluster=cluster,
            names=tuple(signature.names),
        )


BACKEND = CuTileBackend

#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause

# Run Python in this project's environment: `tools/offline/run.sh benchmarks/x.py`.
# With wheels in wheelhouse/, the environment is built from it, without a network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if compgen -G "wheelhouse/*.whl" >/dev/null; then
    environment=build/offline
    if [ ! -e "$environment/.complete" ]; then
        "${PYTHON:-python3}" tools/offline/environment.py wheelhouse "$environment"
        touch "$environment/.complete"
    fi
else
    environment=.venv
    make setup
fi
exec "$environment/bin/python" "$@"

# SPDX-License-Identifier: BSD-3-Clause

"""Put the library into a checkout of Torch-TensorRT, as a change to review.

    python tools/export DIR            # all of it, in the working tree
    python tools/export DIR --stack    # as commits on the current branch

Adds the two packages, their tests, pages and examples, and amends the files that list
such things. Then runs upstream's own formatters and linters on what was written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import amend
import checkout
import linters
from files import LIBRARY, files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="of Torch-TensorRT's main")
    parser.add_argument("--stack", action="store_true", help="commit it, in parts")
    options = parser.parse_args()
    folder = options.checkout.resolve()
    if not (folder / LIBRARY[1]).is_dir():
        parser.error(f"{folder} is not a checkout of Torch-TensorRT")
    if options.stack and checkout.git(folder, "status", "--porcelain"):
        parser.error(f"{folder} has changes; a stack starts from a commit")
    content = files()
    try:
        checkout.require_replaced(folder, content)
        written = checkout.export(folder, content)
    except amend.Unexpected as error:
        raise SystemExit(f"{folder}: unexpected: {error}") from None
    print(f"{folder}: {len(written)} files")
    passed = linters.run(folder, written)
    if options.stack:
        formatted = {path: (folder / path).read_bytes() for path in content}
        checkout.stack(folder, formatted)
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()

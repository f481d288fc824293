"""Generate wash_fl/core/wire from proto/, or check with --check that it is current."""

import filecmp
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "wash_fl" / "core" / "wire"
GENERATED = ("exchange_pb2.py", "exchange_pb2.pyi")


def generate(into: Path) -> None:
    """Run protoc and leave the generated modules in ``into``."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [
            "protoc",
            f"--proto_path={ROOT / 'proto'}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--python_out={scratch}",
            f"--pyi_out={scratch}",
            "wash/v1/exchange.proto",
        ]
        if protoc.main(arguments) != 0:
            sys.exit("protoc failed")
        for name in GENERATED:
            shutil.copyfile(Path(scratch) / "wash" / "v1" / name, into / name)


def main() -> None:
    """Generate, or compare what is committed with what would be generated."""
    if "--check" not in sys.argv[1:]:
        generate(PACKAGE)
        return
    with tempfile.TemporaryDirectory() as fresh:
        generate(Path(fresh))
        stale = [
            name for name in GENERATED if not filecmp.cmp(Path(fresh) / name, PACKAGE / name, shallow=False)
        ]
    if stale:
        sys.exit(f"{', '.join(stale)} in {PACKAGE.name}/ is not what proto/ generates: run `make proto`.")
    print("generated code is current")


if __name__ == "__main__":
    main()

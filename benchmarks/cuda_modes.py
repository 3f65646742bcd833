"""An NVIDIA GPU: number formats of the dense model, as a CUDA graph and as plain PyTorch runs it.

    python -m benchmarks.cuda_modes --model DIR [--workloads 1x128 8x128 32x128]

Each row is a race in the same interleaved blocks. ``again`` is the fp32 file loaded a second time: as far as it is from
1, two copies of a model differ by where they lie in memory, and no smaller difference means anything.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.tables import print_table
from compressors.export.torch_baselines import DTYPES
from compressors.export.torch_baselines import build_torch_baseline
from profilers.measure import measure
from profilers.registry import get_profiler
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Effort
from profilers.types import Measurement
from profilers.types import Workload

PROFILER = "torch_cuda"
REFERENCE = "fp32"


def main() -> None:
    """Build the files once, and race them in every mode at every workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--task", default="sequence-classification", choices=["sequence-classification", "embedding"])
    parser.add_argument("--workloads", nargs="+", default=["1x128", "8x128", "32x128"], metavar="BATCHxTOKENS")
    arguments = parser.parse_args()
    capabilities = get_profiler(PROFILER).describe()
    if not capabilities.available:
        raise SystemExit(capabilities.reason)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        files = {
            name: Artifact(
                path=build_torch_baseline(name, arguments.model, arguments.task, Path(scratch)), format="torch"
            )
            for name in DTYPES
        }
        for mode in ("graph", "eager"):
            for text in arguments.workloads:
                batch, tokens = map(int, text.split("x"))
                rows.append(
                    {"mode": mode, "workload": text} | race(files, mode, Workload(batch=batch, sequence_length=tokens))
                )
    print_table(rows)


def race(files: dict[str, Artifact], mode: str, workload: Workload) -> dict[str, str]:
    """Return the cells of a row."""
    device = DeviceProfile(name="gpu", profiler=PROFILER, options={"mode": mode})
    with get_profiler(PROFILER).open(device, workload) as session:
        reference = session.load(files[REFERENCE])
        rivals = {"again": session.load(files[REFERENCE])}
        rivals |= {name: session.load(file) for name, file in files.items() if name != REFERENCE}
        found = measure(session, reference, rivals, Effort.shortlist())
    milliseconds = found["again"].measurement.reference_ms
    return {"fp32, ms": f"{milliseconds:.3f}"} | {name: _speedup(one.measurement) for name, one in found.items()}


def _speedup(measurement: Measurement) -> str:
    ratio = measurement.ratio
    mark = "" if measurement.status == "ok" else f" {measurement.status}"
    return f"{1 / ratio.value:.2f} ({1 / ratio.high:.2f}-{1 / ratio.low:.2f}){mark}"


if __name__ == "__main__":
    main()

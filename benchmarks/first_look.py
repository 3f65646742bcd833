"""What giving candidates up after the first part of the texts saves, and which decisions it changes.

    python -m benchmarks.first_look --model DIR --data FILE [--calibration FILE] [--max-drop 0.01] [--candidates 24]

Every candidate is built and evaluated by the operation that jobs use, twice: to the end, and with the rule of
:mod:`search.first_look`, which knows the candidates before it. They keep from all to a tenth of the heads and channels
of every layer, each layer a little more or less, every other one in 8 bits.

A candidate is *of interest* if the drop that is to be expected of it, by all that was seen, is at most twice the goal:
the search might show it in its front. The other ones are rejected after the whole evaluation where their labels alone
make it clear, else they are measured for nothing. Seconds are of evaluating; what a measurement takes is not counted.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.tables import print_table
from compressors.export.defaults import default_graph
from compressors.export.defaults import default_quantization
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from infra.database.models import JsonObject
from profilers.isa import this_cpu
from profilers.types import DeviceProfile
from profilers.types import Quality
from profilers.types import Workload
from search.agreement import rank_correlation
from search.drop_model import DropModel
from search.drop_model import Evidence
from search.first_look import patience
from search.promote import quality_limit
from search.requests import Columns
from search.requests import Goal
from search.study import TrialRecord
from workers.operations.bench import Bench
from workers.operations.evaluate import evaluate
from workers.operations.inputs import DataFile
from workers.operations.inputs import JobInputs
from workers.operations.prepare import prepare
from workers.runner.operation import OperationContext

JITTER = 0.15
"""How far the share that a layer keeps is from the candidate's, at most."""


@dataclass(frozen=True)
class Candidate:
    """One candidate, evaluated both ways.

    Attributes:
        whole: Quality on the whole search part.
        staged: Quality as the rule leaves it.
        looked: ``facts["first_part"]`` of the evaluation with the rule.
        seconds: Of evaluating to the end, of evaluating with the rule, and of building.
    """

    whole: Quality
    staged: Quality
    looked: JsonObject
    seconds: tuple[float, float, float]


def recipe(work: Bench, share: float, bits: int, generator: np.random.Generator) -> Recipe:
    """Draw a candidate that keeps about a share of every layer."""
    anatomy, layers = work.anatomy, []
    for heads, width in zip(anatomy.heads, anatomy.intermediate_size, strict=True):
        kept = np.clip(share + generator.uniform(-JITTER, JITTER, 2), 0.0, 1.0)
        attention = AttentionRecipe(heads=max(1, round(kept[0] * heads)), bits=bits)
        channels = max(1, round(kept[1] * width / 32)) * 32
        layers.append(
            LayerRecipe(attention=attention, feed_forward=FeedForwardRecipe(intermediate_size=channels, bits=bits))
        )
    return Recipe(
        layers=tuple(layers),
        quantization=default_quantization("onnxruntime", saturating=this_cpu().saturating_int8),
        graph=default_graph("onnxruntime", {bits}),
    )


def compare(work: Bench, context: OperationContext, arguments: argparse.Namespace) -> list[Candidate]:
    """Evaluate every candidate both ways, in random order."""
    generator = np.random.default_rng(arguments.seed)
    shares = generator.permutation(np.linspace(0.1, 1.0, arguments.candidates))
    goal, found, records = Goal(max_drop=arguments.max_drop), list[Candidate](), list[TrialRecord]()
    for number, share in enumerate(shares):
        drawn = RecipeCandidate(recipe=recipe(work, float(share), (32, 8)[number % 2], generator))
        allowed = patience("direct", goal, records, labelled=work.data.labelled)
        asked = {"inputs": work.inputs.model_dump(mode="json"), "candidate": drawn.model_dump(mode="json")}
        whole = evaluate(asked, context)
        staged = evaluate(asked | {"allowed_at_first": allowed and allowed.model_dump(mode="json")}, context)
        qualities = [Quality.model_validate(result["quality"]) for result in (whole, staged)]
        spent = [result["facts"]["evaluate_seconds"] for result in (whole, staged)]
        seconds = (spent[0], spent[1], whole["facts"]["build_seconds"])
        found.append(Candidate(qualities[0], qualities[1], staged["facts"]["first_part"], seconds))
        name, evidence = str(number), Evidence.of(qualities[1]) if work.data.labelled else None
        records.append(TrialRecord(name, number, name, "direct", "done", evidence=evidence))
    return found


def kind(candidate: Candidate, expected: float, max_drop: float) -> str:
    """Name what becomes of a candidate that is evaluated to the end."""
    limit = quality_limit(max_drop)
    if candidate.whole.drop.low > limit:
        return "rejected by its labels"
    return "measured, but not of interest" if expected > limit else "of interest"


def line(name: str, candidates: Sequence[Candidate]) -> dict[str, str]:
    """One line of the table."""
    whole, staged, building = (sum(found.seconds[place] for found in candidates) for place in range(3))
    return {
        "evaluated to the end": name,
        "candidates": str(len(candidates)),
        "given up early": str(sum(found.looked["stopped"] is not None for found in candidates)),
        "evaluating, s": f"{whole:.1f}",
        "in two parts, s": f"{staged:.1f}",
        "saved": f"{1 - staged / whole:.0%}" if whole else "",
        "building, s": f"{building:.1f}",
    }


def prepared(arguments: argparse.Namespace, folder: Path) -> tuple[Bench, OperationContext]:
    """Prepare the model and the data as a job does."""
    files = {name: getattr(arguments, name) for name in ("data", "calibration") if getattr(arguments, name)}
    data = {name: DataFile(path=path.resolve(), format=path.suffix.lstrip(".")) for name, path in files.items()}
    inputs = JobInputs(
        work=folder,
        model=arguments.model,
        dataset=data["data"],
        calibration=data.get("calibration"),
        task="sequence-classification",
        columns=Columns(),
        workload=Workload(),
        device=DeviceProfile(name="local-cpu", profiler="onnxruntime"),
        seed=arguments.seed,
    )
    work, context = Bench(inputs), OperationContext("compute", folder, lambda _: None)
    context.state["bench"] = work
    prepare(inputs.model_dump(mode="json"), context)
    return work, context


def main() -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSONL with text and label")
    parser.add_argument("--calibration", type=Path, help="JSONL with text; default: a part of the data")
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work, context = prepared(arguments, Path(scratch))
        found = compare(work, context, arguments)
    evidence = [Evidence.of(candidate.whole) for candidate in found]
    expected = DropModel(evidence).each(evidence) if work.data.labelled else [one.drop for one in evidence]
    kinds = [kind(candidate, drop, arguments.max_drop) for candidate, drop in zip(found, expected, strict=True)]
    look = found[0].looked
    print(f"\n{len(found)} candidates of {arguments.model.name}, goal {arguments.max_drop:.1%}, ", end="")
    print(f"first part {look['examples']} of {look['of']} texts")
    rows = [
        line(name, [candidate for candidate, known in zip(found, kinds, strict=True) if known == name])
        for name in ("of interest", "measured, but not of interest", "rejected by its labels")
    ]
    print_table([*rows, line("together", found)])
    whole = [candidate for candidate in found if candidate.looked["stopped"] is None]
    for name, some in (("all candidates", found), ("those not given up", whole)):
        divergences = [candidate.looked["divergence"] for candidate in some]
        correlation = rank_correlation(divergences, [candidate.whole.drop.value for candidate in some])
        text = "-" if correlation is None else f"{correlation:+.2f}"
        print(f"rank correlation of first divergence and drop on the whole part, {name}: {text}")


if __name__ == "__main__":
    main()

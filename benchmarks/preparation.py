"""What a ``guided`` job knows before its first trial, made in this process: for benchmarks of the search."""

import numpy as np
import torch
from torch import Tensor

from benchmarks.latency_table import Bench
from compressors.anatomy import describe
from compressors.calibration import calibrate
from compressors.export.folder import input_names
from compressors.network import EncoderNetwork
from compressors.options.branches import BranchLibrary
from compressors.options.scoring import ScoringSet
from profilers.quality.encode import EncodedTexts
from search.branch_costs import TableCosts
from search.branches import allowed_units
from search.latency_model import LatencyModel
from search.options import BranchTable
from search.options import OptionDatabase
from search.requests import Space
from search.space import build_space
from search.strategies.guided_space import GuidedSpace
from workers.operations.explore import PARTS
from workers.operations.explore import Exploration
from workers.operations.options import build_database

GRAM_TEXTS, ANCHOR_TEXTS, SCORING_TEXTS = 512, 128, 1024


class Preparation:
    """Calibration, option database, space and latency model of one model on one device.

    Args:
        bench: The model and the device.
        texts: Encoded calibration texts: the first 512 give the Gram matrices, the next 128 score single options, and
            up to 1,024 after the first 512 score combinations.
        table: The device's measured blocks.
    """

    def __init__(self, bench: Bench, texts: EncodedTexts, table: BranchTable) -> None:
        self.network, self.texts = bench.network, texts
        self.calibration = calibrate(self.network, self._gram_batches())
        anatomy, capabilities = describe(self.network), bench.profiler.describe()
        self.space = build_space(anatomy, capabilities, Space(), bench.defaults)
        self.table = table
        self.model = LatencyModel(TableCosts(table, anatomy), anatomy, usual=bench.defaults.quantization)

    def options(self) -> OptionDatabase:
        """Build the option database, as jobs do."""
        stop = GRAM_TEXTS + ANCHOR_TEXTS
        anchors = ScoringSet.collect(examples(self.network, self.texts, GRAM_TEXTS, stop))
        return build_database(self.network, self.calibration, anchors)

    def exploration(self, options: OptionDatabase, seed: int = 0) -> Exploration:
        """Return the search over combinations of options that a job does beside its first trials."""
        solver = self.solver(options)
        last = min(len(self.texts), GRAM_TEXTS + SCORING_TEXTS)
        scoring = ScoringSet.collect(examples(self.network, self.texts, GRAM_TEXTS, last), PARTS)
        library = BranchLibrary(self.network, self.calibration, self.space.dense_recipe())
        return Exploration(library, scoring, solver, self.model, seed)

    def solver(self, options: OptionDatabase) -> GuidedSpace:
        """Return the solver over all options."""
        units = allowed_units(options, self.space, self.table)
        return GuidedSpace(units, self.space, self.model, drops=options.drops)

    def _gram_batches(self) -> list[dict[str, Tensor]]:
        order = sorted(range(min(GRAM_TEXTS, len(self.texts))), key=lambda i: len(self.texts.input_ids[i]))
        names = input_names(self.network)
        feeds = [self.texts.batch(order[start : start + 32]) for start in range(0, len(order), 32)]
        return [{name: torch.from_numpy(batch[name]) for name in names} for batch in feeds]


def examples(network: EncoderNetwork, texts: EncodedTexts, start: int, stop: int) -> list[dict[str, Tensor]]:
    """Return texts as single model inputs."""
    names = input_names(network)
    return [{name: torch.from_numpy(texts.batch([i])[name]) for name in names} for i in range(start, stop)]


def spread(texts: EncodedTexts, count: int) -> EncodedTexts:
    """Return ``count`` texts spread evenly over all of them."""
    return texts.select(np.linspace(0, len(texts) - 1, min(count, len(texts))).astype(np.int64))

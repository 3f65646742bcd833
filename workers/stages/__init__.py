"""What is done in a step of each kind: one file a stage."""

from workers.stage import Stage
from workers.stages.audit import AuditStage
from workers.stages.confirm import ConfirmStage
from workers.stages.evaluate import EvaluateStage
from workers.stages.explore import ExploreStage
from workers.stages.export import ExportStage
from workers.stages.graphs import GraphsStage
from workers.stages.inspect import InspectStage
from workers.stages.measure import MeasureStage
from workers.stages.options import OptionsStage
from workers.stages.prepare import PrepareStage
from workers.stages.recover import RecoverStage
from workers.stages.table import TableStage
from workers.stages.tick import TickStage

_ALL: tuple[Stage, ...] = (
    InspectStage(),
    PrepareStage(),
    GraphsStage(),
    OptionsStage(),
    TableStage(),
    ExploreStage(),
    TickStage(),
    EvaluateStage(),
    MeasureStage(),
    RecoverStage(),
    AuditStage(),
    ConfirmStage(),
    ExportStage(),
)

STAGES: dict[str, Stage] = {stage.kind: stage for stage in _ALL}
"""``{Step.kind: stage}``."""

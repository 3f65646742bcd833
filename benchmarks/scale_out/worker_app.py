"""The real Celery application, with an evaluator and a profiler that sleep for a known time instead of working."""

import os
import random
import time

from benchmarks import paper_jobs
from infra.database.models import JsonObject
from workers.app import app as app
from workers.stage import StageContext
from workers.stages import STAGES
from workers.stages.evaluate import EvaluateStage
from workers.stages.inputs import get_trial
from workers.stages.measure import MeasureStage

SECONDS = "SCALE_OUT_SECONDS"
_LOOK_SECONDS = 0.5


class SleepingEvaluator(EvaluateStage):
    """Sleeps between 0.8 and 1.2 times the given seconds, and says when."""

    def work(self, context: StageContext) -> JsonObject:
        """Sleep; return what the formulas say."""
        with context.read_session() as session:
            trial = get_trial(session, context.step.trial_id)
        share = random.Random(trial.digest).uniform(0.8, 1.2)
        started = time.time()
        end = started + share * float(os.environ[SECONDS])
        while (left := end - time.time()) > 0:
            context.check_cancelled()
            time.sleep(min(left, _LOOK_SECONDS))
        slept = {"from": started, "to": time.time(), "worker": context.step.lease_owner}
        return paper_jobs.evaluation(trial.candidate) | {"facts": {"slept": slept}}


class InstantProfiler(MeasureStage):
    """Knows the answer."""

    def work(self, context: StageContext) -> JsonObject:
        """Return what the formulas say."""
        with context.read_session() as session:
            candidate = get_trial(session, context.step.trial_id).candidate
        return {"measurement": paper_jobs.timing(candidate), "samples_sha256": "0" * 64}


STAGES["evaluate"] = SleepingEvaluator()
STAGES["measure"] = InstantProfiler()

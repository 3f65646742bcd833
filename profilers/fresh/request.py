"""What is asked of a fresh process: ``request.json``."""

from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict

from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Effort
from profilers.types import Workload


class FreshRequest(BaseModel):
    """One measurement, or one look at the memory that an artifact takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["measure", "memory"]
    device: DeviceProfile
    workload: Workload
    reference: Artifact
    """For ``memory``: the artifact to load."""
    candidates: dict[str, Artifact] = {}
    effort: Effort = Effort()
    seed: int = 0
    operators: bool = False
    """Also count the executed operators of each candidate and of the reference."""

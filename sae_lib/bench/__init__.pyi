from .baselines import (
    neurons as neurons,
    principal_components as principal_components,
)
from .scores import (
    MEASURES as MEASURES,
    PocketBench as PocketBench,
    Scores as Scores,
    table as table,
)

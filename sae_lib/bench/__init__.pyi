from .baselines import (
    neurons as neurons,
    principal_components as principal_components,
)
from .dataset import (
    read_updates as read_updates,
    write_dataset as write_dataset,
)
from .export import (
    export_updates as export_updates,
)
from .scores import (
    MEASURES as MEASURES,
    PocketBench as PocketBench,
    Scores as Scores,
    reseed_noise as reseed_noise,
    table as table,
)

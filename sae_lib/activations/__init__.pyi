from .denoising import (
    CallSettings as CallSettings,
    run_updates as run_updates,
    stream_updates as stream_updates,
)
from .drawing import (
    as_image as as_image,
    draw_pictures as draw_pictures,
)
from .recording import (
    record as record,
    replay as replay,
)
from .shards import (
    ShardStream as ShardStream,
    write_shards as write_shards,
)
from .steps import (
    Step as Step,
)
from .stream import (
    BUFFER as BUFFER,
    PermutedStream as PermutedStream,
    TrainingStream as TrainingStream,
    positions_per_step as positions_per_step,
)
from .updates import (
    capture_updates as capture_updates,
    permute_dimensions as permute_dimensions,
    to_maps as to_maps,
    to_vectors as to_vectors,
)

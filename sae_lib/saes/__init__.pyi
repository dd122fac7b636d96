from .checkpoints import (
    load_any as load_any,
    load_saes as load_saes,
    load_statistics as load_statistics,
    rehearsal_saes as rehearsal_saes,
)
from .controls import (
    PCA as PCA,
    RawUpdates as RawUpdates,
    Reconstructor as Reconstructor,
    untrained as untrained,
)
from .exchange import (
    JumpReLUSAE as JumpReLUSAE,
    export_saelens as export_saelens,
    export_sparsify as export_sparsify,
    load_from_hub as load_from_hub,
    load_saelens as load_saelens,
    load_sdxl_unbox as load_sdxl_unbox,
    load_sparsify as load_sparsify,
)
from .metrics import (
    active_set_iou as active_set_iou,
    coefficient_similarity as coefficient_similarity,
    explained_variance as explained_variance,
    explained_variance_as_published as explained_variance_as_published,
    row_iou as row_iou,
)
from .sizes import (
    KINDS as KINDS,
    sae_size as sae_size,
)
from .statistics import (
    FeatureStatistics as FeatureStatistics,
    RunningStatistics as RunningStatistics,
)
from .topk import (
    TopKSAE as TopKSAE,
)
from .transfer import (
    explained_samples as explained_samples,
    measure_halves as measure_halves,
    measure_transfer as measure_transfer,
    share_of_rest as share_of_rest,
)

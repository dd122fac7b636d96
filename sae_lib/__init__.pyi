from .activations.denoising import (
    CallSettings as CallSettings,
    stream_updates as stream_updates,
)
from .activations.drawing import (
    as_image as as_image,
    draw_pictures as draw_pictures,
)
from .activations.steps import (
    Step as Step,
)
from .activations.stream import (
    TrainingStream as TrainingStream,
)
from .activations.updates import (
    capture_updates as capture_updates,
    to_maps as to_maps,
    to_vectors as to_vectors,
)
from .assets import (
    Assets as Assets,
)
from .cache.artefact import (
    ROOT as ROOT,
    cached as cached,
    cached_tensors as cached_tensors,
)
from .companion.figures import (
    save_figure as save_figure,
    save_table as save_table,
)
from .companion.pictures import (
    lay_over as lay_over,
    show_picture as show_picture,
)
from .companion.run import (
    start_run as start_run,
)
from .companion.verdicts import (
    Claim as Claim,
    Verdict as Verdict,
)
from .features.feature import (
    FeatureId as FeatureId,
    activation_maps as activation_maps,
    strength_unit as strength_unit,
)
from .features.injection import (
    inject_prompt as inject_prompt,
)
from .features.interventions import (
    add_features as add_features,
    during as during,
    intervene as intervene,
    modulate as modulate,
    reconstruct as reconstruct,
    replace_with_feature as replace_with_feature,
    skip_block as skip_block,
)
from .features.reading import (
    Reading as Reading,
)
from .judges.attributes import (
    attribute_values as attribute_values,
    judge_truth as judge_truth,
    load_judge as load_judge,
    see_values as see_values,
)
from .judges.intervals import (
    Interval as Interval,
    bootstrap as bootstrap,
    bootstrap_interval as bootstrap_interval,
    bootstrap_share as bootstrap_share,
    bootstrap_trials as bootstrap_trials,
    interval_of as interval_of,
)
from .models.blocks import (
    ATTENTION_BLOCKS as ATTENTION_BLOCKS,
    BLOCKS as BLOCKS,
    PAPER_BLOCKS as PAPER_BLOCKS,
    find_block as find_block,
    width_of as width_of,
)
from .models.pipelines import (
    load_pipeline as load_pipeline,
)
from .models.prompts import (
    load_pocket_captions as load_pocket_captions,
    load_prompts as load_prompts,
)
from .models.scales import (
    get_scale as get_scale,
)
from .paint.catalogue import (
    Catalogue as Catalogue,
)
from .paint.edits import (
    Edit as Edit,
    Layer as Layer,
)
from .paint.painter import (
    Painter as Painter,
)
from .saes.checkpoints import (
    load_saes as load_saes,
    load_statistics as load_statistics,
    rehearsal_saes as rehearsal_saes,
)
from .saes.controls import (
    untrained as untrained,
)
from .saes.metrics import (
    active_set_iou as active_set_iou,
    coefficient_similarity as coefficient_similarity,
    explained_variance as explained_variance,
    explained_variance_as_published as explained_variance_as_published,
)
from .saes.statistics import (
    FeatureStatistics as FeatureStatistics,
)
from .saes.topk import (
    TopKSAE as TopKSAE,
)
from .training.config import (
    SAEConfig as SAEConfig,
)
from .training.loop import (
    train_saes as train_saes,
)
from .training.trained import (
    one_step_saes as one_step_saes,
)

from .attributes import (
    Truth as Truth,
    attribute_values as attribute_values,
    judge_edit as judge_edit,
    judge_truth as judge_truth,
    load_judge as load_judge,
    mean_by_family as mean_by_family,
    see_values as see_values,
)
from .clip import (
    Clip as Clip,
    load_clip as load_clip,
)
from .grounding import (
    GroundedSAM as GroundedSAM,
    load_grounded_sam as load_grounded_sam,
)
from .intervals import (
    Interval as Interval,
    bootstrap as bootstrap,
    bootstrap_share as bootstrap_share,
    bootstrap_trials as bootstrap_trials,
    interval_of as interval_of,
)
from .perceptual import (
    LPIPS as LPIPS,
    EncoderDistance as EncoderDistance,
    load_perceptual as load_perceptual,
)

from .dictionaries import (
    LINEAR as LINEAR,
    NAMES as NAMES,
    SANITY as SANITY,
    UNTRAINED as UNTRAINED,
    Dictionaries as Dictionaries,
)
from .feature import (
    FeatureId as FeatureId,
    activation_maps as activation_maps,
    alikeness as alikeness,
    colour_spread as colour_spread,
    match_rates as match_rates,
    search_features as search_features,
    strength_unit as strength_unit,
)
from .injection import (
    PROMPT_PAIRS as PROMPT_PAIRS,
    by_reader as by_reader,
    draw_injected as draw_injected,
    encode_tokens as encode_tokens,
    estimate_injected as estimate_injected,
    inject_prompt as inject_prompt,
    share_carried as share_carried,
    share_of_way as share_of_way,
)
from .interventions import (
    add_features as add_features,
    draw_changed as draw_changed,
    during as during,
    intervene as intervene,
    modulate as modulate,
    reconstruct as reconstruct,
    replace_with_feature as replace_with_feature,
    skip_block as skip_block,
)
from .locality import (
    MEASURES as MEASURES,
    measure_modulation as measure_modulation,
    measure_painting as measure_painting,
)
from .meaning import (
    Meaning as Meaning,
    average_precision as average_precision,
    beyond_chance as beyond_chance,
    find_meaning as find_meaning,
    reading_scores as reading_scores,
    scene_samples as scene_samples,
    spearman as spearman,
    spearman_samples as spearman_samples,
)
from .reading import (
    NOISE_SEED as NOISE_SEED,
    Reading as Reading,
    Renders as Renders,
)
from .writing import (
    EVERYWHERE as EVERYWHERE,
    KINDS as KINDS,
    STRENGTHS as STRENGTHS,
    TRIED_AGAIN as TRIED_AGAIN,
    Target as Target,
    Trials as Trials,
    amount_of as amount_of,
    choose_strengths as choose_strengths,
    draw_icons as draw_icons,
    draw_written as draw_written,
    effects_in_one_step as effects_in_one_step,
    find_trials as find_trials,
    measure_timing as measure_timing,
    measure_writing as measure_writing,
    one_per_value as one_per_value,
    places_to_write as places_to_write,
    random_features as random_features,
    samples_by_block as samples_by_block,
    samples_by_family as samples_by_family,
    tried_again as tried_again,
    well_read as well_read,
    well_written as well_written,
    write as write,
)

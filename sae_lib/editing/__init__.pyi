from .bases import (
    Basis as Basis,
    Neurons as Neurons,
    PrincipalComponents as PrincipalComponents,
    SAEFeatures as SAEFeatures,
    WholeUpdate as WholeUpdate,
)
from .cases import (
    CATEGORIES as CATEGORIES,
    PAPER_EXAMPLES as PAPER_EXAMPLES,
    Case as Case,
    pocket_cases as pocket_cases,
    read_cases as read_cases,
    writers_of as writers_of,
)
from .edit import (
    draw_injected_edit as draw_injected_edit,
    edit_all as edit_all,
    encode_passes as encode_passes,
    load_editor as load_editor,
    prepare as prepare,
    score_pictures as score_pictures,
)
from .frontiers import (
    Columns as Columns,
    allowed_cost as allowed_cost,
    best_of_other_half as best_of_other_half,
    best_strengths as best_strengths,
    choose_settings as choose_settings,
    compare_frontiers as compare_frontiers,
    cross_fitted as cross_fitted,
    envelope as envelope,
    units_needed as units_needed,
)
from .masks import (
    JudgeFinder as JudgeFinder,
    NothingFound as NothingFound,
    find_mask as find_mask,
)
from .settings import (
    EDIT_PROMPT as EDIT_PROMPT,
    INJECTION as INJECTION,
    METHODS as METHODS,
    ORIGINAL as ORIGINAL,
    PAPER_SETTINGS as PAPER_SETTINGS,
    READINGS as READINGS,
    SIDE_EFFECTS as SIDE_EFFECTS,
    Method as Method,
    Setting as Setting,
    settings_of as settings_of,
    untrained_of as untrained_of,
)
from .sweep import (
    Sweep as Sweep,
    cached_sweep as cached_sweep,
    read_sweep as read_sweep,
    run_sweep as run_sweep,
)
from .transport import (
    scores as scores,
    select_units as select_units,
    transport as transport,
)

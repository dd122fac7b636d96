from .case_study import (
    PRINTED as PRINTED,
    SLOTH as SLOTH,
    draw_alone as draw_alone,
    draw_modulated as draw_modulated,
    noise_seed as noise_seed,
    refuse_block as refuse_block,
    show_features as show_features,
    show_grid as show_grid,
    show_maps as show_maps,
    study_prompt as study_prompt,
)
from .figures import (
    SavedFigure as SavedFigure,
    SavedTable as SavedTable,
    figure_folder as figure_folder,
    save_figure as save_figure,
    save_table as save_table,
    with_interval as with_interval,
    with_palette as with_palette,
)
from .pictures import (
    lay_over as lay_over,
    outline_cells as outline_cells,
    show_lines as show_lines,
    show_picture as show_picture,
)
from .plots import (
    add_legend as add_legend,
    draw_band as draw_band,
    draw_curve as draw_curve,
    draw_dot as draw_dot,
    draw_rows as draw_rows,
    draw_table as draw_table,
    look_of as look_of,
    picture_axes as picture_axes,
    short as short,
    show_row as show_row,
    write_under as write_under,
)
from .primaries import (
    ABOVE_ZERO as ABOVE_ZERO,
    PRIMARY as PRIMARY,
    agreement as agreement,
    both_over_same_dose as both_over_same_dose,
    caption_gain_over_random as caption_gain_over_random,
    caption_gains as caption_gains,
    distance_left as distance_left,
    early_over_late as early_over_late,
    first_over_rest as first_over_rest,
    growth_with_k as growth_with_k,
    inside_over_next as inside_over_next,
    mean_of_blocks as mean_of_blocks,
    more_edits as more_edits,
    rise_over_random as rise_over_random,
    share_of_ceiling as share_of_ceiling,
    share_that_never_fires as share_that_never_fires,
    spread_by_kind as spread_by_kind,
    spread_over_untrained as spread_over_untrained,
)
from .run import (
    Run as Run,
    fits as fits,
    refuse_unknown as refuse_unknown,
    start_run as start_run,
)
from .style import (
    ACCENT_COLORS as ACCENT_COLORS,
    BLOCK_COLORS as BLOCK_COLORS,
    BLOCK_MARKERS as BLOCK_MARKERS,
    CONTROL_COLOR as CONTROL_COLOR,
    MODEL_LINES as MODEL_LINES,
    TEXT_WIDTH as TEXT_WIDTH,
    use_house_style as use_house_style,
)
from .verdicts import (
    Claim as Claim,
    Verdict as Verdict,
    decide as decide,
    holm as holm,
    margin as margin,
)

from .blocks import (
    ATTENTION_BLOCKS as ATTENTION_BLOCKS,
    AUTHORS_ORDER as AUTHORS_ORDER,
    BLOCKS as BLOCKS,
    FLUX_BLOCKS as FLUX_BLOCKS,
    PAPER_BLOCKS as PAPER_BLOCKS,
    blocks_of as blocks_of,
    find_block as find_block,
    grid_of as grid_of,
    select_blocks as select_blocks,
    width_of as width_of,
)
from .noise import (
    Noise as Noise,
    prompt_generator as prompt_generator,
)
from .pipelines import (
    load_pipeline as load_pipeline,
    silence_progress_bars as silence_progress_bars,
)
from .prompts import (
    load_pocket_captions as load_pocket_captions,
    load_prompts as load_prompts,
)
from .rehearsal import (
    PARAMETERS as PARAMETERS,
    with_random_unet as with_random_unet,
)
from .scales import (
    Scale as Scale,
    get_scale as get_scale,
    seed_everything as seed_everything,
    set_up_torch as set_up_torch,
)
